"""Experiments for users: `d.ab_test(...)` and the object that it returns.

Thread: any.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any  # the user's rows

from ..agreement.result import Agreement, Disagreement
from ..bench.load.process import generate
from ..bench.load.samples import Samples
from ..bench.load.schedule import Load, Target
from ..bench.load.targets import RequestOptions, probe, target_of
from ..errors import InvalidOption, ModelNotFound, NotAvailable
from ..experiment.admin import ExperimentAdmin
from ..experiment.plan import Limits, Plan
from ..experiment.state import NUM_DISAGREEMENTS, ExperimentState, Reading, SampleRatio, Verdict
from ..server.handle import ServerHandle

CLIENTS = 8
"""Clients of the closed loop that sends when no rate is given."""
LOOK_S = 0.25
_LIMITS = tuple(field.name for field in dataclasses.fields(Limits))
_PLAN = tuple(field.name for field in dataclasses.fields(Plan) if field.name not in ("name", "a", "b", "limits"))


class ABTest:
    """An experiment while it goes on, and what it found once it is over.

    Every attribute is read from the server at that moment; reading often is free, the intervals hold at all times at
    once.

    Args:
        experiments: where it runs.
        name: the model.
        started_at: distinguishes this experiment from later ones of the model.
        deployment: the handle of the model.

    Attributes:
        name: the model.
        deployment: the handle of the model.
    """

    def __init__(self, experiments: ExperimentAdmin, name: str, started_at: float, deployment: Any) -> None:
        self.name = name
        self.deployment = deployment
        self._experiments = experiments
        self._started_at = started_at
        self._last: ExperimentState | None = None

    @property
    def state(self) -> ExperimentState:
        """Its complete state, as a value; the last known one when the model has a later experiment or is gone."""
        last = self._last
        if last is not None and last.ended_at is not None:
            return last
        try:
            state = self._experiments.state(self.name)
        except (ModelNotFound, NotAvailable):
            if last is None:
                raise
            # Not for good: a server that starts again takes the experiment up.
            return dataclasses.replace(last, phase="stopped", reason="the model is no longer served")
        if state is not None and state.started_at == self._started_at:
            self._last = state
        elif last is None:
            raise InvalidOption(f"{self.name} has another experiment by now", hint="d.experiment() gives it")
        else:
            reason = "the model has another experiment by now"
            self._last = dataclasses.replace(last, phase="stopped", reason=reason, ended_at=time.time())
        return self._last

    @property
    def reading(self) -> Reading:
        """All estimates, limits and counts."""
        return self.state.reading

    @property
    def verdict(self) -> Verdict:
        """What follows, as text; `verdict.decision` is `wait`, `promote`, `rollback` or `blocked`."""
        return self.state.verdict

    @property
    def effect(self) -> float:
        """B compared with A in the metric: relative for latencies (0.1: 10 % slower), a difference for quality.

        NaN while there are too few observations.
        """
        effect = self.reading.effect
        return math.nan if effect is None else effect.value

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true effect lies, with probability `1 - alpha` for the whole experiment; infinite ends at first."""
        effect = self.reading.effect
        return (-math.inf, math.inf) if effect is None else effect.interval

    @property
    def samples(self) -> dict[int, int]:
        """Version -> requests that the traffic gave it."""
        return dict(self.reading.samples)

    @property
    def srm(self) -> SampleRatio:
        """Whether both versions got the shares that they should have: `srm.is_mismatch`, `srm.p_value`."""
        return self.reading.srm

    @property
    def agreement(self) -> Agreement:
        """Output name -> how it compares on the copied rows, which both versions got; empty without any."""
        return self.reading.agreement

    @property
    def is_over(self) -> bool:
        """Whether it was promoted, rolled back or stopped."""
        return self.state.is_over

    def wait(self, seconds: float = math.inf) -> ABTest:
        """Block until there is a verdict, but not longer than so many seconds; needs traffic from elsewhere."""
        until_s = time.perf_counter() + seconds
        while not self.state.is_decided and (left_s := until_s - time.perf_counter()) > 0:
            time.sleep(min(LOOK_S, left_s))
        return self

    def stop(self) -> ABTest:
        """End it; A gets all traffic."""
        return self._end("stop")

    def promote(self) -> ABTest:
        """End it; B gets all traffic."""
        return self._end("promote")

    def rollback(self) -> ABTest:
        """End it; A gets all traffic."""
        return self._end("rollback")

    def disagreements(self, limit: int = NUM_DISAGREEMENTS) -> list[Disagreement]:
        """The copied rows on which both versions differed most, the worst first."""
        return self._experiments.disagreements(self.name, limit)

    def report(self) -> Any:
        """The results as a matplotlib `Figure`."""
        from ..experiment.views.figure import figure_of

        return figure_of(self.state)

    def _end(self, how: str) -> ABTest:
        if not self.state.is_over:
            self._last = self._experiments.end(self.name, how)
        return self

    def __repr__(self) -> str:
        state = self.state
        plan = state.plan
        samples = ", ".join(f"version {version}: {num}" for version, num in state.reading.samples.items())
        return (
            f"<ABTest {self.name}: version {plan.b} (B) compared with {plan.a} (A), {state.phase}; {state.verdict}  "
            f"requests {samples or 'none'}>"
        )


def plan_of(name: str, a: int, b: int, options: dict[str, Any]) -> Plan:
    """A plan from flat options.

    Raises:
        InvalidOption: naming the option that is not known or not allowed.
    """
    given = {option: value for option, value in options.items() if value is not None}
    for option in ("steps", "output_range"):
        if option in given:
            given[option] = _numbers(option, given[option])
    limits = {option: given.pop(option) for option in _LIMITS if option in given}
    return Plan(name, a, b, limits=Limits(**limits), **given)


def _numbers(option: str, given: Any) -> tuple[float, ...]:
    """Several numbers; the plan checks which ones are allowed."""
    try:
        return tuple(one.item() if hasattr(one, "item") else one for one in given)
    except TypeError as error:
        raise InvalidOption(f"{option}={given!r} must be several numbers", hint=f"{option}=(1, 5)") from error


def requests_of(
    server: ServerHandle, name: str, values: Any, *, rate: float | None, seconds: float
) -> tuple[Target, Load]:
    """Requests with the user's rows, and when they are sent; one request is tried before an experiment begins.

    Args:
        server: serves the model.
        name: the model.
        values: rows, as `Deployment.predict` takes them.
        rate: requests per second of an open loop with Poisson arrivals; None for `CLIENTS` clients that send one
            request after the other.
        seconds: the longest time.

    Raises:
        InvalidOption: if rate or seconds are not allowed.
        ServingError: if the request fails, such as for rows that do not fit.
    """
    load = Load(rate=rate, concurrency=CLIENTS if rate is None else None, seconds=seconds, warmup_s=0.0)
    target = target_of(server.rest_url(name), server.token, RequestOptions(values=values))
    probe(target)
    return target, load


def send_until_decided(
    test: ABTest, target: Target, load: Load, watch: Callable[[ExperimentState], None] | None = None
) -> None:
    """Send requests to the model until there is a verdict, or `load` ends.

    The requests come from another process over HTTP and name no version, as real clients' would.

    Args:
        test: the experiment.
        target: the requests.
        load: when they are sent.
        watch: called with the state of the experiment a few times a second, on the calling thread; None for no calls.
    """

    def on_samples(_: Samples) -> bool:
        state = test.state
        if watch is not None:
            watch(state)
        return not state.is_decided

    generate(target, load, on_samples)
    if watch is not None:
        watch(test.state)
