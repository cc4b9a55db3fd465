"""The result of a benchmark, and how it is stored.

Thread: any; immutable.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # JSON, DataFrames

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidOption
from ..serialization import check_format, from_json, to_json
from ..temporary import replacing
from .load.samples import ARRAYS, OK, Samples, status_text
from .load.schedule import Load
from .statistics import FEWEST, Summary

CURVE_POINTS = 200
NUM_STEPS = 60
FORMAT = 1
"""Of saved results; those that were written before there was a number are read the same way."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run over time; all arrays have shape `(n,)`, float64.

    Attributes:
        at_s: the middle of each step, in seconds from the start.
        rate: successful responses per second, of the requests that were due in the step.
        p50_ms: their median latency; NaN where there are too few.
        p95_ms: their 95th percentile; NaN where there are too few.
        p99_ms: their 99th percentile; NaN where there are too few.
    """

    at_s: NDArray[np.float64]
    rate: NDArray[np.float64]
    p50_ms: NDArray[np.float64]
    p95_ms: NDArray[np.float64]
    p99_ms: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """One run of a load.

    Attributes:
        name: what was loaded: the model's name, or the URL's host.
        protocol: `json`, `binary`, `grpc` or `kernel`.
        payload: what each request carried, in words.
        version: the version that was asked for, or that had the traffic; None when that is not known.
        load: how requests came.
        summary: the numbers.
        curve: shares of the requests (0 to 1) and the latency in milliseconds that they did not exceed; float64
            `(2, n)`.
        timeline: the run over time.
        environment: machine and versions.
        batching: the server's batches meanwhile, in words, or "".
        at: when it began, seconds since the epoch.
        run: its number in the history, or None when it was not stored.
        samples: every request, or None when the result was read from the history.
    """

    name: str
    protocol: str
    payload: str
    version: int | None
    load: Load
    summary: Summary
    curve: NDArray[np.float64]
    timeline: Timeline
    environment: Mapping[str, str] = field(default_factory=dict)
    batching: str = ""
    at: float = field(default_factory=time.time)
    run: int | None = None
    samples: Samples | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        """One line: what was loaded, and how."""
        version = "" if self.version is None else f" version {self.version}"
        number = "" if self.run is None else f"run {self.run}: "
        return f"{number}{self.name}{version}, {self.protocol}, {self.load}"

    def to_dataframe(self) -> Any:
        """Every measured request as a row of a pandas DataFrame.

        Returns:
            Columns `due_s` and `done_s` (seconds from the start), `latency_ms` (from the moment at which the request
            was due), `sent_latency_ms` (from sending), `generator_lag_ms`, and `status` (text, `ok` for success).

        Raises:
            InvalidOption: without pandas, or for a result of the history, which keeps no single requests.
        """
        if self.samples is None:
            raise InvalidOption(
                "results of the history keep no single requests",
                hint="r.save(path) after a run, later load_result(path)",
            )
        try:
            import pandas as pd
        except ImportError as error:
            raise InvalidOption("to_dataframe() needs pandas", hint="pip install pandas, or use r.samples") from error
        measured = self.samples.among(self.samples.due_s >= 0)
        return pd.DataFrame(
            {
                "due_s": measured.due_s,
                "done_s": measured.done_s,
                "latency_ms": 1e3 * measured.latency_s,
                "sent_latency_ms": 1e3 * (measured.done_s - measured.sent_s),
                "generator_lag_ms": 1e3 * (measured.taken_s - measured.due_s),
                "status": ["ok" if one == OK else status_text(int(one)) for one in measured.status],
            }
        )

    def stored(self) -> dict[str, Any]:
        """What the history keeps, as JSON: everything but the single requests."""
        value: dict[str, Any] = to_json(dataclasses.replace(self, samples=None))
        return value

    def save(self, path: str | Path) -> Path:
        """Write everything, every request too, into one `.npz` file; `load_result` reads it.

        Args:
            path: the file; `.npz` is added when it is missing.

        Returns:
            The file that was written.
        """
        target = Path(path)
        target = target if target.suffix == ".npz" else target.with_name(f"{target.name}.npz")
        target.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {}
        reasons: Mapping[int, str] = {}
        if self.samples is not None:
            arrays = {name: getattr(self.samples, name) for name in ARRAYS}
            reasons = self.samples.reasons
        text = json.dumps(
            {"format": FORMAT, **self.stored(), "sample_reasons": {str(status): one for status, one in reasons.items()}}
        )
        with replacing(target) as partial:
            np.savez_compressed(partial, result=np.array(text), **arrays)
        return target


def load_result(path: str | Path) -> BenchmarkResult:
    """Read what `BenchmarkResult.save` wrote.

    Raises:
        InvalidOption: if the file is none of ours.
        ServingError: if a newer version of this package wrote it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            value = json.loads(str(file["result"]))
            check_format(value.pop("format", FORMAT), FORMAT, path)
            reasons = {int(status): text for status, text in value.pop("sample_reasons", {}).items()}
            arrays: dict[str, Any] = {name: file[name] for name in ARRAYS if name in file}
            samples = Samples(**arrays, reasons=reasons) if arrays else None
        return dataclasses.replace(from_json(value, BenchmarkResult), samples=samples)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidOption(f"{path} is no saved benchmark: {error}", hint="a file that r.save(path) wrote") from error


def timeline_of(samples: Samples, seconds: float) -> Timeline:
    """A run in steps, by the moments at which requests were due.

    Args:
        samples: all requests; those due before 0 are left out.
        seconds: the length of the run.
    """
    num_steps = max(1, min(NUM_STEPS, round(seconds / 0.5)))
    edges = np.linspace(0.0, seconds, num_steps + 1)
    is_ok = (samples.status == OK) & (samples.due_s >= 0)
    due_s, took_ms = samples.due_s[is_ok], 1e3 * samples.latency_s[is_ok]
    place = np.clip(np.searchsorted(edges, due_s, side="right") - 1, 0, num_steps - 1)
    order = np.argsort(place, kind="stable")
    groups = np.split(took_ms[order], np.searchsorted(place[order], np.arange(1, num_steps)))
    return Timeline(
        at_s=(edges[:-1] + edges[1:]) / 2,
        rate=np.array([len(group) for group in groups]) / (seconds / num_steps),
        p50_ms=np.array([_of(group, 0.5) for group in groups]),
        p95_ms=np.array([_of(group, 0.95) for group in groups]),
        p99_ms=np.array([_of(group, 0.99) for group in groups]),
    )


def curve_of(samples: Samples) -> np.ndarray:
    """Latencies by share of requests, denser towards the slowest; shape `(2, n)`."""
    took_ms = np.sort(1e3 * samples.latency_s[(samples.status == OK) & (samples.due_s >= 0)])
    if not len(took_ms):
        return np.zeros((2, 0))
    # As far as the samples go: the last point is the slowest request.
    shares = 1 - np.logspace(0, -math.log10(max(2, len(took_ms))), CURVE_POINTS)
    ranks = np.clip(np.ceil(shares * len(took_ms)).astype(int), 1, len(took_ms))
    return np.vstack([shares, took_ms[ranks - 1]])


def _of(group: np.ndarray, quantile: float) -> float:
    return float(np.quantile(group, quantile, method="inverted_cdf")) if len(group) >= FEWEST[quantile] else math.nan
