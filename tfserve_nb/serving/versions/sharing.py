"""May rows run together? The one place that decides it, for each signature of a version, from evidence.

Rows of different requests share a run, a long request is cut into several runs, and a run is padded only when the rows
are known to be independent: rows that the model can run have had the same outputs alone and beside others, in every
batch size that will be used. The rows are the user's own (warm-up requests, captured requests, what a check at deploy
noted) and made-up ones. What has not been seen is not assumed: without rows that run, each request runs alone.

Neighbours are made as different as possible: NaN spreads from one row into every other that is computed from it,
however little it weighs, and large numbers reach thresholds that usual rows do not. Whole numbers have no NaN: made-up
rows of them differ in their largest value and in how much padding they end with, and neighbours hold what no other
row does.

Thread: the manager's, or the one that exports.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ...errors import ExportFailed, RunFailed, RunRejected, ServingError
from ...export.check import compare_outputs, made_up_batches
from ...types import DEFAULT_SIGNATURE, SignatureSpec, Tensors, TensorSpec
from ..engines.evidence import MADE_UP, Evidence
from .row_evidence import NotedRows, read_noted_rows

Run: TypeAlias = Callable[[Tensors], Tensors]
"""Runs one signature."""

MAX_ROWS = 64
"""Rows of one piece of evidence that are run alone, as long as that takes less than `ALONE_S`; a few in any case."""

LEAST_ROWS = 4
ALONE_S = 1.0
SLOW_RUN_S = 0.05
"""A run from which on sizes are left out that no client has to wait for."""

BEYOND = 4
"""Requests are longer than a batch: this many times its size is tried too, where that is quick."""

LARGE = 1e4
"""Large beside usual numbers, but no number of steps that would keep a loop busy for long."""

LESS_LARGE = (1e2, 1e3)
"""Tried before on two rows: where a number is the size of a matrix, its cube counts, and no such run can be stopped."""

LARGER = (1e6, 3e7, 1e9)
"""Tried in this order, and only until a run gets slow: the model may take a number for a number of steps or a size."""

GROWS_S = 0.03
"""A run that takes this much longer beside large numbers does more work because of them."""

PADDINGS = (0, -1, 50256, 1)
"""What short rows of whole numbers usually end with: zeros, and the padding and end marks of common tokenizers."""

_MOST_VARIED = 1_000_000
"""Values of an input up to which more rows are made from it."""

MOST_COMPARED = 16
_LONG_TEXT = b"a very long text " * 40

TEXTS = (b"", b"42", b"-1.5", _LONG_TEXT)
"""Made up beside words: what models read as numbers, and what is shorter or longer than others."""

MOST_VALUES = 16
"""Rows whose values of one input are tried in the place of each other."""

STRANGE_S = 1.0
"""Time for runs beside strange rows."""

_DEPENDS = "the outputs for a row depend on the rows beside it"

_ADVICE = (
    "give two or more different ones (%deploy --check VAR or --warmup VAR, elsewhere "
    "assets.extra/tf_serving_warmup_requests), and requests may share runs"
)


@dataclass(frozen=True, slots=True)
class RowSharing:
    """What is known of one signature.

    Attributes:
        is_allowed: whether rows of several requests may share a run, a request may be cut, and a run may be padded.
        reason: why not, in words; "" when they may, or when batching is switched off.
        pads_lengths: whether what is added to the end of an input (`pad_variable_length_inputs`) changes no answer.
    """

    is_allowed: bool
    reason: str = ""
    pads_lengths: bool = False


def decide(
    run: Run,
    signature: SignatureSpec,
    evidence: Iterable[Evidence],
    sizes: Sequence[int],
    *,
    noted: NotedRows | None = None,
    is_warm_up: bool = True,
    on_run: Callable[[], None] = lambda: None,
) -> RowSharing:
    """Decide whether rows of a signature may run together.

    Args:
        run: runs it.
        signature: the signature.
        evidence: rows to try, lazily; those that the model refuses are passed over.
        sizes: the batch sizes that will be used, increasing.
        noted: what an earlier check with the user's rows found, or None.
        is_warm_up: whether every size has to run, however long it takes.
        on_run: called after each size.
    """
    reason = fixed_dimension(signature)
    if not reason and noted is not None and not noted.are_independent:
        reason = noted.found
    if reason:
        return RowSharing(is_allowed=False, reason=reason)
    problem = ""
    is_tried = False
    for piece in evidence:
        probe = _Probe(run, piece.rows, sizes, is_warm_up=is_warm_up and not is_tried, on_run=on_run)
        try:
            found = probe.coupling()
        except ServingError as error:
            problem = problem or error.message
            continue
        if found:
            return RowSharing(is_allowed=False, reason=f"{found} (seen with {piece.source})")
        is_tried = True
        if piece.source == MADE_UP:
            break  # they come last, and the most varied of them first
    if is_tried or noted is not None:
        return RowSharing(is_allowed=True)
    why = f": {problem.rstrip('.')}" if problem else ""
    return RowSharing(
        is_allowed=False, reason=f"no rows are known that show whether they may share a run{why}; {_ADVICE}"
    )


def ignores_added_length(run: Run, signature: SignatureSpec, evidence: Iterable[Evidence]) -> bool:
    """Whether rows whose free inner dimensions are filled up with their first element have the outputs of the rows.

    Args:
        run: runs the signature.
        signature: the signature.
        evidence: rows to try; without any that the model can run, the answer is no.
    """
    is_tried = False
    for piece in evidence:
        for row in range(min(LEAST_ROWS, _num_rows(piece.rows))):
            single = {name: array[row : row + 1] for name, array in piece.rows.items()}
            longer = {name: _lengthened(array, signature.inputs[name]) for name, array in single.items()}
            try:
                outputs, same = run(single), run(longer)
            except (RunFailed, RunRejected):
                continue
            if wrong_rows(same, 1) or _differs([outputs], same, [0]):
                return False
            is_tried = True
        if is_tried and piece.source == MADE_UP:
            break
    return is_tried


def _lengthened(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """One row with free inner dimensions twice as long, as `batching.rows` fills it up."""
    declared = (None,) * array.ndim if spec.shape is None else spec.shape
    if not array.size or None not in declared[1:]:
        return array
    pairs = zip(array.shape[1:], declared[1:], strict=True)
    sizes = [2 * size if wanted is None else size for size, wanted in pairs]
    longer = np.full((1, *sizes), array.flat[0], dtype=array.dtype)
    longer[tuple(slice(size) for size in array.shape)] = array
    return longer


def noted_from(run: Run, signature: SignatureSpec, rows: Tensors, sizes: Sequence[int]) -> NotedRows | None:
    """What the user's rows show, to be noted beside a version; None when they show nothing.

    Args:
        run: runs the signature.
        signature: the signature.
        rows: name -> array `(n, ...)`.
        sizes: the batch sizes that will be used, increasing.
    """
    if fixed_dimension(signature):
        return None
    try:
        found = _Probe(run, rows, sizes, is_warm_up=False, on_run=lambda: None).coupling()
    except ServingError:
        return None
    return NotedRows(not found, f"{found} (seen with the rows of --check)" if found else "")


def may_cut(run: Run, signature: SignatureSpec, rows: Tensors, path: Path, size: int) -> bool:
    """Whether rows may be run in pieces, outside of a server.

    Args:
        run: runs the signature.
        signature: the signature.
        rows: name -> array `(n, ...)`: evidence too.
        path: the version's folder.
        size: rows of one piece.
    """
    evidence = (Evidence(rows, "the given rows"), *(Evidence(made, MADE_UP) for made in made_up(signature)))
    noted = read_noted_rows(path).get(signature.name)
    return decide(run, signature, evidence, (size,), noted=noted, is_warm_up=False).is_allowed


def fixed_dimension(signature: SignatureSpec) -> str:
    """Which input or output has no free dimension 0, in words; "" when all have one."""
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs.values():
            if not spec.is_batched:
                return f"{kind} {spec.name} ({spec}) does not count rows in its first dimension"
    return "" if signature.inputs else "it has no inputs"


def made_up(signature: SignatureSpec) -> Iterator[Tensors]:
    """Rows made from a signature, the most varied first; the model may suit only the plainer ones."""
    batches = made_up_batches(signature)
    varied = next(batches)
    yield {name: _spread(array) for name, array in _more_rows(varied).items()}
    yield varied
    yield from batches


def _spread(array: np.ndarray) -> np.ndarray:
    """Rows of different size and sign, where they are numbers: what depends on a threshold may show."""
    if array.dtype.kind != "f" or array.ndim == 0:
        return array
    spread = array.copy()
    spread[1::4] *= 100
    spread[2::4] = np.abs(spread[2::4])
    return spread


def _more_rows(rows: Tensors) -> Tensors:
    """Text, whole numbers and booleans unlike the made-up ones, which are all small, of like length and unpadded.

    A model may take only some of these rows: each is tried alone first.
    """
    discrete = [array for array in rows.values() if array.dtype.kind in "iubO" and array.ndim]
    if not discrete or max(array.size for array in rows.values()) > _MOST_VARIED:
        return rows
    count = _num_rows(rows)
    more = [{name: array[:1] for name, array in rows.items()}]
    for number, padding in enumerate(PADDINGS):
        more.append({name: _with_tail(_row(array, number + 1), padding) for name, array in rows.items()})
        more.append({name: _scaled(_row(array, number + 2), (3, 25, 0, 1)[number]) for name, array in rows.items()})
        more.append({name: _small(_row(array, number), number) for name, array in rows.items()})
    more.extend({name: _row(array, number) for name, array in rows.items()} for number in range(1, count))
    return {name: np.concatenate([row[name] for row in more]) for name in rows}


def _row(array: np.ndarray, number: int) -> np.ndarray:
    place = number % len(array)
    return array[place : place + 1]


def _scaled(row: np.ndarray, factor: int) -> np.ndarray:
    """A row of larger whole numbers; booleans become all True or, for 0, all False."""
    if row.dtype.kind == "b":
        return np.full_like(row, factor > 0)
    if row.dtype.kind not in "iu":
        return row
    most = int(np.iinfo(row.dtype).max)
    return np.minimum(row.astype(np.int64) * factor, min(most, 2**62)).astype(row.dtype)


def _small(row: np.ndarray, number: int) -> np.ndarray:
    """Zeros and ones, which suit any table of at least two rows; of text, one of `TEXTS`."""
    if row.dtype == object:
        return np.full(row.shape, TEXTS[number % len(TEXTS)], dtype=object)
    return row % 2 if row.dtype.kind in "iu" else row


def _with_tail(row: np.ndarray, padding: int) -> np.ndarray:
    """A row whose second half, in its last dimension, is padding; the row itself where that cannot be.

    Booleans are True, then False.
    """
    if row.dtype.kind not in "iub" or row.ndim < 2 or row.shape[-1] < 2:
        return row
    padded = row.copy()
    half = row.shape[-1] // 2
    if row.dtype.kind == "b":
        padded[..., :half], padded[..., half:] = True, False
    elif np.iinfo(row.dtype).min <= padding <= np.iinfo(row.dtype).max:
        padded[..., half:] = padding
    return padded


class _Probe:
    """Compares rows that run alone with the same rows beside others.

    Args:
        run: runs the signature.
        rows: name -> array `(n, ...)`.
        sizes: batch sizes.
        is_warm_up: see `decide`.
        on_run: see `decide`.
    """

    def __init__(
        self, run: Run, rows: Tensors, sizes: Sequence[int], *, is_warm_up: bool, on_run: Callable[[], None]
    ) -> None:
        self._run = run
        self._rows = rows
        self._sizes = sizes
        self._is_warm_up = is_warm_up
        self._on_run = on_run
        self._chosen: list[int] = []
        self._alone: list[Tensors] = []
        self._next = 0
        self._saw_others = False
        self._most = math.inf  # larger numbers would take long

    def coupling(self) -> str:
        """How rows depend on each other, in words; "" when they do not.

        Raises:
            ServingError: if none of the rows shows anything; the message says why.
        """
        return self._run_alone() or self._run_together() or self._run_beside_strange_rows() or self._enough()

    def _run_alone(self) -> str:
        """The reference: each row by itself."""
        problem: ServingError | None = None
        until_s = time.perf_counter() + ALONE_S
        for row in range(min(MAX_ROWS, _num_rows(self._rows))):
            if row >= LEAST_ROWS and time.perf_counter() > until_s:
                break
            single = {name: array[row : row + 1] for name, array in self._rows.items()}
            try:
                outputs = self._run(single)
            except (RunFailed, RunRejected) as error:
                problem = problem or error
                continue
            wrong = wrong_rows(outputs, 1)
            if wrong:
                return wrong
            self._chosen.append(row)
            self._alone.append(outputs)
        if not self._alone:
            raise problem or RunRejected("there are no rows")
        if not any(_has_numbers(outputs) for outputs in self._alone):
            raise RunRejected("all outputs are empty, NaN or infinite")
        first = {name: array[self._chosen[0] : self._chosen[0] + 1] for name, array in self._rows.items()}
        if _differs([self._alone[0]], self._run(first), [0]):
            return "the outputs for the same row change from run to run"
        return ""

    def _run_together(self) -> str:
        """Rows of the evidence beside each other, in every size."""
        took_s = 0.0
        largest = max(2, self._sizes[-1])
        for size in (*[size for size in self._sizes if size > 1], *([largest] if self._sizes[-1] < 2 else [])):
            if took_s > SLOW_RUN_S and not self._is_warm_up:
                break
            started_s = time.perf_counter()
            found = self._compare(size)
            took_s = time.perf_counter() - started_s
            self._on_run()
            if found:
                return found
        return self._compare(BEYOND * largest) if took_s < SLOW_RUN_S else ""

    def _compare(self, size: int) -> str:
        places = [(self._next + place) % len(self._chosen) for place in range(size)]
        self._next += size
        rows = [self._chosen[place] for place in places]
        try:
            together = self._run({name: array[rows] for name, array in self._rows.items()})
        except (RunFailed, RunRejected) as error:
            return f"{size} rows together fail, which run alone: {error.message}"
        wrong = wrong_rows(together, size)
        if wrong:
            return wrong
        shown = sorted({round(place) for place in np.linspace(0, size - 1, min(size, MOST_COMPARED))})
        if _differs([self._alone[places[place]] for place in shown], together, shown):
            return _DEPENDS
        self._saw_others = self._saw_others or _num_different(self._rows, set(rows)) > 1
        return ""

    def _run_beside_strange_rows(self) -> str:
        """Rows of the evidence beside neighbours that no client should send, the least strange first."""
        largest = max(2, self._sizes[-1])
        until_s = time.perf_counter() + STRANGE_S
        strange = sorted(_strange(self._rows), key=_size)
        for size in sorted({2, min(largest, 8), largest}):
            usual_s = math.inf
            for places in ([0, size - 1], [size // 2]) if size > 2 else ([0], [1]):
                for number, neighbour in strange:
                    if number > self._most:
                        break
                    if number in LESS_LARGE and size > 2:
                        continue
                    if time.perf_counter() > until_s:
                        return ""
                    found, took_s = self._depends_on(neighbour, size, places)
                    if found:
                        return _DEPENDS
                    if number < LESS_LARGE[0]:
                        usual_s = min(usual_s, took_s)
                    elif took_s > 1.5 * usual_s + GROWS_S and self._stays_slow(neighbour, size, usual_s):
                        self._most = number
        return ""

    def _stays_slow(self, neighbour: Tensors, size: int, usual_s: float) -> bool:
        """Whether a run beside large numbers is slow each time: once may have been the machine."""
        return all(self._depends_on(neighbour, size, [0])[1] > 1.5 * usual_s + GROWS_S for _ in range(2))

    def _depends_on(self, strange: Tensors, size: int, places: list[int]) -> tuple[bool, float]:
        """Whether rows have other outputs beside copies of a strange one, and the seconds of the run.

        Only the outputs of the rows themselves count: what a strange row gets, NaN for instance, says nothing.
        """
        batch = {name: np.repeat(array, size, axis=0) for name, array in strange.items()}
        numbers = [number % len(self._chosen) for number in range(len(places))]
        for name, array in self._rows.items():
            batch[name][places] = array[[self._chosen[number] for number in numbers]]
        started_s = time.perf_counter()
        try:
            together = self._run(batch)
        except (RunFailed, RunRejected):
            return False, time.perf_counter() - started_s  # the model refuses such rows
        took_s = time.perf_counter() - started_s
        # Text and whole numbers may lie on one side only: the largest row does not see that others count.
        self._saw_others = self._saw_others or any(array.dtype.kind in "fcV" for array in self._rows.values())
        if wrong_rows(together, size):
            return True, took_s
        return _differs([self._alone[number] for number in numbers], together, places), took_s

    def _enough(self) -> str:
        """What never differs shows nothing: each input has to make a difference to some output.

        Copies of one row have the outputs of that row where their mean is subtracted, too, and so have texts that a
        lookup table does not know.
        """
        if not self._saw_others:
            raise RunRejected("only one row could be run, which shows nothing; two or more different rows are needed")
        idle = next((name for name in self._rows if not self._makes_a_difference(name)), "")
        if idle:
            raise RunRejected(f"input {idle} makes no difference to the outputs for the rows tried")
        return ""

    def _makes_a_difference(self, name: str) -> bool:
        """Whether some row has other outputs with another value of one input: another row's, or a strange one."""
        chosen = self._chosen[:MOST_VALUES]
        own = self._rows[name][chosen[:1]]
        strange = [kind[name] for size, kind in sorted(_strange(self._rows), key=_size) if size <= self._most]
        others = [self._rows[name][chosen], *strange]
        until_s = time.perf_counter() + STRANGE_S
        for other in others:
            values = np.concatenate([own, other])
            copies = {key: np.repeat(array[chosen[:1]], len(values), axis=0) for key, array in self._rows.items()}
            try:
                outputs = self._run({**copies, name: values})
            except (RunFailed, RunRejected):
                continue  # the model refuses such rows
            if any(_differs([self._alone[0]], outputs, [place]) for place in range(1, len(values))):
                return True
            if time.perf_counter() > until_s:
                break
        return False


