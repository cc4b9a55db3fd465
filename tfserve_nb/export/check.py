"""Does the SavedModel compute what the live model computes? Checked before a version counts.

The rows come from the user, or are made from the signature: a little of everything, the same every time. What was made
up may not suit the model (an index out of range, text that is no date); then plainer rows are tried, and when none
suit, the check is skipped with a reason. It never fails a model that is right.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..agreement.rows import distances
from ..errors import ExportFailed, InvalidOption, InvalidRequest, RunFailed
from ..protos.postponed import loaded
from ..types import SignatureSpec, Tensors, TensorSpec, array_of
from .arrays import by_name, given_as, named_batch
from .endpoint import ExportSource
from .graph.effects import Effects, effects_of
from .graph.live import LiveModel, NotRepeatable
from .reasons import innermost, shorten
from .signatures import has_varying_ops, main_signature, read_meta_graph, read_signatures
from .source import prepare_source

LoadAndRun = Callable[[Path, str, Tensors], Tensors]
"""(SavedModel folder, signature name, inputs) -> outputs; loads the folder as the server will."""

Run: TypeAlias = Callable[[Tensors], Tensors]
"""The same for one folder and signature."""

NUM_ROWS = 4
FREE_SIZE = 32
"""What an unknown dimension other than the first becomes in made-up rows."""

_OTHER_SIZES = (8, 128, 1)
_WORDS = (b"a good day", b"the film was long and bad", b"yes", b"7")

_MANY_VALUES = 4_000_000
"""Values of one row from which on a single row is enough."""

_TOLERANCES = {
    # Relative, and absolute as a part of the output's largest number: a session orders sums differently and fuses
    # operations, so that errors of rounding differ and add up from layer to layer.
    "float64": (1e-9, 1e-10),
    "float32": (1e-4, 5e-5),
    "float16": (2e-2, 5e-3),
    "bfloat16": (5e-2, 2e-2),
    "tf32": (1e-2, 2e-3),
}
_ROUNDINGS = {"float64": 2e-15, "float32": 1e-6, "float16": 1e-2, "bfloat16": 8e-2, "tf32": 1e-2}
"""About ten steps of each type at 1: numbers that close to zero are rests of a subtraction."""

_DIFFERENCE_HINT = "call() must depend on its inputs and weights only: no Python counters, clocks or random numbers"

_SIZES_HINT = (
    "a layer misreads a size that is unknown when the model is traced, as keras.layers.TimeDistributed does with "
    "unknown steps: give all sizes, keras.Input((32, 4)), or no Python counters, clocks or random numbers in call()"
)

_SAME_EXACTNESS = {"complex64": "float32", "complex128": "float64"}


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What is known of a version before it is run.

    Attributes:
        signatures: by name.
        effects: what running it does besides answering.
    """

    signatures: Mapping[str, SignatureSpec]
    effects: Effects


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found; differences beyond the tolerance are not reported but raised.

    Attributes:
        num_rows: rows that were compared, or run when there was no live model; 0 when the check was skipped.
        max_difference: the largest absolute difference between live and served numbers; None when nothing was compared.
        skipped_reason: one line, or "" when the check was made.
        nan_outputs: the outputs that held nothing but NaN.
    """

    num_rows: int
    max_difference: float | None
    skipped_reason: str = ""
    nan_outputs: tuple[str, ...] = ()


def example_batch(
    signature: SignatureSpec, rows: int = NUM_ROWS, *, free_size: int = FREE_SIZE, is_plain: bool = False
) -> dict[str, np.ndarray]:
    """A small batch made from a signature, the same every time.

    Args:
        signature: only its inputs matter.
        rows: rows for inputs whose dimension 0 is free.
        free_size: size of all other unknown dimensions.
        is_plain: zeros, False and the text "0" instead of a little of everything.

    Returns:
        name -> array of the spec's numpy type: floats are normally distributed, integers lie between 0 and 9, text is
        a few words as bytes.
    """
    random = np.random.default_rng(0)
    batch = {}
    for name, spec in signature.inputs.items():
        sizes = (None, 1) if spec.shape is None else spec.shape
        shape = tuple(
            size if size is not None else rows if position == 0 else free_size for position, size in enumerate(sizes)
        )
        batch[name] = _plain(spec, shape) if is_plain else _varied(spec, shape, random)
    return batch


def compare_outputs(
    live: Tensors,
    served: Tensors,
    rtol: float | None = None,
    atol: float | None = None,
    *,
    computed_in: str = "float32",
    sides: tuple[str, str] = ("the live model", "the SavedModel"),
) -> float:
    """Compare the live model's outputs with the served ones.

    Numbers may differ by `atol + rtol * |live|`; NaN equals NaN. Text, integers and booleans must be equal.

    Args:
        live: output name -> array.
        served: output name -> array.
        rtol: relative tolerance; None for one that suits the types.
        atol: absolute tolerance; None for one that suits the types and the largest number of the output.
        computed_in: the least exact type that the model computes in; the tolerance suits it and the output's own type.
        sides: what the two are called in messages.

    Returns:
        The largest absolute difference of all numbers.

    Raises:
        ExportFailed: if an output is missing, has another shape or type, or differs beyond the tolerance; the message
            names output, row, largest difference and tolerance.
    """
    if live.keys() != served.keys():
        raise ExportFailed(
            f"{sides[1]} has the outputs {', '.join(sorted(served))}, {sides[0]} {', '.join(sorted(live))}",
            hint="deploy once more; if it stays, return a dict of tensors from call()",
        )
    largest = 0.0
    for name, expected in live.items():
        found = array_of(served[name])
        if expected.shape != found.shape or expected.dtype.kind != found.dtype.kind:
            raise ExportFailed(
                f"output {name!r} of {sides[1]} is {found.dtype}{list(found.shape)}, of {sides[0]} "
                f"{expected.dtype}{list(expected.shape)}",
                hint="use keras.ops.shape(x) for sizes in call(): in a graph they may be unknown when it is traced",
            )
        if expected.dtype.kind in "fcV":
            exactness = _exactness(expected.dtype.name, computed_in)
            largest = max(largest, _compare_numbers(name, expected, found, exactness, rtol, atol, sides))
        else:
            _compare_exactly(name, expected, found, sides)
    return largest


def in_words(report: CheckReport, source: ExportSource) -> str:
    """What a check found, for the summary of a deploy."""
    if report.skipped_reason:
        return f"not compared: {report.skipped_reason}"
    return f"{report.num_rows} rows {'run' if source.file and source.call is None else 'agree'}"


def is_all_nan(array: np.ndarray) -> bool:
    """Whether an output has values, and all of them are NaN."""
    return bool(array.size) and array.dtype.kind in "fcV" and bool(np.isnan(array).all())


def nan_notes(names: Collection[str]) -> tuple[str, ...]:
    """What users have to know of outputs that held nothing but NaN, which is an answer and may be the right one."""
    advice = "look for NaN in its weights, and in the rows that it was given"
    return (f"nothing but NaN was in {', '.join(names)} for all rows that were tried: {advice}",) if names else ()


def read_facts(path: Path) -> VersionFacts:
    """Those of a SavedModel folder."""
    return VersionFacts(read_signatures(path), effects_of(read_meta_graph(path), path))


def verify_against_live(
    source: object,
    path: Path,
    load_and_run: LoadAndRun,
    example: object = None,
    option: str = "check",
    facts: VersionFacts | None = None,
) -> CheckReport:
    """Compare a SavedModel folder with the live model that it was made from.

    Args:
        source: the model, or what `prepare_source` returned. For a model on disk there is no live model; it is only
            loaded and run.
        path: the folder to be checked.
        load_and_run: loads the folder as the server will, runs one signature once, and may be called several times.
        example: the user's own rows, or None to make some up.
        option: what the rows were given with, for messages.
        facts: what is known of the folder; read from it, as of a SavedModel, by default.

    Returns:
        What was compared.

    Raises:
        ExportFailed: if the SavedModel cannot be loaded or run, or its outputs differ.
        InvalidOption: if the user's rows do not fit the model, or make it fail.
    """
    prepared = prepare_source(source, example=example, option=option)
    facts = read_facts(path) if facts is None else facts
    if facts.effects.outside_ops and example is None:
        # The live model would do the same: files that it writes, and requests that it sends.
        return CheckReport(0, None, "made-up rows are not run on such a model (give some: --check)")
    signature = main_signature(facts.signatures)
    with given_as(option):
        batches = (
            iter([named_batch(by_name(example, prepared.order), signature)])
            if example is not None
            else made_up_batches(signature)
        )

    def run(batch: Tensors) -> Tensors:
        return load_and_run(path, signature.name, batch)

    if prepared.call is None:
        return _run_only(prepared.description, run, batches, is_own=example is not None)
    model = LiveModel(prepared)
    try:
        if example is not None:
            return _check_own(prepared, path, run, next(batches), model)
        return _check_made_up(prepared, path, run, batches, model)
    except NotRepeatable as error:
        return CheckReport(0, None, error.message)


def _check_own(source: ExportSource, path: Path, run: Run, batch: Tensors, model: LiveModel) -> CheckReport:
    try:
        live = model.run(batch)
    except NotRepeatable:
        raise
    except Exception as error:
        raise InvalidOption(
            f"{source.description} itself fails on the rows given: {innermost(error)}",
            hint="give rows that model(x) can take, or none",
        ) from error
    return _compare(source, path, run, batch, live, model)


def _check_made_up(
    source: ExportSource, path: Path, run: Run, batches: Iterator[Tensors], model: LiveModel
) -> CheckReport:
    """Compare on the first rows that suit the model.

    With unknown dimensions a difference counts only if it shows for every size that was tried: a size that is too
    small for the model's convolutions gives what happens to be in memory, and a difference of weights shows always.
    """
    problem, difference = "", None
    tried: set[tuple[tuple[int, ...], ...]] = set()
    for batch in batches:
        shapes = tuple(array.shape for array in batch.values())
        if shapes in tried:
            continue
        try:
            live = model.run(batch)
        except NotRepeatable:
            raise
        except Exception as error:  # noqa: BLE001 - it is the user's code that runs, and our rows that do not suit it
            problem = problem or innermost(error)
            continue
        tried.add(shapes)
        try:
            return _compare(source, path, run, batch, live, model)
        except ExportFailed as error:
            difference = difference or error
    if difference is not None:
        raise difference
    return CheckReport(
        0, None, f"rows made from the signature do not suit the model: {problem.rstrip('.')}; pass --check rows"
    )


def _compare(
    source: ExportSource, path: Path, run: Run, batch: Tensors, live: Tensors, model: LiveModel
) -> CheckReport:
    sides = ("the live model", "the SavedModel" if source.file is None else "the exported model")
    try:
        served = run(batch)
    except Exception as error:
        raise ExportFailed(
            f"{sides[1]} fails on rows on which the live model does not: {innermost(error)}",
            hint="look for Python code in call() that works on values, not on tensors",
        ) from error
    try:
        difference = compare_outputs(live, served, computed_in=source.coarsest_dtype, sides=sides)
    except ExportFailed as error:
        may_vary = source.file is not None or has_varying_ops(read_meta_graph(path))
        if may_vary and not _answers_alike(source, batch, live, model):
            why = "draws random numbers or reads the clock"
            return CheckReport(0, None, f"the model {why}: its outputs for the same rows differ each time")
        if any(None in (spec.shape or ())[1:] for spec in source.inputs):
            raise ExportFailed(error.message, hint=_SIZES_HINT) from error
        raise
    return CheckReport(_num_rows(batch), difference, nan_outputs=_nan_outputs(served))


def made_up_batches(signature: SignatureSpec) -> Iterator[Tensors]:
    """Batches made from a signature, to be tried one after the other: the best first."""
    shapes = [spec.shape or (None, 1) for spec in signature.inputs.values()]
    most_values = max((math.prod(size or FREE_SIZE for size in shape[1:]) for shape in shapes), default=0)
    rows = NUM_ROWS if most_values < _MANY_VALUES else 1
    has_free_sizes = any(None in shape[1:] for shape in shapes)
    for free_size in (FREE_SIZE, *_OTHER_SIZES) if has_free_sizes else (FREE_SIZE,):
        for is_plain in (False, True):
            yield example_batch(signature, rows, free_size=free_size, is_plain=is_plain)


def _run_only(description: str, run: Run, batches: Iterator[Tensors], *, is_own: bool) -> CheckReport:
    """Whether a version without a live model loads and runs."""
    problem = ""
    for batch in batches:
        try:
            outputs = run(batch)
        except (RunFailed, InvalidRequest) as error:
            problem = problem or shorten(error.message)
        except Exception as error:
            raise ExportFailed(
                f"the SavedModel cannot be loaded: {innermost(error)}", hint="save it again with this TensorFlow"
            ) from error
        else:
            return CheckReport(_num_rows(batch), None, nan_outputs=_nan_outputs(outputs))
    if is_own:
        raise InvalidOption(
            f"{description} fails on the rows given: {problem}", hint="give rows that it can take, or none"
        )
    return CheckReport(
        0, None, f"rows made from the signature do not suit the model: {problem.rstrip('.')}; pass --check rows"
    )


def _answers_alike(source: ExportSource, batch: Tensors, before: Tensors, model: LiveModel) -> bool:
    try:
        compare_outputs(before, model.run(batch), computed_in=source.coarsest_dtype)
    except ExportFailed:
        return False
    return True


def _nan_outputs(outputs: Tensors) -> tuple[str, ...]:
    return tuple(name for name, value in outputs.items() if is_all_nan(array_of(value)))


def _num_rows(batch: Tensors) -> int:
    return max((len(array) for array in batch.values() if array.ndim), default=1)


def _plain(spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, b"0", dtype=object) if spec.dtype == "string" else np.zeros(shape, dtype=_numpy_dtype(spec))


def _varied(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    if spec.dtype == "string":
        return np.resize(np.array(_WORDS, dtype=object), shape)
    dtype = _numpy_dtype(spec)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return random.integers(0, 10, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


def _numpy_dtype(spec: TensorSpec) -> np.dtype:
    """The numpy type; those that numpy itself lacks (bfloat16) are TensorFlow's."""
    try:
        return spec.numpy_dtype
    except TypeError:
        import tensorflow as tf

        dtype: np.dtype = np.dtype(tf.as_dtype(spec.dtype).as_numpy_dtype)
        return dtype


