"""Experiments that nobody ran: states as the engine gives them, for pages, reports and dashboards."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np

from tfserve_nb.agreement.result import Agreement, Disagreement, OutputAgreement
from tfserve_nb.experiment.plan import Limits, Plan
from tfserve_nb.experiment.state import (
    Calibration,
    Estimate,
    ExperimentState,
    Guardrail,
    Moment,
    Reading,
    SampleRatio,
    Verdict,
)
from tfserve_nb.serving.telemetry.histogram import counts_of

STARTED_AT = 1.7e9
PLAN = Plan("recorded", 1, 2, limits=Limits(slo_p99_ms=50.0, max_disagreement=0.2), salt="0123456789abcdef")
NAN = "14 of 117 (12 %) of B's rows were NaN or infinite, in 2 of the last 3 windows of 5 s"
BLOCKED = (
    "blocked: B got 699 of 1600 requests, 800 were expected (p < 0.001); something loses or misdirects requests, so no "
    "other number can be believed"
)
KINDS = ("few", "equal", "slower", "better", "mismatch", "nan", "canary", "quality")


def state_of(kind: str) -> ExperimentState:
    """One of `KINDS`."""
    return {
        "few": _few, "equal": _equal, "slower": _slower, "better": _better, "mismatch": _mismatch, "nan": _nan,
        "canary": _canary, "quality": _quality,
    }[kind]()  # fmt: skip


def disagreements(num: int = 3) -> list[Disagreement]:
    """Rows with an image and a text, on which A says 3 and B says 8."""
    random.seed(3)
    scores = np.full(10, 0.01, dtype=np.float32)
    a, b = scores.copy(), scores.copy()
    a[3] = b[8] = 0.9
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    return [
        Disagreement(
            1.6 - 0.1 * place,
            {"image": image, "text": np.array([b"<b>three"], dtype=object), "price": np.array([2.5 + place])},
            {"digit": a[None]},
            {"digit": b[None]},
            STARTED_AT + place,
        )
        for place in range(num)
    ]


def moments(effect: float, num: int, width: float = 0.9) -> tuple[Moment, ...]:
    """A band that closes around an effect like a confidence sequence."""
    random.seed(1)
    found, drift = [], 0.0
    for place in range(1, num + 1):
        requests = 40 * place
        drift = 0.9 * drift + random.gauss(0, 0.02) / math.sqrt(place)
        half = width * math.sqrt(math.log(5 + requests) / requests)
        value = effect + drift
        found.append(Moment(0.8 * place, requests, value, value - half, value + half))
    return tuple(found)


def latencies(scale_b: float = 1.0, num: int = 800) -> dict[int, tuple[int, ...]]:
    """Log-normal latencies around 3 ms; B's are `scale_b` times as long."""
    random.seed(2)
    values = np.array([random.lognormvariate(-5.8, 0.35) for _ in range(num)])
    return {1: tuple(counts_of(values).tolist()), 2: tuple(counts_of(scale_b * values[: num - 7]).tolist())}


def ratio(a: int, b: int, p_value: float) -> SampleRatio:
    """Counts of a split in halves."""
    half = (a + b) / 2
    return SampleRatio({1: a, 2: b}, {1: half, 2: half}, "requests", p_value)


def guardrails(**broken: str) -> tuple[Guardrail, ...]:
    """Four of them, some broken for a reason."""
    texts = {
        "latency": "0 of 791 (0 %) of B's requests took longer than 50 ms (limit: 1 %)",
        "errors": "0 of 791 (0 %) of B's requests failed, 0 of 809 (0 %) of A's (limit: 5 % more)",
        "outputs": "0 of 791 (0 %) of B's rows were NaN or infinite",
        "disagreement": "B disagrees with A on 7 of 312 (2.2 %) of the rows, 20 % may differ",
    }
    return tuple(
        Guardrail(name, broken.get(name, text), (None, name in broken, name in broken), name in broken)
        for name, text in texts.items()
    )


