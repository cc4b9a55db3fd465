"""Experiments as JSON, for the state file and the admin API, and back.

Thread: any; pure functions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any  # JSON

from ..agreement.result import Agreement
from .plan import Plan
from .reading import Calibration, Estimate, Guardrail, Reading, SampleRatio, Verdict
from .state import ExperimentState, Moment

_ESTIMATES = ("effect", "latency", "tail", "errors", "quality")
_PLAIN = ("phase", "reason", "started_at", "ended_at", "percent", "step", "num_shadow_dropped",
          "step_since")  # fmt: skip


def state_to_json(state: ExperimentState) -> dict[str, Any]:
    """A JSON object that `state_from_json` reads."""
    return {
        **{name: getattr(state, name) for name in _PLAIN},
        "plan": state.plan.to_json(),
        "reading": reading_to_json(state.reading),
        "moments": [_finite(moment) for moment in state.moments],
        "latencies": None if state.latencies is None else {str(who): list(n) for who, n in state.latencies.items()},
    }


def state_from_json(value: Mapping[str, Any]) -> ExperimentState:
    """The inverse of `state_to_json`."""
    latencies = value["latencies"]
    return ExperimentState(
        **{name: value[name] for name in _PLAIN},
        plan=Plan.from_json(value["plan"]),
        reading=reading_from_json(value["reading"]),
        moments=tuple(Moment(*_numbers(moment)) for moment in value["moments"]),
        latencies=None if latencies is None else {int(who): tuple(n) for who, n in latencies.items()},
    )


def reading_to_json(reading: Reading) -> dict[str, Any]:
    """A JSON object that `reading_from_json` reads."""
    return {
        "verdict": [str(reading.verdict), reading.verdict.decision],
        **{name: _finite(getattr(reading, name)) for name in _ESTIMATES},
        "samples": _keyed(reading.samples),
        "units": _keyed(reading.units),
        "srm": {
            **dataclasses.asdict(reading.srm),
            "counts": _keyed(reading.srm.counts),
            "expected": _keyed(reading.srm.expected),
        },
        "agreement": reading.agreement.to_json(),
        "bias": {name: _finite(one) for name, one in reading.bias.items()},
        "calibration": {str(who): dataclasses.asdict(one) for who, one in reading.calibration.items()},
        "guardrails": [dataclasses.asdict(one) for one in reading.guardrails],
    }


def reading_from_json(value: Mapping[str, Any]) -> Reading:
    """The inverse of `reading_to_json`."""
    srm, agreement = value["srm"], value["agreement"]
    return Reading(
        verdict=Verdict(*value["verdict"]),
        **{name: _estimate(value[name]) for name in _ESTIMATES},
        samples=_by_version(value["samples"]),
        units=_by_version(value["units"]),
        srm=SampleRatio(
            **{**srm, "counts": _by_version(srm["counts"]), "expected": _by_version(srm["expected"])},
        ),
        agreement=Agreement() if agreement is None else Agreement.from_json(agreement),
        bias={name: known for name, one in value.get("bias", {}).items() if (known := _estimate(one)) is not None},
        calibration={int(who): Calibration(**one) for who, one in value["calibration"].items()},
        guardrails=tuple(Guardrail(**{**one, "windows": tuple(one["windows"])}) for one in value["guardrails"]),
    )


def _finite(numbers: tuple[float, ...] | None) -> list[float | None] | None:
    """Infinite ends of intervals have no place in JSON: they become nulls with their sign told by their place.

    So does what is no number, anywhere.
    """
    return None if numbers is None else [number if math.isfinite(number) else None for number in numbers]


def _known(number: float | None) -> float:
    """The inverse for what is no end of an interval."""
    return math.nan if number is None else number


def _numbers(moment: list[Any]) -> list[Any]:
    at_s, num_requests, value, low, high = moment
    return [at_s, num_requests, _known(value), -math.inf if low is None else low, math.inf if high is None else high]


def _estimate(numbers: list[Any] | None) -> Estimate | None:
    if numbers is None:
        return None
    value, low, high, p_value, num_units = numbers
    return Estimate(
        _known(value),
        -math.inf if low is None else low,
        math.inf if high is None else high,
        _known(p_value),
        int(num_units),
    )


def _keyed(counts: Mapping[int, Any]) -> dict[str, Any]:
    return {str(version): count for version, count in counts.items()}


def _by_version(counts: Mapping[str, Any]) -> dict[int, Any]:
    return {int(version): count for version, count in counts.items()}
