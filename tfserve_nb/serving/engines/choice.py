"""Which engine runs a signature: compare each with TensorFlow on rows, measure those that agree, take the fastest.

Agreement follows the one rule of the export's check, on the rows of users where there are some. Each engine is measured
in turn with TensorFlow, so that a machine that is busy for a while is busy for all.

Thread: the caller's.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ...errors import ServingError
from ...export.reasons import innermost
from ...types import EngineMeasurement, SignatureSpec, Tensors
from .compare import Run, difference
from .engine import AUTO, TENSORFLOW, Engine
from .evidence import MADE_UP, MAX_ROWS, Evidence
from .strange import guards_for

LEAST_GAIN = 1.1
"""How many times faster than TensorFlow an engine has to be to take its place by itself."""

LEAST_THREAD_GAIN = 1.2
"""How many times faster a run with several threads has to be than with one: requests are read and answered on the same
cores, and on a machine that others use, the threads of a run wait for one another."""

MAX_PIECES = 4
"""Pieces of evidence that outputs are compared on."""

SLOW_S = 0.5
"""A run of TensorFlow from which on larger batches are left out."""

BUDGET_S = 0.05
"""Time for the runs of one engine and batch size; a few are made in any case."""

_SINGLE = ", one thread"

LEAST_TURNS, MOST_TURNS = 2, 10

RUNS_IN_TURN = 4
"""Runs of one in a row, as they come at work; the first of them, for which the caches are cold, does not count."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What comparing and measuring showed for one signature.

    Attributes:
        problems: engine -> why it cannot be used; those that can are left out.
        ms: engine -> batch size -> median time of a run, in milliseconds.
        rows: the rows that outputs were compared on, in words; "" when none could be run.
        guards: engine -> input -> the kinds of values that are left to TensorFlow; see `strange`.
        single: the engines that run with one thread, because several are hardly faster; see `threads_pay`.
        compared: engine -> whether its outputs are TensorFlow's; those that ran no rows are left out.
    """

    problems: Mapping[str, str]
    ms: Mapping[str, Mapping[int, float]]
    rows: str
    guards: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    single: tuple[str, ...] = ()
    compared: Mapping[str, bool] = field(default_factory=dict)


def examine(
    signature: SignatureSpec,
    reference: Run,
    engines: Mapping[str, Engine],
    evidence: Iterable[Evidence],
    sizes: Sequence[int],
    singles: Mapping[str, Engine] | None = None,
) -> Findings:
    """Compare engines with TensorFlow and measure them.

    Args:
        signature: what is run.
        reference: TensorFlow.
        engines: the engines by name.
        evidence: rows to try, those of users first; made-up ones count only without any others.
        sizes: the batch sizes that will be used, increasing.
        singles: the same engines with one thread, which small models gain from; measured too.
    """
    problems: dict[str, str] = {}
    batches: dict[int, Tensors] = {}
    sources: list[str] = []
    for piece in evidence:
        if len(sources) == MAX_PIECES or (sources and piece.source == MADE_UP):
            break
        tried = _compare(signature, reference, engines, piece, sizes, problems)
        batches = batches or tried
        sources += [piece.source] if tried else []
    if not sources:
        return Findings(dict.fromkeys(engines, "no rows are known that the model can run"), {}, "")
    compared = {name: name not in problems for name in engines}
    runs = {TENSORFLOW: reference, **{name: one.run for name, one in engines.items() if name not in problems}}
    runs |= {name + _SINGLE: one.run for name, one in (singles or {}).items() if name in runs}
    ms: dict[str, dict[int, float]] = {name: {} for name in runs}
    for size, batch in batches.items():
        for name, took_ms in measure(runs, batch).items():
            if isinstance(took_ms, str):
                problems |= {name: took_ms} if name in engines else {}
                del runs[name], ms[name]
            else:
                ms[name][size] = took_ms
    single = []
    for name in [name for name in ms if name + _SINGLE in ms]:
        alone_ms = ms.pop(name + _SINGLE)
        if not threads_pay(ms[name], alone_ms):
            ms[name] = alone_ms
            single.append(name)
    usual = next(iter(batches.values()))
    guards = {name: guards_for(signature, reference, engines[name], usual) for name in ms if name != TENSORFLOW}
    return Findings(problems, ms, ", ".join(dict.fromkeys(sources)), guards, tuple(single), compared)


def _compare(
    signature: SignatureSpec,
    reference: Run,
    engines: Mapping[str, Engine],
    piece: Evidence,
    sizes: Sequence[int],
    problems: dict[str, str],
) -> dict[int, Tensors]:
    """Note the engines that differ on a piece of evidence; the batches that TensorFlow ran, by size."""
    tried: dict[int, Tensors] = {}
    for size, batch in batches_of(signature, _runnable(signature, reference, piece.rows), sizes).items():
        try:
            expected = reference(batch)
        except ServingError:
            break
        tried[size] = batch
        for name, engine in engines.items():
            problem = "" if name in problems else difference(engine, batch, expected)
            if problem:
                problems[name] = problem
        if _seconds(reference, batch) > SLOW_S:
            break
    return tried


def _runnable(signature: SignatureSpec, reference: Run, rows: Tensors) -> Tensors:
    """The first rows that TensorFlow runs alone: one that it refuses would fail every batch that it is in."""
    if not all(spec.is_batched for spec in signature.inputs.values()):
        return rows
    good = []
    for row in range(min(MAX_ROWS, *(len(array) for array in rows.values()))):
        try:
            reference({name: array[row : row + 1] for name, array in rows.items()})
        except ServingError:
            continue
        good.append(row)
    return {name: array[good] for name, array in rows.items()}


def _seconds(run: Run, batch: Tensors) -> float:
    """How long a run takes; the first one of its size took longer."""
    started_s = time.perf_counter()
    run(batch)
    return time.perf_counter() - started_s


def batches_of(signature: SignatureSpec, rows: Tensors, sizes: Sequence[int]) -> dict[int, Tensors]:
    """The rows, again and again, as batches of each size; as they are where a signature does not count rows."""
    if not all(spec.is_batched for spec in signature.inputs.values()):
        return {max((len(array) for array in rows.values() if array.ndim), default=1): rows}
    num_rows = min(len(array) for array in rows.values())
    return {
        size: {name: array[np.arange(size) % num_rows] for name, array in rows.items()} for size in sizes if num_rows
    }


def measure(runs: Mapping[str, Run], batch: Tensors) -> dict[str, float | str]:
    """The median time of a run of each in milliseconds, a few runs of each in turn; or why one failed."""
    return in_turn({name: partial(turn_of, run, batch) for name, run in runs.items()})


def turn_of(run: Run, batch: Tensors) -> list[float]:
    """How long a few runs in a row take, in seconds."""
    return [_seconds(run, batch) for _ in range(RUNS_IN_TURN)][1:]


def in_turn(turns: Mapping[str, Callable[[], Sequence[float]]]) -> dict[str, float | str]:
    """The median of what the turns of each took in milliseconds, one of each after the other; or why one failed.

    Args:
        turns: carry out a few runs and return how long they took, in seconds.
    """
    took_s: dict[str, list[float]] = {name: [] for name in turns}
    failed: dict[str, str] = {}
    until_s = time.perf_counter() + BUDGET_S * len(turns)
    for number in range(MOST_TURNS):
        if number >= LEAST_TURNS and time.perf_counter() > until_s:
            break
        for name, turn in turns.items():
            try:
                took_s[name] += turn()
            except Exception as error:  # noqa: BLE001 - runtimes raise types of their own
                failed[name] = f"it failed when it was measured: {innermost(error)}"
    return {name: 1e3 * statistics.median(values) for name, values in took_s.items() if values} | failed


def choose(wanted: str, findings: Findings, left_out: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Which engine answers, and why the others do not.

    Args:
        wanted: what was asked for.
        findings: what was seen.
        left_out: engine -> why it is not chosen by itself, whatever was seen.

    Returns:
        The engine's name; engine -> reason for all others that were wanted.
    """
    reasons = dict(findings.problems)
    usable = [name for name in findings.ms if name != TENSORFLOW]
    if wanted != AUTO:
        reasons |= {name: f"{wanted} was asked for" for name in usable if name != wanted}
        return (wanted if wanted in usable else TENSORFLOW), reasons
    reasons |= {name: reason for name, reason in left_out.items() if name in usable}
    gains = {name: gain(findings.ms[TENSORFLOW], findings.ms[name]) for name in usable if name not in left_out}
    best = max(gains, key=lambda name: gains[name], default=TENSORFLOW)
    if best == TENSORFLOW or gains[best] < LEAST_GAIN:
        reasons |= {name: f"{_times(value)} TensorFlow's speed, which is too little" for name, value in gains.items()}
        return TENSORFLOW, reasons
    reasons |= {
        name: f"{_times(value)} TensorFlow's speed, {best} {_times(gains[best])}"
        for name, value in gains.items()
        if name != best
    }
    return best, reasons