def _exactness(dtype: str, computed_in: str) -> str:
    """The coarser of an output's type and the type that the model computes in, as a key of `_TOLERANCES`."""
    known = [_SAME_EXACTNESS.get(name, name) for name in (dtype, computed_in)]
    chosen = max((name for name in known if name in _TOLERANCES), key=lambda name: _TOLERANCES[name], default="float32")
    return "tf32" if chosen == "float32" and _uses_tf32() else chosen


def _uses_tf32() -> bool:
    """Whether float32 matrix products may be rounded to TensorFloat-32: on recent GPUs, by default."""
    tf = loaded()
    if tf is None or not tf.config.list_physical_devices("GPU"):
        return False
    return bool(tf.config.experimental.tensor_float_32_execution_enabled())


def _compare_numbers(
    name: str,
    live: np.ndarray,
    served: np.ndarray,
    exactness: str,
    rtol: float | None,
    atol: float | None,
    sides: tuple[str, str],
) -> float:
    wide = np.complex128 if live.dtype.kind == "c" else np.float64
    expected, found = live.astype(wide), served.astype(wide)
    size = np.abs(expected)
    largest_number = float(np.max(size, initial=0.0, where=np.isfinite(size)))
    relative, part = _TOLERANCES[exactness]
    relative = relative if rtol is None else rtol
    absolute = part * largest_number + _ROUNDINGS[exactness] if atol is None else atol
    difference = distances(expected, found)
    excess = difference - (absolute + relative * np.where(np.isfinite(size), size, 0.0))
    if excess.size and excess.max() > 0:
        position = np.unravel_index(int(np.argmax(excess)), excess.shape)
        row = f" in row {position[0]}" if position else ""
        raise ExportFailed(
            f"output {name!r} of {sides[1]} differs from {sides[0]}{row}: {found[position]:.6g} instead of "
            f"{expected[position]:.6g} (largest difference {difference.max():.3g}, allowed {absolute:.3g} + "
            f"{relative:.3g} of the value)",
            hint=_DIFFERENCE_HINT,
        )
    return float(difference.max(initial=0.0))


def _compare_exactly(name: str, live: np.ndarray, served: np.ndarray, sides: tuple[str, str]) -> None:
    differs = np.asarray(live != served)
    if not differs.any():
        return
    position = np.unravel_index(int(np.argmax(differs)), differs.shape)
    row = f" in row {position[0]}" if position else ""
    raise ExportFailed(
        f"output {name!r} of {sides[1]} differs from {sides[0]}{row}: {served[position]!r} instead of "
        f"{live[position]!r} ({int(differs.sum())} of {differs.size} values differ; they must be equal)",
        hint=_DIFFERENCE_HINT,
    )
