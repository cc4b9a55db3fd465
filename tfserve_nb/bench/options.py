"""The options of a benchmark, and how they become runs.

Thread: the caller's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidOption
from ..options import option
from ..types import DEFAULT_SIGNATURE
from .comparison import ComparisonResult, compare
from .load.schedule import ARRIVALS, Load
from .load.targets import RequestOptions
from .result import BenchmarkResult
from .run import Subject, Watcher, check, modest_rate, run_load
from .sweep import SweepResult, sweep

PROTOCOLS = ("json", "binary", "grpc", "kernel")
SWEEP_STEP_S = 3.0


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured, and how.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    rate: float | None = option(
        None,
        "requests per second",
        metavar="PER_S",
        shown="at most half of what 16 clients get in a second, and at most 2000",
    )
    closed: int | None = option(
        None, "closed loop: clients that send after each response", metavar="CLIENTS", shown="open loop"
    )
    seconds: float | None = option(
        None, "length of the measurement", metavar="S", shown="10; 3 for each step of a sweep"
    )
    arrivals: str = option("poisson", "gaps between requests", choices=ARRIVALS)
    protocol: str = option(
        "json",
        "how requests are sent; `binary`: Open Inference Protocol with raw tensors; `kernel`: `d.predict` from threads "
        "of the kernel",
        choices=PROTOCOLS,
    )
    rows: int = option(1, "rows of a request")
    values: Any = option(None, "rows to send", shown="made up", is_python_only=True)
    version: int | None = option(
        None, "ask this version", shown="the default version or the traffic split", names="version"
    )
    label: str | None = option(None, "ask the version of this label", shown="none", names="label")
    signature: str = option(DEFAULT_SIGNATURE, "the signature's name")
    slo_ms: float | None = option(
        None,
        "latency that responses should keep",
        metavar="MS",
        shown="none; in a sweep ten times the median at the lowest rate",
    )
    sweep: bool = option(False, "find the highest rate that keeps `--slo-ms`")
    versions: tuple[int, int] | None = option(
        None, "compare two versions, in turns", metavar="A,B", shown="none", names="version"
    )
    repeats: int = option(3, "with `--versions`: pairs of runs")
    connections: int = option(256, "most connections of an open loop")
    warmup_s: float = option(1.0, "seconds that are not counted", flags=("--warmup-seconds",), metavar="S")
    seed: int = option(0, "seed of the arrivals")
    timeout_s: float = option(10.0, "how long a request may take", metavar="S")

    def __post_init__(self) -> None:
        if self.versions is not None and len(self.versions) != 2:
            raise InvalidOption(f"--versions needs two, such as --versions 3,4; these are {len(self.versions)}")
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

    def request_options(self, version: int | None = None) -> RequestOptions:
        """The options of the requests."""
        asked = self.version if version is None else version
        return RequestOptions(self.protocol, asked, self.label, self.signature, self.rows, self.values)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of the command line only: token, gRPC address, comparison, file."""

    token_env: str | None = option(
        None, "environment variable with the token for the URL; arguments can be seen by others", metavar="NAME"
    )
    grpc_address: str | None = option(
        None, "with a URL and `--protocol grpc`: where that server listens for gRPC", metavar="HOST:PORT"
    )
    compare: tuple[int, int] | None = option(
        None, "compare two runs of the history instead", metavar="RUN", num_values=2, parse=int
    )
    save: str | None = option(None, "write the run, with every request, to `PATH.npz`", metavar="PATH")

    @property
    def token(self) -> str | None:
        """The token; None when no variable is named.

        Raises:
            InvalidOption: if there is no such variable.
        """
        if self.token_env is None:
            return None
        token = os.environ.get(self.token_env)
        if token is None:
            raise InvalidOption(
                f"there is no environment variable {self.token_env!r}",
                hint=f"set {self.token_env} to the token, or name another variable with --token-env",
            )
        return token


def carry_out(
    options: Options, subjects: tuple[Subject, ...], watcher: Watcher | None = None
) -> BenchmarkResult | SweepResult | ComparisonResult:
    """Run the benchmark that the options describe.

    Args:
        options: of the benchmark.
        subjects: one; two for a comparison.
        watcher: follows it.

    Raises:
        ServingError: if the first request already fails.
    """
    watching = watcher or Watcher()
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
