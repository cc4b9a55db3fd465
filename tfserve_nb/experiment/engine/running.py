"""One experiment while it goes on: takes in what was observed, and proposes changes.

It decides nothing about traffic itself: `Experiments` carries out the `Change` that `look` asks for.

Thread: the experiments' thread, or the thread that holds the lock of `Experiments`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias  # JSON

from ...agreement.result import Disagreement
from ...agreement.summary import Evidences
from ..plan import Plan
from ..state import WAITS, ExperimentState, Moment, Reading
from .evaluate import evaluate
from .inbox import Inbox
from .observations import Observations

Move: TypeAlias = Literal["stay", "next", "done", "back"]
"""The next action of a canary. `next`: the next step; `done`: the last step was passed; `back`: A gets everything."""

FEWEST_REQUESTS = 20
"""Requests that B must have got in all before a step counts as passed."""

MAX_MOMENTS = 400


def move(steps: tuple[float, ...], hold_s: float, step: int, in_step_s: float, version: int, reading: Reading) -> Move:
    """The next action of a canary after a reading.

    A step before the last is passed when its time is over and nothing shows that B is worse; proof that B is not worse
    would take too long with one percent of the traffic, and is required at the last step only.

    Args:
        steps: percents, increasing; empty for one step without an end of its own.
        hold_s: how long each lasts at least, in seconds.
        step: the number of the current one, from 0.
        in_step_s: how long it has lasted, in seconds.
        version: B.
        reading: the latest results.

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


@dataclass(frozen=True, slots=True)
class Change:
    """A change that the experiment proposes.

    Attributes:
        action: `traffic` for another share of B, `rollback`, `promote`, or `hold` to change nothing and wait.
        percent: what B gets from now on.
        reason: why, in words.
    """

    action: str
    percent: float
    reason: str


