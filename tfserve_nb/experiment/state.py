"""The results and the state of an experiment: values that dashboards, scripts and the admin API read.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from ..agreement.result import Agreement
from ..serialization import HighEnd, LowEnd
from .plan import Plan

DECISIONS = ("wait", "promote", "rollback", "blocked")
"""`wait`: not known yet; `promote`: B is not worse; `rollback`: B is harmful; `blocked`: nothing can be concluded."""

SRM_LIMIT = 0.001
"""p-value of the sample ratio below which no other result is trusted."""

BY_HAND = "by hand"
"""The end of the reason of what a person did."""
WAITS = "waits for a person"
"""The end of the reason of an experiment that passed."""

NUM_DISAGREEMENTS = 24
"""Rows that are shown and kept of those on which the versions differ most."""

PHASES = ("running", "held", "promoted", "rolled back", "stopped")
"""`held`: it passed its last step, or could not go on, and waits for a person."""


class Verdict(str):
    """The verdict, in words; `decision` is one of `DECISIONS`."""

    __slots__ = ("decision",)
    decision: str

    def __new__(cls, text: str, decision: str = "wait") -> Self:
        """A text with its decision."""
        if decision not in DECISIONS:
            raise ValueError(f"decision {decision!r} must be one of {', '.join(DECISIONS)}")
        self = super().__new__(cls, text)
        self.decision = decision
        return self

    def to_json(self) -> list[str]:
        """The text and its decision."""
        return [str(self), self.decision]

    @classmethod
    def from_json(cls, value: Sequence[str]) -> Self:
        """The inverse of `to_json`."""
        return cls(*value)


class Estimate(NamedTuple):
    """An effect with an interval that holds at all times at once, so that looking often costs nothing.

    Attributes:
        value: B compared with A; for latencies relative (0.1: B takes 10 % longer), for rates a difference (0.01: a
            point).
        low: lower end of the interval.
        high: upper end.
        p_value: always-valid p-value of "there is no difference".
        num_units: independent units of both arms that it rests on, such as batches, blocks or keys.
    """

    value: float
    low: LowEnd
    high: HighEnd
    p_value: float
    num_units: int

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Whether the arms got the shares that they should have (sample-ratio mismatch).

    Attributes:
        counts: version -> how many units were assigned to it.
        expected: version -> how many should have been.
        unit: what was counted: `requests`, or `keys` when clients are kept with their version.
        p_value: always-valid p-value of "the shares are as they should be".
    """

    counts: Mapping[int, int]
    expected: Mapping[int, float]
    unit: str
    p_value: float

    @property
    def is_mismatch(self) -> bool:
        """Whether the other results cannot be trusted."""
        return self.p_value < SRM_LIMIT


@dataclass(frozen=True, slots=True)
class Calibration:
    """How sure a version is compared with how often it is right, from rows whose label is known.

    Attributes:
        num_rows: rows with a label.
        accuracy: share of them that the version got right.
        confidence: mean of its highest score on them.
        error: expected calibration error, 0 to 1.
    """

    num_rows: int
    accuracy: float
    confidence: float
    error: float


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One limit, and how the candidate keeps it.

    Attributes:
        name: `latency`, `errors`, `outputs`, `disagreement` or `harm`.
        text: in words, with the numbers.
        windows: whether each of the last windows was bad, oldest first; None for one with too little traffic.
        is_breached: whether B must be taken back.
    """

    name: str
    text: str
    windows: tuple[bool | None, ...] = ()
    is_breached: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that is known now.

    Attributes:
        verdict: in words, with its decision.
        effect: of the plan's metric; None while too little is known.
        samples: version -> requests that it answered or failed, those that traffic sent there.
        units: version -> independent units of the metric.
        srm: whether the split is what it should be.
        latency: relative difference of the time of a run at equal batch sizes.
        tail: relative difference of the 95th percentile of a request's latency.
        errors: difference of the shares of failed requests.
        quality: difference of the shares of right predictions, from labels.
        agreement: output name -> how it compares on the same rows; empty without copies.
        bias: output name -> B's numbers minus A's on the same rows, for outputs that are compared as numbers.
        calibration: version -> how sure it is compared with how often it is right.
        guardrails: the limits.
    """

    verdict: Verdict
    effect: Estimate | None
    samples: Mapping[int, int]
    units: Mapping[int, int]
    srm: SampleRatio
    latency: Estimate | None = None
    tail: Estimate | None = None
    errors: Estimate | None = None
    quality: Estimate | None = None
    agreement: Agreement = field(default_factory=Agreement)
    bias: Mapping[str, Estimate] = field(default_factory=dict)
    calibration: Mapping[int, Calibration] = field(default_factory=dict)
    guardrails: tuple[Guardrail, ...] = ()

    @property
    def breached(self) -> Guardrail | None:
        """The first limit that B has broken."""
        return next((guardrail for guardrail in self.guardrails if guardrail.is_breached), None)


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
        plan: its options.
        phase: one of `PHASES`.
        reason: why it is no longer running, or what it waits for; in words.
        started_at: seconds since the epoch.
        ended_at: seconds since the epoch, or None while it goes on.
        percent: what B gets now.
        step: the number of the current canary step, from 0.
        reading: what was found.
        moments: the effect over time, oldest first, thinned out.
        latencies: version -> histogram of the latencies of its requests, as `serving.histogram.counts_of`, a list.
        num_shadow_dropped: copies that were left out because the server was busy.
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
        """The conclusion and, when it is over, the action taken, such as `B is slower by 12 % ...: rolled back`."""
        found = self.reading.verdict
        if self.phase == "running":
            return found
        if self.phase == "held":
            if not self.reason.endswith(WAITS):
                return Verdict(self.reason, "rollback")
            # The conclusion stays, also when later requests make the interval wider again.
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
