"""Measures the variants of a model: each with each engine, in a process of its own, in turn with the model as it is.

The variants lie in folders as versions do. Engines get their files there as they do when a version is deployed, and a
version is loaded as a server loads it.

Only one variant is in memory beside the model as it is. The machine may be busier now than a minute ago: how long a run
takes is how much longer it takes than one of the model as it is in the same turns, times what that takes in the median
of all turns.

Thread: the caller's; it may be interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias  # labels of the user

from ..agreement.kinds import AgreementOptions
from ..agreement.summary import Evidences
from ..errors import ServingError
from ..export.arrays import given_as
from ..export.check import made_up_batches
from ..export.layout import folder_bytes
from ..export.signatures import main_signature, read_signatures
from ..export.variants.variants import VARIANTS
from ..serving.engines.accelerated import EngineServable
from ..serving.engines.artefacts import FOLDER
from ..serving.engines.choice import batches_of, in_turn
from ..serving.engines.engine import TENSORFLOW
from ..serving.engines.evidence import MADE_UP, Evidence
from ..serving.engines.kinds import wanted_kinds
from ..serving.engines.selection import BatchSizes, accelerate
from ..serving.versions.warmup import evidence_for, nothing_seen
from ..types import Progress, ProgressEvent, SignatureSpec, Tensors, VariantMeasurement, no_progress
from .gate import Run, check_variant_rows
from .probing import Probe, ProbeFailed, Subject, probing

SIZES = (1, 32)
"""Rows of the runs that are timed."""

_Key: TypeAlias = tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class MadeVariant:
    """A variant that was made, or not.

    Attributes:
        name: a key of `VARIANTS`.
        folder: the version's folder; None when it was not made.
        problem: why it was not, in words.
        notes: what users have to know of it, one line each.
    """

    name: str
    folder: Path | None
    problem: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """What a user knows of a model, for its main signature.

    Attributes:
        rows: name -> array; None for none.
        labels: the right answer for each of the rows, or output name -> these; None without any.
        live: runs the model in memory; None where the export itself is what others are compared with.
        options: how outputs are compared.
        evidence: what is known of the outputs.
    """

    rows: Tensors | None = None
    labels: Any = None
    live: Run | None = None
    options: AgreementOptions = field(default_factory=AgreementOptions)
    evidence: Evidences | None = None


def measure_variants(
    made: Sequence[MadeVariant], given: Given, engine: str, progress: Progress = no_progress
) -> list[VariantMeasurement]:
    """Measure variants.

    Args:
        made: the variants; the first is the model as it is, whose folder is there.
        given: rows to compare on, their labels, and what they are compared with.
        engine: the engine to try beside TensorFlow; `auto` for all that are installed, `tensorflow` for none.
        progress: called with each step.

    Returns:
        A row for each variant and engine, in order; none is chosen yet.

    Raises:
        ProbeFailed: if the model as it is cannot be measured.
        InvalidOption: if there is not one label for each row.
    """
    found: list[VariantMeasurement] = []
    progress(ProgressEvent("measuring", 0, len(made), made[0].name))
    folder = _folder(made[0])
    signature = main_signature(read_signatures(folder))
    if given.rows is None:
        rows = Evidence(_made_up(folder, signature), MADE_UP)
    else:
        rows = Evidence(given.rows, "the rows given")
    with probing(TENSORFLOW) as base, contextlib.ExitStack() as second:
        measuring = _Measuring(base, signature, rows, given, engine)
        if any(variant.folder and not VARIANTS[variant.name].runtime for variant in made[1:]):
            # TensorFlow takes seconds to import, on one core: both do so at once, before anything is measured.
            measuring.ahead = second, second.enter_context(probing(TENSORFLOW))
            measuring.ahead[1].wait()
        for number, variant in enumerate(made):
            progress(ProgressEvent("measuring", number, len(made), variant.name))
            found += measuring.rows_of(variant)
    progress(ProgressEvent("measuring", len(made), len(made)))
    return [measuring.in_ms(row) for row in found]


class _Measuring:
    """What all variants are measured with.

    Args:
        base: loads the model as it is, run by TensorFlow.
        signature: what is run.
        rows: what outputs are compared on.
        given: by the user.
        engine: to be tried.

    Attributes:
        ahead: a process for the next variant that TensorFlow runs, and what ends it; None unless there is one.
    """

    def __init__(self, base: Probe, signature: SignatureSpec, rows: Evidence, given: Given, engine: str) -> None:
        self._base = base
        self._base_ms: dict[int, list[float]] = {}
        self._batches = batches_of(signature, rows.rows, SIZES)
        self._signature = signature
        self._rows = rows
        self._given = given
        self._engine = engine
        self._expected = _remembering(given.live or base.run)
        self.ahead: tuple[contextlib.ExitStack, Probe] | None = None

    def rows_of(self, variant: MadeVariant) -> Iterator[VariantMeasurement]:
        """The rows of one variant, of the model as it is first; their times are multiples of its own.

        Raises:
            ProbeFailed: if the model as it is cannot be measured.
        """
        if variant.folder is None:
            yield VariantMeasurement(
                variant.name, "", in_tensorflow_serving=False, reason=variant.problem, is_usable=False
            )
            return
        runtime = VARIANTS[variant.name].runtime
        if runtime:
            yield self._measured(self._row(variant.name, variant.folder, runtime), variant.folder, None)
            return
        with self._tensorflow() as tensorflow:
            for engine, problem in {TENSORFLOW: "", **self._problems(variant.folder)}.items():
                row = self._row(variant.name, variant.folder, engine, problem)
                probe = tensorflow if engine == TENSORFLOW else None
                yield row if problem else self._measured(row, variant.folder, probe)

    @contextlib.contextmanager
    def _tensorflow(self) -> Iterator[Probe]:
        """A process for a variant that TensorFlow runs."""
        if not self._base_ms:
            yield self._base
        elif self.ahead is not None:
            (end, probe), self.ahead = self.ahead, None
            with end:
                yield probe
        else:  # it imports TensorFlow while signatures are converted for engines
            with probing(TENSORFLOW) as probe:
                yield probe

    def in_ms(self, row: VariantMeasurement) -> VariantMeasurement:
        """The row with times in milliseconds."""
        return replace(row, ms={size: times * median(self._base_ms[size]) for size, times in row.ms.items()})

    def _row(self, name: str, folder: Path, engine: str, problem: str = "") -> VariantMeasurement:
        """What is known of a variant by an engine before it is measured."""
        return VariantMeasurement(
            name,
            engine,
            disk_bytes=_disk_bytes(folder, engine),
            in_tensorflow_serving=engine == TENSORFLOW and VARIANTS[name].loads_in_tensorflow_serving,
            reason=problem,
            is_usable=not problem,
        )

    def _problems(self, folder: Path) -> dict[str, str]:
        """Engine -> why it cannot run a variant, "" if it can; what that takes is noted in the variant's folder."""

        def known(signature: SignatureSpec) -> Iterator[Evidence]:
            if signature.name == self._signature.name:
                yield self._rows
            yield from evidence_for(signature, (), nothing_seen)

        with contextlib.closing(EngineServable(folder)) as servable:
            accelerate(servable, self._engine, known, BatchSizes(SIZES))
            found = [row for row in servable.measurements if row.signature == self._signature.name]
        # What was tried when the version was deployed stays among what was measured.
        wanted = {kind.name for kind in wanted_kinds(self._engine)}
        return {row.engine: "" if row.agrees else row.reason for row in found if row.engine in wanted}

    def _measured(self, row: VariantMeasurement, folder: Path, probe: Probe | None) -> VariantMeasurement:
        """A row with all that is known of it, measured by a process that is there or one for it alone."""
        process = probing(row.engine) if probe is None else contextlib.nullcontext(probe)
        try:
            with process as loaded:
                loaded.load(Subject(folder, row.engine, self._signature.name, self._batches))
                return self._judged(row, loaded, {size: self._times(loaded, size) for size in self._batches})
        except ProbeFailed as error:
            if probe is self._base:
                raise
            return replace(row, reason=str(error), is_usable=False)

    def _times(self, probe: Probe, size: int) -> float:
        """How many times as long a run takes as one of the model as it is, from runs of both in turn."""
        turns = {"base": partial(self._base.turn, size), "this": partial(probe.turn, size)}
        took = in_turn(turns if probe is not self._base else {"base": turns["base"]})
        base_ms = _timed(took["base"])
        self._base_ms.setdefault(size, []).append(base_ms)
        return _timed(took.get("this", base_ms)) / base_ms

    def _judged(self, row: VariantMeasurement, probe: Probe, ms: Mapping[int, float]) -> VariantMeasurement:
        """With what was measured, and what the gate says of it."""
        given = self._given
        with given_as("labels"):
            check = check_variant_rows(
                row.variant,
                self._expected,
                probe.run,
                [self._rows],
                given.evidence,
                given.options,
                given.labels,
                is_batched=all(spec.is_batched for spec in self._signature.inputs.values()),
            )
        return replace(
            row,
            load_s=probe.loaded.load_s,
            memory_bytes=probe.loaded.memory_bytes,
            ms=ms,
            agreement=check.share,
            largest_difference=check.largest_difference,
            accuracy=check.accuracy,
            reason=check.reason,
            is_usable=check.passed,
        )


