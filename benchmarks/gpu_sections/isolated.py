"""A server in the kernel and an isolated one, beside a kernel that waits and one that trains."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from saved_models import BenchModel

from .setting import CALLERS, Found, Setting, attempt, deployed, memory
from .training import Training


def isolated(setting: Setting) -> Iterator[Found]:
    """A server in this process and an isolated one, while nothing else runs here and while a training does."""
    model = setting.models[0]
    yield attempt("no server, training", partial(_train_alone, setting))
    for is_isolated in (False, True):
        home = "isolated" if is_isolated else "in the kernel"
        with deployed(model.version, home.replace(" ", "_"), isolate=is_isolated, device=setting.device) as deployment:
            for trains in (False, True):
                measure = partial(_load, setting, deployment, model, trains=trains)
                yield attempt(f"{home}, {'training' if trains else 'idle'}", measure)


def _train_alone(setting: Setting) -> dict[str, float]:
    with Training(setting.device) as training:
        time.sleep(2 * setting.seconds)
        return {"training steps/s": training.steps_per_s()}


def _load(setting: Setting, deployment: Any, model: BenchModel, *, trains: bool) -> dict[str, float]:
    """What clients in another process see."""
    with Training(setting.device) if trains else contextlib.nullcontext() as training:
        result = deployment.benchmark(
            closed=CALLERS, protocol="binary", values=model.rows, seconds=2 * setting.seconds, warmup_s=0.5
        )
        found = {"requests/s": result.summary.rate}
        found |= {f"{one.name}, ms": one.ms for one in result.summary.percentiles if one.quantile in (0.5, 0.99)}
        if training is not None:
            found["training steps/s"] = training.steps_per_s()
        return found | memory(deployment, setting)