def wrong_rows(outputs: Tensors, num_rows: int) -> str:
    """Which output does not have one row for each row of the inputs, in words; "" when all do."""
    for name, array in outputs.items():
        if array.ndim == 0:
            return f"output {name} is a single value for all rows"
        if len(array) != num_rows:
            return f"output {name} has {len(array)} rows for {num_rows}"
    return ""


def _differs(alone: Sequence[Tensors], together: Tensors, places: Sequence[int]) -> bool:
    """Whether rows have other outputs than they had alone, beyond rounding."""
    try:
        expected = {name: np.concatenate([outputs[name] for outputs in alone]) for name in together}
        compare_outputs(expected, {name: array[list(places)] for name, array in together.items()})
    except (ExportFailed, ValueError):
        return True
    return False


def _strange(rows: Tensors) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """How large, and single rows unlike all others, `(1, ...)`.

    Floats: NaN, large, small and zero; text: empty and long. Then whole numbers and booleans: all the same, the
    extremes of the type, and a tail of zeros; each where some input has the type.
    """
    has_floats = any(array.dtype.kind in "fcV" for array in rows.values())
    has_text = any(array.dtype == object for array in rows.values())
    for number, text in ((np.nan, b""), (LARGE, _LONG_TEXT), (-LARGE, b"0"), (0.0, b"")):
        if has_floats or (has_text and number != 0.0):
            size = 0.0 if np.isnan(number) or not has_floats else abs(number)
            yield size, {name: _filled(array[:1], number, text) for name, array in rows.items()}
    for size in (*LESS_LARGE, *LARGER) if has_floats else ():
        for number in (size, -size):
            yield size, {name: _filled(array[:1], number, b"") for name, array in rows.items()}
    if not any(array.dtype.kind in "iub" for array in rows.values()):
        return
    yield 0.0, {name: _with_tail(array[:1], 0) for name, array in rows.items()}
    yield 0.0, {name: _all_alike(array[:1], None) for name, array in rows.items()}
    kinds = [number for size in (*LESS_LARGE, LARGE, *LARGER[:-1]) for number in (int(size), -int(size))]
    seen = set()
    for whole in (0, -1, 1, *kinds, 2**64, -(2**64)):
        row = {name: _all_alike(array[:1], whole) for name, array in rows.items()}
        key = tuple(_key(array) for array in row.values())
        if key not in seen:
            seen.add(key)
            yield max(_largest_whole(array) for array in row.values()), row


