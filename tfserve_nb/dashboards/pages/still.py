"""All of a dashboard as one page that needs no kernel: saved notebooks, nbviewer and GitHub show it.

Thread: any; pure functions.
"""

from __future__ import annotations

import time

from ...experiment.state import ExperimentState
from ...markup import grid, note
from ..snapshot import Snapshot
from .experiment import experiment_page
from .latency import latency_charts
from .versions import versions_page

NUM_CHARTS = 4


def still_page(snapshot: Snapshot, experiment: ExperimentState | None = None) -> str:
    """Versions, history, the latest experiment and the most important charts.

    Args:
        snapshot: what was shown.
        experiment: the model's latest one; None when there was none.
    """
    compared = "" if experiment is None else experiment_page(experiment, snapshot.events)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.at))
    return (
        f"<div>{versions_page(snapshot)}{compared}{grid(latency_charts(snapshot)[:NUM_CHARTS])}"
        f"{note(f'{snapshot.status.name} as of {when}')}</div>"
    )
