"""All of a dashboard as one page that needs no kernel: saved notebooks, nbviewer and GitHub show it.

Thread: any; pure functions.
"""

from __future__ import annotations

import time

from ...markup import grid, note
from ..snapshot import Snapshot
from .latency import latency_charts
from .versions import versions_page

NUM_CHARTS = 4


def still_page(snapshot: Snapshot) -> str:
    """Versions, history and the most important charts."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.at))
    return (
        f"<div>{versions_page(snapshot)}{grid(latency_charts(snapshot)[:NUM_CHARTS])}"
        f"{note(f'{snapshot.status.name} as of {when}')}</div>"
    )