def gain(before_ms: Mapping[int, float], after_ms: Mapping[int, float]) -> float:
    """How many times faster something is: the geometric mean over the batch sizes."""
    logs = [math.log(before_ms[size] / after_ms[size]) for size in after_ms if size in before_ms]
    return math.exp(statistics.fmean(logs)) if logs else 0.0


def threads_pay(several_ms: Mapping[int, float], alone_ms: Mapping[int, float]) -> bool:
    """Whether an engine gains enough from several threads, over the batch sizes.

    Args:
        several_ms: batch size -> milliseconds of a run with several threads.
        alone_ms: the same with one.
    """
    return gain(alone_ms, several_ms) >= LEAST_THREAD_GAIN


def speed_note(engine: str, findings: Findings) -> str:
    """What an engine gains and on which rows it was compared, in words."""
    before, after = findings.ms[TENSORFLOW], findings.ms[engine]
    speeds = [
        f"{_times(before[size] / after[size])}{whose} at {size} {'row' if size == 1 else 'rows'}"
        for size, whose in {max(after): "", min(after): " TensorFlow's speed"}.items()
    ]
    return f"{' and '.join(reversed(speeds))}, with the same outputs on {findings.rows}"


def _times(value: float) -> str:
    return f"{value:.2g} ×"


def rows_of(
    signature: str, wanted: str, findings: Findings, tried: Iterable[str], left_out: Mapping[str, str]
) -> list[EngineMeasurement]:
    """The table of one signature.

    Args:
        signature: its name.
        wanted: what was asked for.
        findings: what was seen.
        tried: the engines, those that could not be converted too.
        left_out: as for `choose`.
    """
    chosen, reasons = choose(wanted, findings, left_out)
    if chosen != TENSORFLOW:
        speed = gain(findings.ms[TENSORFLOW], findings.ms[chosen])
        reasons[TENSORFLOW] = f"{chosen} has {_times(speed)} its speed"
    table = []
    for name in (TENSORFLOW, *tried):
        reason = "" if name == chosen else reasons.get(name, "")
        times: Mapping[int, float | None] = findings.ms.get(name) or {0: None}
        agrees = name == TENSORFLOW or findings.compared.get(name)
        table += [
            EngineMeasurement(name, signature, size, took_ms, agrees, reason, name == chosen)
            for size, took_ms in times.items()
        ]
    return table