def _folder(variant: MadeVariant) -> Path:
    assert variant.folder is not None  # noqa: S101 - the model as it is was made
    return variant.folder


def _disk_bytes(folder: Path, engine: str) -> int:
    """The version's files with those of one engine."""
    engines = folder / FOLDER
    return folder_bytes(folder) - folder_bytes(engines) + folder_bytes(engines / engine)


def _made_up(folder: Path, signature: SignatureSpec) -> Tensors:
    """Rows that the model can run.

    Raises:
        ProbeFailed: if none are found.
    """
    with contextlib.closing(EngineServable(folder)) as servable:
        for batch in made_up_batches(signature):
            try:
                servable.run(signature.name, batch)
            except ServingError:
                continue
            return batch
    raise ProbeFailed("rows made from the signature do not suit it; give some: --check")


def _remembering(run: Run) -> Run:
    """The same; what it answered for a part of the rows is kept, since every variant is asked for the same parts."""
    known: dict[_Key, Tensors] = {}

    def ask(inputs: Tensors) -> Tensors:
        key = tuple((array.ctypes.data, array.shape) for array in inputs.values())
        if key not in known:
            known[key] = run(inputs)
        return known[key]

    return ask


def _timed(took: float | str) -> float:
    """A measured time.

    Raises:
        ProbeFailed: with the reason why there is none.
    """
    if isinstance(took, str):
        raise ProbeFailed(took)
    return took
