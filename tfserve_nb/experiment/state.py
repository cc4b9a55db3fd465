"""Where an experiment stands, and what it has seen of disagreements.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..serialization import HighEnd, LowEnd
from .plan import Plan
from .reading import Reading, Verdict

BY_HAND = "by hand"
"""How the reason of what a person did ends."""
WAITS = "waits for a person"
"""How the reason of an experiment that passed ends."""

NUM_DISAGREEMENTS = 24
"""Rows that are shown and kept of those on which the versions differ most."""

PHASES = ("running", "held", "promoted", "rolled back", "stopped")
"""`held`: it passed its last step, or could not go on, and waits for a person."""


class Moment(NamedTuple):
    """The effect at one moment, for charts.

    Attributes:
        at_s: seconds since the experiment began.
        num_requests: requests of both arms until then.
        value: the effect.
        low: lower end of its interval.
        high: upper end.
    """

    at_s: float
    num_requests: int
    value: float
    low: LowEnd
    high: HighEnd


@dataclass(frozen=True, slots=True, repr=False)
class ExperimentState:
    """A snapshot of an experiment.

    Attributes:
        plan: what was asked for.
        phase: one of `PHASES`.
        reason: why it is no longer running, or what it waits for; in words.
        started_at: seconds since the epoch.
        ended_at: seconds since the epoch, or None while it goes on.
        percent: what B gets now.
        step: the number of the current canary step, from 0.
        reading: what was found.
        moments: the effect over time, oldest first, thinned out.
        latencies: version -> histogram of the latencies of its requests, as `serving.histogram.counts_of`, a list.
        num_shadow_dropped: copies that were left out because the server had better things to do.
        step_since: when the current canary step began, seconds since the epoch; None when it is not known.
    """

    plan: Plan
    phase: str
    reason: str
    started_at: float
    ended_at: float | None
    percent: float
    step: int
    reading: Reading
    moments: tuple[Moment, ...] = ()
    latencies: Mapping[int, tuple[int, ...]] | None = None
    num_shadow_dropped: int = 0
    step_since: float | None = None

    @property
    def verdict(self) -> Verdict:
        """What was found and, when it is over, what was done, such as `B is slower by 12 % ...: rolled back`."""
        found = self.reading.verdict
        if self.phase == "running":
            return found
        if self.phase == "held":
            if not self.reason.endswith(WAITS):
                return Verdict(self.reason, "rollback")
            # What was concluded stays so, also when later requests make the interval wider again.
            return Verdict(f"{found}; {WAITS}" if found.decision == "promote" else self.reason, "promote")
        if self.phase == "stopped" or self.reason.endswith(BY_HAND):
            did = self.reason if self.reason.endswith(BY_HAND) else f"{self.phase}: {self.reason}"
            return Verdict(f"{found}; {did}", found.decision)
        cause = self.reason.removesuffix(": promote")
        return Verdict(f"{cause}: {self.phase}", "promote" if self.phase == "promoted" else "rollback")

    def __repr__(self) -> str:
        plan = self.plan
        return f"<ExperimentState {plan.name}: version {plan.b} (B) against {plan.a} (A), {self.phase}; {self.verdict}>"

    @property
    def is_decided(self) -> bool:
        """Whether there is a verdict, so that nothing is gained by more traffic."""
        return self.phase != "running" or self.reading.verdict.decision != "wait"

    @property
    def is_over(self) -> bool:
        """Whether B's share will not change by itself any more."""
        return self.phase not in ("running", "held")
