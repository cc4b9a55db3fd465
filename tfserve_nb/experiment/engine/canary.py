"""What a canary does next: a pure rule.

Thread: any; pure functions.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from ..reading import Reading

Move: TypeAlias = Literal["stay", "next", "done", "back"]
"""`next`: the next step; `done`: the last step was passed; `back`: everything goes to A."""

FEWEST_REQUESTS = 20
"""Requests that B must have got in all before a step counts as passed."""


def move(steps: tuple[float, ...], hold_s: float, step: int, in_step_s: float, version: int, reading: Reading) -> Move:
    """What follows from a reading.

    A step before the last is passed when its time is over and nothing speaks against B; proof that B is not worse would
    take too long with one percent of the traffic, and is asked for at the last step only.

    Args:
        steps: percents, increasing; empty for one step without an end of its own.
        hold_s: how long each lasts at least, in seconds.
        step: the number of the current one, from 0.
        in_step_s: how long it has lasted, in seconds.
        version: B.
        reading: what was found.

    Returns:
        What to do now.
    """
    decision = reading.verdict.decision
    if decision == "rollback":
        return "back"
    is_early = in_step_s < hold_s or reading.samples.get(version, 0) < FEWEST_REQUESTS
    if decision == "blocked" or (steps and is_early):
        return "stay"
    if step + 1 < len(steps):
        return "next"
    return "done" if decision == "promote" else "stay"
