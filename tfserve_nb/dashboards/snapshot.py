"""What a dashboard shows, as one value: views are functions of it, and are drawn again only when it changed.

Thread: any; immutable.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..serving.telemetry.model_metrics import ModelMetrics
from ..types import HistoryEvent, ModelStatus
from .cells import CellRun
from .charts.svg import Marker, Stretch, TimeAxis

MARKED = {"deploy", "promote", "rollback", "traffic", "label", "stage", "unload", "delete", "resume"}
"""Events of the history that charts mark."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model at one moment.

    Attributes:
        status: versions, traffic and labels.
        metrics: the numbers of the chosen time span.
        events: the newest first.
        cells: what ran in the kernel lately.
        at: when, in seconds since the epoch.
    """

    status: ModelStatus
    metrics: ModelMetrics
    events: tuple[HistoryEvent, ...] = ()
    cells: tuple[CellRun, ...] = ()
    at: float = field(default_factory=time.time)

    @property
    def axis(self) -> TimeAxis:
        """The time axis of its charts, with what happened meanwhile."""
        span_s = self.metrics.span_s
        markers = [
            Marker(self.at - event.at, event_text(event))
            for event in self.events
            if event.action in MARKED and 0 <= self.at - event.at <= span_s
        ]
        stretches = [
            Stretch(self.at - cell.started_at, self.at - (cell.ended_at or self.at), cell.text)
            for cell in self.cells
            if self.at - (cell.ended_at or self.at) <= span_s
        ]
        return TimeAxis(self.metrics.age_s, span_s, markers, stretches)


def event_text(event: HistoryEvent) -> str:
    """An event in words, such as `14:03:09 promote version 3`."""
    version = f" version {event.version}" if event.version is not None else ""
    detail = f" ({event.detail})" if event.detail else ""
    return f"{clock(event.at)} {event.action}{version}{detail}"


def clock(at: float) -> str:
    """The local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))
