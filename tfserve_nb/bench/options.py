"""A benchmark as people ask for it, and how it becomes runs.

Thread: the caller's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidOption
from ..types import DEFAULT_SIGNATURE
from .comparison import ComparisonResult, compare
from .load.schedule import Load
from .load.targets import Wish
from .result import BenchmarkResult
from .run import Nobody, Subject, Watcher, check, modest_rate, run_load
from .sweep import SweepResult, sweep

PROTOCOLS = ("json", "binary", "grpc", "kernel")
SWEEP_STEP_S = 3.0


@dataclass(frozen=True, slots=True)
class Options:
    """What can be asked for.

    Attributes:
        rate: requests per second of an open loop; None finds a modest one.
        closed: clients of a closed loop instead.
        seconds: how long is measured; None for 10, or 3 for each step of a sweep.
        arrivals: `poisson` or `constant`.
        protocol: one of `PROTOCOLS`.
        rows: rows of each request.
        values: rows to send; None makes some up.
        version: ask this version.
        label: ask the version of this label.
        signature: the signature's name.
        slo_ms: the latency that answers should keep.
        sweep: find the highest rate that keeps it.
        versions: compare these two versions.
        repeats: pairs of runs of a comparison.
        connections: most connections of an open loop.
        warmup_s: seconds that are not counted.
        seed: of the arrivals.
        timeout_s: how long a request may take.
    """

    rate: float | None = None
    closed: int | None = None
    seconds: float | None = None
    arrivals: str = "poisson"
    protocol: str = "json"
    rows: int = 1
    values: Any = None
    version: int | None = None
    label: str | None = None
    signature: str = DEFAULT_SIGNATURE
    slo_ms: float | None = None
    sweep: bool = False
    versions: tuple[int, int] | None = None
    repeats: int = 3
    connections: int = 256
    warmup_s: float = 1.0
    seed: int = 0
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InvalidOption(f"protocol={self.protocol!r} must be one of {', '.join(PROTOCOLS)}")
        if self.rate is not None and self.closed is not None:
            raise InvalidOption("rate and closed exclude each other", hint="--rate 100 for an open loop")
        if self.sweep and (self.rate is not None or self.closed is not None or self.versions is not None):
            raise InvalidOption("a sweep chooses its rates itself", hint="--sweep --slo-ms 20")
        if self.slo_ms is not None and not self.slo_ms > 0:
            raise InvalidOption(f"slo_ms={self.slo_ms!r} must be positive", hint="--slo-ms 20")
        if self.versions is not None and (self.version is not None or self.label is not None):
            raise InvalidOption("versions excludes version and label", hint="--versions 3,4")
        if self.version is not None and self.label is not None:
            raise InvalidOption("version and label exclude each other")
        if not 1 <= self.repeats <= 100:
            raise InvalidOption(f"repeats={self.repeats!r} must be 1 to 100")
        self.load(1.0)  # checks the rest

    def load(self, rate: float) -> Load:
        """The load, with a rate where none was asked for."""
        seconds = self.seconds if self.seconds is not None else SWEEP_STEP_S if self.sweep else 10.0
        return Load(
            rate=None if self.closed is not None else rate if self.rate is None else self.rate,
            concurrency=self.closed,
            arrivals=self.arrivals,
            seconds=seconds,
            warmup_s=self.warmup_s,
            seed=self.seed,
            connections=self.connections,
            timeout_s=self.timeout_s,
        )

    def wish(self, version: int | None = None) -> Wish:
        """Which requests are wanted."""
        return Wish(
            self.protocol,
            self.version if version is None else version,
            self.label,
            self.signature,
            self.rows,
            self.values,
        )


def carry_out(
    options: Options, subjects: tuple[Subject, ...], watcher: Watcher | None = None
) -> BenchmarkResult | SweepResult | ComparisonResult:
    """Do what was asked for.

    Args:
        options: what.
        subjects: one; two for a comparison.
        watcher: follows it.

    Raises:
        ServingError: if the first request already fails, and what to check.
    """
    watching = watcher or Nobody()
    for subject in subjects:
        check(subject)
    rate, capacity = 1.0, 0.0
    if options.sweep or (options.rate is None and options.closed is None):
        rate, capacity = modest_rate(subjects[0], options.load(1.0), watching)
        if not options.sweep:
            watching.say(
                f"{rate:g} requests/s, at most half of the {capacity:.0f} that 16 clients got; --rate sets another"
            )
    load = options.load(rate)
    if options.sweep:
        return sweep(subjects[0], load, capacity, slo_ms=options.slo_ms, watcher=watching)
    if len(subjects) == 2:
        labels = (f"version {subjects[0].version}", f"version {subjects[1].version}")
        return compare((subjects[0], subjects[1]), labels, load, repeats=options.repeats, slo_ms=options.slo_ms,
                       watcher=watching)  # fmt: skip
    return run_load(subjects[0], load, slo_ms=options.slo_ms, watcher=watching)


def numbered(result: BenchmarkResult, run: int) -> BenchmarkResult:
    """The same with its number in the history."""
    return dataclasses.replace(result, run=run)