class Running:
    """An experiment.

    Args:
        plan: its options.
        now: the clock in seconds, that of the server's records.
        started_at: seconds since the epoch.
        elapsed_s: how long it went on before, when it is resumed.
        observations: what was seen before.
        evidence: loss and activation of the outputs, from the versions' provenance.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        now: Callable[[], float],
        started_at: float,
        elapsed_s: float = 0.0,
        observations: Observations | None = None,
        evidence: Evidences | None = None,
    ) -> None:
        self.plan = plan
        self.evidence = evidence or {}
        self.inbox = Inbox(plan)
        self.observations = observations or Observations(plan, evidence)
        self.phase = "running"
        self.reason = ""
        self.step = 0
        self.percent = plan.first_percent
        self._num_dropped: int | None = None
        self._num_dropped_before = 0
        self.moments: list[Moment] = []
        self._now = now
        self._zero_s = now() - elapsed_s
        self._step_began_s = elapsed_s
        self._step_since = started_at
        self._started_at = started_at
        self._ended_at: float | None = None
        self._every = 1
        self._num_looks = 0
        self.reading: Reading = evaluate(self.observations, elapsed_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began, those before a restart included."""
        return self._now() - self._zero_s

    @property
    def is_over(self) -> bool:
        """Whether nothing is watched any more."""
        return self.phase not in ("running", "held")

    def look(self) -> Change | None:
        """Take in what was seen since the last time; what should change, if anything."""
        self.inbox.empty_into(self.observations, self._zero_s)
        elapsed_s = self.elapsed_s
        self.reading = reading = evaluate(self.observations, elapsed_s)
        self._note_moment(elapsed_s)
        if self.is_over:
            return None
        harm = self._harm(reading)
        if harm:
            return self._back(harm)
        if self.phase == "held":
            return None
        plan = self.plan
        following = move(plan.steps, plan.hold_s, self.step, elapsed_s - self._step_began_s, plan.b, reading)
        if following == "next":
            percent = plan.steps[self.step + 1]
            return Change("traffic", percent, f"step {self.step + 2} of {len(plan.steps)} of the canary")
        if following == "done":
            return self._passed(reading)
        return None

    def changed(self, change: Change) -> None:
        """A change was carried out."""
        self.percent = change.percent
        if change.action == "traffic":
            self.step += 1
            self._step_began_s, self._step_since = self.elapsed_s, time.time()
            self.observations.set_percent(change.percent, self._step_began_s)
            return
        self.phase = {"rollback": "rolled back", "promote": "promoted", "hold": "held"}[change.action]
        self.reason = change.reason

    def note_dropped(self, total: int) -> None:
        """So many copies of the model's requests were left out since the server started."""
        if self._num_dropped is None:
            self._num_dropped_before = total
        self._num_dropped = total

    def finish(self, phase: str, reason: str, ended_at: float) -> None:
        """It is over."""
        self.phase, self.reason, self._ended_at = phase, reason, ended_at

    def snapshot(self) -> ExperimentState:
        """The current state."""
        counts = self.observations.latency_counts()
        return ExperimentState(
            plan=self.plan,
            phase=self.phase,
            reason=self.reason,
            started_at=self._started_at,
            ended_at=self._ended_at,
            percent=self.percent,
            step=self.step,
            reading=self.reading,
            moments=tuple(self.moments),
            latencies={self.plan.a: counts["a"], self.plan.b: counts["b"]},
            num_shadow_dropped=(self._num_dropped or 0) - self._num_dropped_before,
            step_since=self._step_since,
        )

    def catch_up(self, traffic: Mapping[int, float]) -> None:
        """Take the next step of a canary that was already routed: an earlier process ended before it could note it."""
        following = self.plan.steps[self.step + 1 : self.step + 2]
        if following and traffic.get(self.plan.b) == following[0] != self.percent:
            self.changed(Change("traffic", following[0], "routed before a restart"))

    def disagreements(self, limit: int) -> list[Disagreement]:
        """The rows on which both versions differed most, with the time of day."""
        return [replace(one, at=self._started_at + one.at) for one in self.observations.disagreements(limit)]

    def to_json(self) -> dict[str, Any]:
        """The JSON value that `from_json` needs after a restart, beside the state."""
        return {
            "observations": self.observations.to_json(),
            "elapsed_s": self.elapsed_s,
            "step_began_s": self._step_began_s,
        }

    @classmethod
    def from_json(
        cls,
        state: ExperimentState,
        value: Mapping[str, Any],
        now: Callable[[], float],
        evidence: Evidences | None = None,
    ) -> Running:
        """Go on where an earlier process stopped; the time in between does not count."""
        plan = state.plan
        found = cls(
            plan,
            now=now,
            started_at=state.started_at,
            elapsed_s=float(value["elapsed_s"]),
            observations=Observations.from_json(plan, value["observations"], evidence),
            evidence=evidence,
        )
        found.phase, found.reason, found.step, found.percent = state.phase, state.reason, state.step, state.percent
        found.moments = list(state.moments)
        found._step_began_s = float(value["step_began_s"])
        found._step_since = state.started_at if state.step_since is None else state.step_since
        found._ended_at = state.ended_at
        return found

    def _harm(self, reading: Reading) -> str:
        """Why B must go, or ""."""
        breached = reading.breached
        if breached is not None:
            return breached.text
        return str(reading.verdict) if reading.verdict.decision == "rollback" else ""

    def _back(self, why: str) -> Change | None:
        if self.plan.auto_rollback:
            return Change("rollback", 0.0, why)
        if self.phase == "held":
            return None
        return Change("hold", self.percent, f"{why}; nothing was changed, as the plan demands")

    def _passed(self, reading: Reading) -> Change:
        if self.plan.auto_promote:
            return Change("promote", 100.0, str(reading.verdict))
        return Change("hold", self.percent, f"{reading.verdict}; {WAITS}")

    def _note_moment(self, at_s: float) -> None:
        """Keep the effect of now and then: when there are too many, every other one goes, and fewer are added."""
        self._num_looks += 1
        effect = self.reading.effect
        if effect is None or self._num_looks % self._every:
            return
        total = sum(self.reading.samples.values())
        if self.moments and self.moments[-1].num_requests == total:
            return
        self.moments.append(Moment(at_s, total, effect.value, effect.low, effect.high))
        if len(self.moments) > MAX_MOMENTS:
            self.moments = self.moments[::2]
            self._every *= 2
