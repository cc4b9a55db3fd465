"""Measures the variants of a model: each with each engine, in a process of its own, in turn with the model as it is.

The variants lie in folders as versions do. Engines get their files there as they do when a version is deployed, and a
version is loaded as a server loads it.

Only one variant is in memory beside the model as it is. All times are those of a machine that does what it does now:
how long a run took is how much longer than the model as it is in the same turns, times what that takes.

Thread: the caller's; it may be interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..agreement.kinds import AgreementOptions
from ..agreement.summary import Evidences
from ..errors import ServingError
from ..export.check import made_up_batches
from ..export.layout import folder_bytes
from ..export.signatures import main_signature, read_signatures
from ..serving.engines.accelerated import EngineServable
from ..serving.engines.artefacts import FOLDER
from ..serving.engines.choice import batches_of, in_turn
from ..serving.engines.engine import TENSORFLOW
from ..serving.engines.evidence import Evidence
from ..serving.engines.selection import BatchSizes, accelerate
from ..serving.versions.warmup import evidence_for, nothing_seen
from ..types import Progress, ProgressEvent, SignatureSpec, Tensors, VariantMeasurement, no_progress
from .judge import Expected, judge
from .probing import Probe, ProbeFailed, Subject, probing

SIZES = (1, 32)
"""Rows of the runs that are timed."""

ROWS_OF_A_RUN = 64
"""Rows that are compared at a time."""

Outputs: TypeAlias = Callable[[Tensors], Tensors]
"""The outputs for some rows."""


@dataclass(frozen=True, slots=True)
class MadeVariant:
    """A variant that was made, or not.

    Attributes:
        name: its name.
        folder: the version's folder; None when it was not made.
        problem: why it was not, in words.
        in_tensorflow_serving: whether TensorFlow Serving runs it.
    """

    name: str
    folder: Path | None
    problem: str = ""
    in_tensorflow_serving: bool = True


@dataclass(frozen=True, slots=True)
class Given:
    """What a user knows of a model, for its main signature.

    Attributes:
        rows: name -> array; None for none.
        live: the model in memory; None where the export itself is what others are compared with.
        options: how outputs are compared.
        evidence: what is known of the outputs.
    """

    rows: Tensors | None = None
    live: Outputs | None = None
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
    """
    measuring = _Measuring(made[0], given, engine)
    found: list[VariantMeasurement] = []
    progress(ProgressEvent("measuring", 0, len(made)))
    with probing(measuring.subject(made[0], TENSORFLOW)) as base:
        measuring.begin(base)
        for number, variant in enumerate(made):
            progress(ProgressEvent("measuring", number, len(made)))
            found += measuring.rows_of(variant)
    progress(ProgressEvent("measuring", len(made), len(made)))
    return found


class _Measuring:
    """What all variants are measured with.

    Args:
        base: the model as it is.
        given: by the user.
        engine: to be tried.
    """

    _base: Probe

    def __init__(self, base: MadeVariant, given: Given, engine: str) -> None:
        self._given = given
        self._engine = engine
        self._signature = main_signature(read_signatures(_folder(base)))
        self._batches = batches_of(self._signature, given.rows or _made_up(_folder(base), self._signature), SIZES)
        self._first = base
        self._expected: Expected | None = None
        self._base_ms: dict[int, float] = {}

    def subject(self, variant: MadeVariant, engine: str) -> Subject:
        """What a process loads."""
        return Subject(_folder(variant), engine, self._signature.name, self._batches)

    def begin(self, base: Probe) -> None:
        """Measure the model as it is, and ask it, or the live model, for what the others should answer."""
        self._base = base
        for size in self._batches:
            self._base_ms[size] = _timed(in_turn({"": partial(base.turn, size)})[""])
        given = self._given
        if given.rows is not None:
            outputs = self._outputs(given.live or base.run, given.rows)
            self._expected = Expected(given.rows, outputs, _num_rows(given.rows), given.options, given.evidence)

    def rows_of(self, variant: MadeVariant) -> Iterator[VariantMeasurement]:
        """The rows of one variant."""
        if variant.folder is None:
            yield VariantMeasurement(
                variant.name, TENSORFLOW, in_tensorflow_serving=False, reason=variant.problem, is_usable=False
            )
            return
        for engine, problem in {TENSORFLOW: "", **self._problems(variant)}.items():
            row = VariantMeasurement(
                variant.name,
                engine,
                disk_bytes=_disk_bytes(variant.folder, engine),
                in_tensorflow_serving=variant.in_tensorflow_serving and engine == TENSORFLOW,
                reason=problem,
                is_usable=not problem,
            )
            yield row if problem else self._measured(row, variant)

    def _problems(self, variant: MadeVariant) -> dict[str, str]:
        """Engine -> why it cannot run a variant, "" if it can; what that takes is noted in the variant's folder."""
        rows = self._given.rows

        def known(signature: SignatureSpec) -> Iterator[Evidence]:
            if rows is not None and signature.name == self._signature.name:
                yield Evidence(rows, "the rows given")
            yield from evidence_for(signature, (), nothing_seen)

        with contextlib.closing(EngineServable(_folder(variant))) as servable:
            accelerate(servable, self._engine, known, BatchSizes(SIZES))
            found = [row for row in servable.measurements if row.signature == self._signature.name]
        return {row.engine: "" if row.agrees else row.reason for row in found if row.engine != TENSORFLOW}

    def _measured(self, row: VariantMeasurement, variant: MadeVariant) -> VariantMeasurement:
        if variant is self._first and row.engine == TENSORFLOW:
            return self._with(row, self._base, self._base_ms)
        try:
            with probing(self.subject(variant, row.engine)) as probe:
                return self._with(row, probe, {size: self._ms(probe, size) for size in self._batches})
        except ProbeFailed as error:
            return replace(row, reason=str(error), is_usable=False)

    def _ms(self, probe: Probe, size: int) -> float:
        """The time of a run, from runs in turn with those of the model as it is."""
        took = in_turn({"base": partial(self._base.turn, size), "this": partial(probe.turn, size)})
        return self._base_ms[size] * _timed(took["this"]) / _timed(took["base"])

    def _with(self, row: VariantMeasurement, probe: Probe, ms: Mapping[int, float]) -> VariantMeasurement:
        row = replace(row, load_s=probe.loaded.load_s, memory_bytes=probe.loaded.memory_bytes, ms=dict(ms))
        if self._expected is None:
            return row
        found = judge(self._expected, self._outputs(probe.run, self._expected.inputs))
        return replace(
            row,
            agreement=found.agreement,
            largest_difference=found.largest_difference,
        )

    def _outputs(self, run: Outputs, rows: Tensors) -> Tensors:
        """The outputs for all rows, some at a time where inputs and outputs count rows."""
        specs = (*self._signature.inputs.values(), *self._signature.outputs.values())
        if not all(spec.is_batched for spec in specs):
            return run(rows)
        parts = [
            run({name: array[first : first + ROWS_OF_A_RUN] for name, array in rows.items()})
            for first in range(0, _num_rows(rows), ROWS_OF_A_RUN)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _folder(variant: MadeVariant) -> Path:
    assert variant.folder is not None  # noqa: S101 - it is asked for made variants only
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
    raise ProbeFailed("rows made from the signature do not suit the model: give some")


def _num_rows(inputs: Tensors) -> int:
    return max((len(array) for array in inputs.values() if array.ndim), default=1)


def _timed(took: float | str) -> float:
    """A measured time.

    Raises:
        ProbeFailed: with the reason why there is none.
    """
    if isinstance(took, str):
        raise ProbeFailed(took)
    return took
