"""The event loop that servers run on.

Thread: any.
"""

from __future__ import annotations

import asyncio


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's: the fastest."""
    import uvloop  # importing it takes a while, and only servers need it

    return uvloop.new_event_loop()
