"""Runs a load and computes the result.

Thread: the caller's, which stays busy until the end; `Watcher` is called on it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import NotAvailable, RunFailed
from .environment import environment
from .load.kernel_load import generate_here
from .load.process import generate
from .load.samples import OK, Samples, joined, status_text
from .load.schedule import Load, Target
from .load.targets import probe
from .result import BenchmarkResult, curve_of, timeline_of
from .statistics import summarise

PROBE_CLIENTS = 16
PROBE_SECONDS = 1.0
SHARE_OF_CAPACITY = 0.5
MAX_DEFAULT_RATE = 2000.0
"""Requests per second that are not exceeded unless asked for: a generator in Python keeps up with them."""
FAILING_SHARE = 0.5
FAILING_FEWEST = 50


@dataclass(frozen=True, slots=True)
class Subject:
    """What is loaded.

    Attributes:
        name: the model's name, or a URL's host.
        version: the version that is asked, or None when that is not known.
        target: requests for another process to send; None for calls in this one.
        predict: what is called in this process.
        inputs: its arguments, in turn.
        rows: rows of each request.
        payload: what requests carry, in words.
        batches: returns the server's batches since the last call, in words.
    """

    name: str
    version: int | None = None
    target: Target | None = None
    predict: Callable[[Any], object] | None = None
    inputs: Sequence[Any] = ()
    rows: int = 1
    payload: str = ""
    batches: Callable[[], str] = lambda: ""

    @property
    def protocol(self) -> str:
        """`json`, `binary`, `grpc` or `kernel`."""
        return "kernel" if self.target is None else self.target.protocol


class Watcher:
    """Follows a run; this class ignores what it receives, subclasses show it."""

    def say(self, text: str) -> None:
        """A line of plain text about what is being done."""

    def follow(self, load: Load, samples: Samples) -> None:
        """Everything that a run has found so far; a few times a second."""


def check(subject: Subject) -> None:
    """Send one request, so that errors show before the load begins.

    Raises:
        ServingError: if it fails.
    """
    if subject.target is not None:
        probe(subject.target)
    elif subject.predict is not None:
        subject.predict(subject.inputs[0])


def run_load(
    subject: Subject, load: Load, *, slo_ms: float | None = None, watcher: Watcher | None = None
) -> BenchmarkResult:
    """Carry a load out.

    Args:
        subject: what is loaded.
        load: how requests come.
        slo_ms: the latency that responses should keep.
        watcher: follows the run.

    Returns:
        The result; of what there is so far when it is interrupted (`KeyboardInterrupt`) or most requests fail.

    Raises:
        NotAvailable: if no request succeeded.
        ServerFailed: if the generator cannot run.
    """
    seen: list[Samples] = []
    watching = watcher or Watcher()
    at = time.time()
    subject.batches()
    stopped = ""
    interrupted = False

    def on_samples(new: Samples) -> bool:
        nonlocal stopped
        seen.append(new)
        watching.follow(load, joined(seen))
        stopped = _stop_reason(joined(seen[-4:]))
        return not stopped

    try:
        if subject.target is not None:
            generate(subject.target, load, on_samples)
        elif subject.predict is not None:
            generate_here(subject.predict, subject.inputs, load, on_samples)
    except KeyboardInterrupt:
        interrupted = True
    samples = joined(seen)
    if not interrupted and not (samples.status == OK).any():
        raise _no_response_error(subject, samples)
    summary = summarise(samples, load, rows=subject.rows, slo_ms=slo_ms, interrupted=interrupted, stopped=stopped)
    return BenchmarkResult(
        name=subject.name,
        protocol=subject.protocol,
        payload=subject.payload,
        version=subject.version,
        load=load,
        summary=summary,
        curve=curve_of(samples),
        timeline=timeline_of(samples, summary.seconds),
        environment=environment(),
        batching=subject.batches(),
        at=at,
        samples=samples,
    )


def modest_rate(subject: Subject, load: Load, watcher: Watcher) -> tuple[float, float]:
    """A rate that the subject should sustain: half of what a short closed loop gets.

    Returns:
        The rate, and what the closed loop got; requests per second.

    Raises:
        KeyboardInterrupt: if it is interrupted.
    """
    watcher.say(f"looking for a modest rate: {PROBE_CLIENTS} clients for {PROBE_SECONDS:g} s")
    closed = dataclasses.replace(load, rate=None, concurrency=PROBE_CLIENTS, seconds=PROBE_SECONDS, warmup_s=0.5)
    found = run_load(subject, closed).summary
    if found.interrupted:
        raise KeyboardInterrupt  # it ends the whole benchmark, which has no result yet
    capacity = found.rate
    if not capacity:
        raise RunFailed(f"{subject.name} sent no response within {PROBE_SECONDS:g} s", hint="--rate 1 --timeout-s 60")
    rate = min(MAX_DEFAULT_RATE, SHARE_OF_CAPACITY * capacity)
    return float(f"{rate:.2g}"), capacity


def _stop_reason(last: Samples) -> str:
    """Why a run is not worth going on with, or ""."""
    num_failed = int((last.status != OK).sum())
    if len(last) < FAILING_FEWEST or num_failed <= FAILING_SHARE * len(last):
        return ""
    text = _reasons(last)
    return (
        f"{100 * num_failed / len(last):.0f} % of the requests of the last second failed ({text}); "
        "the server cannot sustain this load, or refuses it: lower --rate, or deploy with more --max-enqueued-batches"
    )


def _reasons(samples: Samples) -> str:
    reasons = [f"{status_text(status)}: {text}" for status, text in samples.reasons.items()]
    return "; ".join(reasons) or "no reason was given"


def _no_response_error(subject: Subject, samples: Samples) -> NotAvailable:
    return NotAvailable(
        f"{subject.name} answered none of {len(samples)} requests: {_reasons(samples)}",
        hint="read the server's log, or lower --rate",
    )
