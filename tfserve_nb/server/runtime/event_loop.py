"""The event loop that servers run on.

Thread: any.
"""

from __future__ import annotations

import asyncio
import sys


def new_loop() -> asyncio.AbstractEventLoop:
    """The fastest loop there is; on Windows the one that has `add_reader`, which Tornado needs."""
    if sys.platform == "win32":
        return asyncio.SelectorEventLoop()
    import uvloop

    return uvloop.new_event_loop()
