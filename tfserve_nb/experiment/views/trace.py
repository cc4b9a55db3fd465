"""An effect over time, as the dashboard's chart and the notebook's figure draw it.

Thread: any; pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..plan import Plan
from ..state import Moment


@dataclass(frozen=True, slots=True)
class Trace:
    """The moments whose effect is known, oldest first, and the range of effects that is worth drawing.

    Attributes:
        moments: at least one.
        x: requests of both arms, or seconds where copies alone are compared and no request is counted; float64, `(n,)`.
        is_by_requests: which of both `x` is.
        value: the effects; float64, `(n,)`.
        low: lower ends of their intervals, `(n,)`; may be infinite.
        high: upper ends, `(n,)`.
        bottom: lowest effect to draw; intervals of the first moments may reach further.
        top: highest effect to draw.
    """

    moments: tuple[Moment, ...]
    x: np.ndarray
    is_by_requests: bool
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    bottom: float
    top: float


def trace_of(moments: Sequence[Moment], margin: float | None) -> Trace | None:
    """What there is to draw; None while no effect is known.

    Args:
        moments: the effect over time, oldest first.
        margin: the effect from which on B counts as worse, drawn too; None for none.
    """
    known = tuple(moment for moment in moments if math.isfinite(moment.value))
    if not known:
        return None
    is_by_requests = known[-1].num_requests > known[0].num_requests
    x = np.array([moment.num_requests if is_by_requests else moment.at_s for moment in known], dtype=np.float64)
    value, low, high = (np.array([getattr(moment, name) for moment in known]) for name in ("value", "low", "high"))
    bottom, top = _range(known[len(known) // 2 :], margin)
    return Trace(known, x, is_by_requests, value, low, high, bottom, top)


def margin_of(plan: Plan) -> float:
    """The effect from which on B counts as worse: a longer time, or a smaller share of right answers."""
    return -plan.margin if plan.metric == "quality" else plan.margin


def _range(late: Sequence[Moment], margin: float | None) -> tuple[float, float]:
    """Fits what was known in the later half; the wide intervals of the first moments are cut off."""
    needed = [0.0, *(moment.value for moment in late), *([] if margin is None else [margin])]
    # An interval that is far wider than everything else would flatten the rest.
    widest = 10 * max(map(abs, needed)) + 0.1
    ends = [end for moment in late for end in (moment.low, moment.high) if math.isfinite(end)]
    needed += [min(max(end, -widest), widest) for end in ends]
    room = 0.08 * (max(needed) - min(needed)) or 0.01
    return min(needed) - room, max(needed) + room
