"""What a load is: when requests are due, what they carry, and how long to wait for responses.

The whole schedule is made before the first request is sent, and is the same for the same seed.

Thread: any; immutable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...errors import InvalidOption

ARRIVALS = ("poisson", "constant")
REPLAY = "replay"
"""Arrivals that were recorded: the load has their times."""
MAX_REQUESTS = 2_000_000
MAX_CONNECTIONS = 900
"""`select` knows 1024 open files; it is what can wait for microseconds."""


@dataclass(frozen=True, slots=True)
class Load:
    """How requests come.

    Attributes:
        rate: requests per second of an open loop; None for a closed loop.
        concurrency: clients of a closed loop, which send their next request after each response; None for an open loop.
        arrivals: `poisson`, `constant` or `replay`, for an open loop.
        seconds: how long is measured.
        warmup_s: how long the same load runs before; its requests are not counted.
        seed: of the arrivals.
        connections: most connections that an open loop opens; a request that finds none free waits, which
            counts.
        timeout_s: how long a request may take, from the moment at which it was due.
        times_s: when each request of a replay is due, in seconds from the start, increasing; see `replay_load`.
        pauses: requests that wait until all earlier ones have responses; what follows is due that much later.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    rate: float | None = None
    concurrency: int | None = None
    arrivals: str = "poisson"
    seconds: float = 10.0
    warmup_s: float = 1.0
    seed: int = 0
    connections: int = 256
    timeout_s: float = 10.0
    times_s: tuple[float, ...] = field(default=(), repr=False)
    pauses: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name in ("times_s", "pauses"):  # JSON knows no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if (self.rate is None) == (self.concurrency is None):
            raise InvalidOption(
                f"rate={self.rate} and closed={self.concurrency}: a load has one of them", hint="--rate 100"
            )
        positive = {"rate": self.rate, "closed": self.concurrency, "seconds": self.seconds, "timeout_s": self.timeout_s}
        for name, value in positive.items():
            if value is not None and not (0 < value < math.inf):
                raise InvalidOption(
                    f"{name}={value!r} must be a positive number", hint=f"--{name.replace('_', '-')} 10"
                )
        if not 0 <= self.warmup_s < math.inf:
            raise InvalidOption(f"warmup_seconds={self.warmup_s!r} must not be negative", hint="--warmup-seconds 1")
        if self.arrivals not in ((REPLAY,) if self.times_s else ARRIVALS):
            raise InvalidOption(f"arrivals={self.arrivals!r} must be one of {', '.join(ARRIVALS)}", hint="%replay")
        if not 1 <= max(self.connections, self.concurrency or 1) <= MAX_CONNECTIONS:
            raise InvalidOption(
                f"{max(self.connections, self.concurrency or 1)} connections: there can be 1 to {MAX_CONNECTIONS}"
            )
        if self.rate is not None and self.rate * (self.seconds + self.warmup_s) > MAX_REQUESTS:
            raise InvalidOption(
                f"{self.rate:g} requests/s for {self.seconds:g} s are more than {MAX_REQUESTS} requests",
                hint="fewer seconds",
            )

    @property
    def is_open(self) -> bool:
        """Whether requests come whatever becomes of earlier ones."""
        return self.rate is not None

    def __str__(self) -> str:
        if self.times_s:
            return f"open loop, recorded arrivals, {self.rate:.3g} requests/s on average"
        if self.rate is not None:
            return f"open loop, {self.arrivals} arrivals at {self.rate:g} requests/s (seed {self.seed})"
        return f"closed loop, {self.concurrency} client{'s' if self.concurrency != 1 else ''}"


def replay_load(times_s: Sequence[float], timeout_s: float = 10.0, pauses: tuple[int, ...] = ()) -> Load:
    """Requests at given times.

    Args:
        times_s: when each is due, in seconds from the start, increasing from 0.
        timeout_s: how long a request may take, from the moment at which it was due.
        pauses: as `Load`.
    """
    seconds = max(times_s[-1], 0.001) + 0.001
    return Load(
        rate=len(times_s) / seconds, arrivals=REPLAY, seconds=seconds, warmup_s=0.0, timeout_s=timeout_s,
        times_s=tuple(times_s), pauses=pauses,
    )  # fmt: skip


def due_times(load: Load) -> np.ndarray:
    """When the requests of an open loop are due, its warm-up included: seconds from the start; float64, `(n,)`."""
    if load.times_s:
        return np.array(load.times_s)
    assert load.rate is not None  # noqa: S101 - an open loop has one
    return schedule(load.arrivals, load.rate, load.warmup_s + load.seconds, load.seed)


def schedule(kind: str, rate: float, seconds: float, seed: int) -> np.ndarray:
    """The moments at which requests are due.

    Args:
        kind: `poisson`: the gaps are exponential, as of many independent clients (MLPerf
            Inference's Server scenario); `constant`: the gaps are equal.
        rate: requests per second.
        seconds: the length of the schedule.
        seed: of the random gaps.

    Returns:
        Seconds from the start, increasing, all below `seconds`; float64, shape `(n,)`.
    """
    if kind == "constant":
        return np.arange(0.0, seconds, 1.0 / rate)
    generator = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    last = 0.0
    while last < seconds:
        gaps = generator.exponential(1.0 / rate, size=max(16, int(1.1 * rate * (seconds - last)) + 1))
        times = last + np.cumsum(gaps)
        found.append(times)
        last = float(times[-1])
    times = np.concatenate(found)
    return times[times < seconds]


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go and what they carry; bodies are encoded before the load begins.

    Attributes:
        protocol: `json`, `binary` (Open Inference Protocol with raw tensors), `grpc` or `kernel`.
        url: of HTTP, with path; for gRPC `HOST:PORT`.
        bodies: of the requests, in turn.
        rows: rows of each request.
        headers: of HTTP; metadata of gRPC. Never shown: a token may be among them.
        what: the payload in words.
        paths: of HTTP, in turn as the bodies; empty for that of the URL.
    """

    protocol: str
    url: str
    bodies: tuple[bytes, ...]
    rows: int
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    what: str = ""
    paths: tuple[str, ...] = ()