def _size(strange: tuple[float, Tensors]) -> float:
    return strange[0]


def _filled(row: np.ndarray, number: float, text: bytes) -> np.ndarray:
    if row.dtype == object:
        return np.full(row.shape, text, dtype=object)
    with np.errstate(all="ignore"):
        return np.full_like(row, number) if row.dtype.kind in "fcV" else row.copy()


def _all_alike(row: np.ndarray, whole: int | None) -> np.ndarray:
    """A row of one whole number, as near as its type comes to it; None for its own first. Booleans are True above 0."""
    if row.dtype.kind not in "iub" or not row.size:
        return row.copy()
    if whole is None:
        return np.full_like(row, row.flat[0])
    if row.dtype.kind == "b":
        return np.full_like(row, whole > 0)
    limits = np.iinfo(row.dtype)
    return np.full_like(row, min(max(whole, int(limits.min)), int(limits.max)))


def _largest_whole(row: np.ndarray) -> float:
    return abs(float(row.flat[0])) if row.dtype.kind in "iub" and row.size else 0.0


def _has_numbers(outputs: Tensors) -> bool:
    """Whether outputs hold anything but NaN and infinities: those say nothing about how they were computed."""
    return any(
        array.size and (array.dtype.kind not in "fcV" or bool(np.isfinite(array.astype(np.complex128)).any()))
        for array in outputs.values()
    )


def _num_different(rows: Tensors, chosen: set[int]) -> int:
    return len({tuple(_key(array[row : row + 1]) for array in rows.values()) for row in chosen})


def _key(row: np.ndarray) -> object:
    return tuple(row.ravel().tolist()) if row.dtype == object else row.tobytes()


def _num_rows(rows: Tensors) -> int:
    return min(len(array) for array in rows.values())


def sharing_notes(alone: Mapping[str, str]) -> tuple[str, ...]:
    """What a user should know of a version: one line for each signature whose requests run alone.

    Args:
        alone: signature -> why; "" where that is said elsewhere.

    Example:
        >>> sharing_notes({"serving_default": "input n (int32[]) does not count rows in its first dimension"})
        ('requests run one at a time: input n (int32[]) does not count rows in its first dimension',)
    """
    return tuple(
        f"requests{'' if name == DEFAULT_SIGNATURE else f' for {name}'} run one at a time: {reason}"
        for name, reason in alone.items()
        if reason
    )