AGREEMENT = Agreement(
    312,
    305,
    {
        "scores": OutputAgreement(
            "class shares", "rows are nonnegative and sum to one: the largest decides", 312, 305,
            largest_difference=0.91, bias=0.0004, flips={(3, 8): 3, (9, 4): 2, (8, 1): 1, (5, 6): 1},
        )
    },
)  # fmt: skip


def _state(verdict: Verdict, effect: float, num: int, **given: object) -> ExperimentState:
    found = moments(effect, num)
    last = found[-1]
    estimate = Estimate(last.value, last.low, last.high, 0.4, 2 * num)
    reading = Reading(
        verdict,
        estimate,
        {1: 20 * num + 9, 2: 20 * num - 9},
        {1: num, 2: num},
        ratio(20 * num + 9, 20 * num - 9, 0.71),
        latency=estimate,
        tail=Estimate(effect * 1.2, effect * 1.2 - 0.09, effect * 1.2 + 0.09, 0.5, 2 * num),
        errors=Estimate(0.0, -0.004, 0.004, 1.0, 40 * num),
        agreement=AGREEMENT,
        guardrails=guardrails(),
    )
    state = ExperimentState(
        PLAN, "running", "", STARTED_AT, None, 50.0, 0, reading, found, latencies(1 + effect), num_shadow_dropped=4
    )
    return replace(state, **given)  # type: ignore[arg-type]


def _few() -> ExperimentState:
    reading = Reading(
        Verdict("not yet: about 110 more requests"),
        None,
        {1: 7, 2: 5},
        {1: 3, 2: 2},
        ratio(7, 5, 0.9),
    )
    return ExperimentState(PLAN, "running", "", STARTED_AT, None, 50.0, 0, reading)


def _equal() -> ExperimentState:
    return _state(
        Verdict("not yet: about 300 more requests (B compared with A at equal batch sizes so far: -6 % to +6 %)"),
        0.0,
        40,
    )


def _slower() -> ExperimentState:
    verdict = Verdict("B is slower by 31 % (26 % to 36 %) at equal batch sizes", "rollback")
    return _state(
        verdict, 0.31, 60, phase="rolled back", reason="B is slower by 31 % (26 % to 36 %) at equal batch sizes",
        ended_at=STARTED_AT + 49, percent=0.0,
    )  # fmt: skip


def _better() -> ExperimentState:
    verdict = Verdict("B is faster by 13 % (8 % to 17 %) at equal batch sizes: promote", "promote")
    return _state(
        verdict, -0.12, 90, phase="promoted", reason="B is faster by 13 % (8 % to 17 %) at equal batch sizes: promote",
        ended_at=STARTED_AT + 75, percent=100.0,
    )  # fmt: skip


def _mismatch() -> ExperimentState:
    state = _state(
        Verdict(
            BLOCKED,
            "blocked",
        ),
        0.02,
        40,
    )
    return replace(state, reading=replace(state.reading, srm=ratio(901, 699, 4e-7)))


def _nan() -> ExperimentState:
    state = _state(
        Verdict(NAN, "rollback"), 0.01, 12, phase="rolled back",
        reason=NAN, ended_at=STARTED_AT + 11, percent=0.0,
    )  # fmt: skip
    broken = guardrails(outputs=NAN)
    return replace(state, reading=replace(state.reading, guardrails=broken))


def _canary() -> ExperimentState:
    plan = replace(PLAN, steps=(1.0, 5.0, 25.0, 50.0), hold_s=30.0, auto_promote=True)
    state = _equal()
    return replace(state, plan=plan, step=2, percent=25.0, step_since=STARTED_AT + 70)


def _quality() -> ExperimentState:
    plan = replace(PLAN, metric="quality")
    quality = Estimate(0.034, 0.011, 0.057, 0.002, 300)
    verdict = Verdict("B is more often right by 3.4 points (1.1 points to 5.7 points): promote", "promote")
    reason = f"{verdict}; waits for a person"
    state = _state(verdict, 0.034, 60, plan=plan, phase="held", reason=reason)
    sure = {1: Calibration(300, 0.91, 0.95, 0.04), 2: Calibration(298, 0.944, 0.95, 0.018)}
    return replace(state, reading=replace(state.reading, effect=quality, quality=quality, calibration=sure))
