"""Replicas on Ray: what each one does, and when Ray added or removed some.

Thread: any; pure functions.
"""

from __future__ import annotations

from ...reports.html import table_html
from ...reports.report import Table, names, numbers
from ...scaleout.ray.state import RayModelStatus
from ...types import ModelStatus
from ..snapshot import clock

NUM_EVENTS = 5


def replica_tables(status: ModelStatus) -> str:
    """The replicas and the newest decisions of the autoscaler; nothing for a model that is not on Ray."""
    if not isinstance(status, RayModelStatus):
        return ""
    state = status.ray
    replicas = tuple(
        (
            one.name,
            one.state.lower(),
            one.node,
            "" if one.pid is None else str(one.pid),
            clock(one.started_at) if one.started_at else "",
            "" if one.running is None else str(one.running),
        )
        for one in state.replicas
    )
    scaling = tuple(
        (clock(one.at), f"{one.before} → {one.after}", one.reason or "not told by Ray")
        for one in reversed(state.scaling[-NUM_EVENTS:])
    )
    heading = f"Replicas on Ray: {state.num_running} of {state.wanted} answer, {state.ongoing} requests on their way"
    columns = (*names("replica", "state", "node", "process", "since"), *numbers("requests"))
    found = table_html(Table(heading, columns, replicas))
    return found + table_html(Table("Scaling", names("time", "replicas", "why"), scaling)) if scaling else found
