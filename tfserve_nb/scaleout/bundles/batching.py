"""Batching values for another server, from what was measured here.

Thread: any.
"""

from __future__ import annotations

from pathlib import Path

from ...bench.sweep import SweepResult
from ...errors import InvalidOption
from ...server.config_files import read_batching
from ...serving.batching.options import DEFAULT_MAX_BATCH_SIZE, BatchingOptions, powers_of_two
from ...serving.telemetry.model_metrics import BatchSummary
from .contents import Batching, BundledVersion

CHEAP = 0.9
"""Larger runs are worth their wait only if they do more than this share of what the best size does in the same time."""

DEFAULTS = Batching(
    BatchingOptions(),
    "The values are this package's defaults: no run was measured. After `%benchmark NAME --sweep`, or real traffic, "
    "another bundle has measured ones.",
)

OFF = Batching(
    None,
    "Batching is off: files do not tell whether rows of different requests may run together. `d.bundle()` of a served "
    "model knows and takes measured values; `--batching_parameters_file` takes yours.",
)


def given(path: Path) -> Batching:
    """The limits of a file of yours.

    Raises:
        ConfigRejected: if it cannot be read.
    """
    return Batching(read_batching(path), f"The values are those of {path}.", path.read_text(encoding="utf-8"))


def unbatched(versions: tuple[BundledVersion, ...]) -> Batching | None:
    """Why requests for these versions may not be put together; None where they may."""
    for version in versions:
        for signature, reason in version.alone.items():
            return Batching(
                None,
                f"Batching is off: version {version.number} runs each request of signature {signature} alone, since "
                f"{reason}.",
            )
    return None


def check_sweep(sweep: SweepResult | None, name: str) -> None:
    """See that a sweep tells something of a model.

    Raises:
        InvalidOption: if it is the result of something else, or of another model.
    """
    if sweep is None:
        return
    hint = "sweep=d.benchmark(sweep=True)"
    if not isinstance(sweep, SweepResult):
        raise InvalidOption(f"sweep={type(sweep).__name__}: that is no result of a sweep", hint=hint)
    others = {one.name for one in sweep.results} - {name}
    if others:
        raise InvalidOption(f"the sweep is one of {others.pop()}, and {name} is bundled", hint=hint)


def measured(batches: BatchSummary, sweep: SweepResult | None) -> Batching:
    """The values that the times of a queue's runs lead to.

    The largest batch is the smallest size that does nearly as many rows a second as the best one: larger ones only
    wait longer. A sweep brings the latency to keep: a run takes at most half of it, since a request may have to wait
    for one run before its own, and no more batches wait than can be run within it.

    Args:
        batches: what the version's queue ran, and how long its runs take.
        sweep: what `%benchmark --sweep` found, or None.
    """
    run_ms = {size: ms for size, ms in sorted(batches.run_ms.items()) if ms > 0}
    if not run_ms:
        return DEFAULTS
    slo_ms = None if sweep is None else sweep.slo_ms
    limit_ms = float("inf") if slo_ms is None else slo_ms / 2
    quick = {size: ms for size, ms in run_ms.items() if ms <= limit_ms} or {min(run_ms): run_ms[min(run_ms)]}
    best = max(size / ms for size, ms in quick.items())
    largest = next(size for size, ms in quick.items() if size / ms >= CHEAP * best)
    is_bounded = largest < max(run_ms)
    max_batch_size = largest if is_bounded else max(largest, DEFAULT_MAX_BATCH_SIZE)
    sizes = tuple(size for size in run_ms if size <= max_batch_size)
    allowed = sizes if sizes[-1] == max_batch_size else powers_of_two(max_batch_size)
    options = BatchingOptions(max_batch_size=max_batch_size, allowed_batch_sizes=allowed)
    if slo_ms is not None:
        known = max(size for size in run_ms if size <= max_batch_size)
        full_ms = run_ms[known] * max_batch_size / known  # of a size that never ran: as if each row took as long
        waiting = max(1, int(slo_ms / full_ms))
        options = BatchingOptions(
            max_batch_size=max_batch_size, allowed_batch_sizes=allowed, max_enqueued_batches=waiting
        )
    return Batching(
        options, f"{_sources(batches, run_ms, sweep)} {_limit(largest, max(run_ms), max_batch_size)} {_waiting(sweep)}"
    )


def _limit(largest: int, most: int, limit: int) -> str:
    """What decides how many rows a batch may have."""
    if largest < most:
        return f"Batches of more than {largest} rows hardly do more in the same time, or take too long."
    seen = f"No run of more than {_rows(most)} was measured, so"
    return f"{seen} that is the limit." if limit == most else f"{seen} the limit of {limit} rows is a default."


def _rows(number: int) -> str:
    return f"{number} row{'' if number == 1 else 's'}"


def _sources(batches: BatchSummary, run_ms: dict[int, float], sweep: SweepResult | None) -> str:
    """What was measured, and how often."""
    times = ", ".join(f"{_rows(size)} {ms:.3g} ms ({batches.sizes.get(size, 0)} runs)" for size, ms in run_ms.items())
    pace = (
        f"the pace that the queue has learned, of {batches.num_batches} runs on the server that this was bundled from"
    )
    if sweep is None:
        return f"Measured: {pace}: {times}. No sweep was given."
    requests = sum(one.summary.num_due for one in sweep.results)
    broken = ", interrupted," if sweep.interrupted else ""
    return (
        f"Measured: a sweep{broken} of {len(sweep.results)} runs with {requests} requests (`%benchmark --sweep`), and "
        f"{pace}: {times}."
    )


def _waiting(sweep: SweepResult | None) -> str:
    """What decides how many batches may wait."""
    if sweep is None:
        return "How many batches may wait is a default."
    kept = "at no rate" if sweep.knee is None else f"up to {sweep.knee:.4g} requests/s"
    return f"The sweep kept p99 within {sweep.slo_ms:.3g} ms {kept}; the queue fits into that."
