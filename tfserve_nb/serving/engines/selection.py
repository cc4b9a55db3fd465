"""Give a version its engines: convert what is missing, compare and measure, and let the best ones run it.

What was found lies beside the version (`artefacts`): whatever loads it later does not convert again, and on the same
machine does not measure again.

Thread: the one that deploys, the manager's, or an administrator's; one at a time for each version.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from ...errors import InvalidOption
from ...export.reasons import innermost
from ...temporary import TemporaryFolder
from ...types import DEFAULT_SIGNATURE, EngineMeasurement, Progress, ProgressEvent, SignatureSpec, no_progress
from . import conversion
from .accelerated import EngineServable
from .artefacts import Artefact, EngineRecord, fingerprint, this_machine
from .choice import choose, examine, rows_of, speed_note
from .engine import AUTO, TENSORFLOW, Engine, EngineKind, unsuited, versions_of
from .evidence import Evidence
from .kinds import KINDS, wanted_kinds
from .strange import GuardedEngine

_log = logging.getLogger(__name__)

RowsOf: TypeAlias = Callable[[SignatureSpec], Iterable[Evidence]]
"""Signature -> rows to try, those of users first."""

_ANY_SIZE = "batches of any size run here, and it needs time for each new one (--enable_batching pads them)"


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """How many rows the runs of a version have.

    Attributes:
        tried: the sizes that are compared and measured, increasing.
        are_all: whether there are no others, because batches are padded.
    """

    tried: tuple[int, ...]
    are_all: bool = True


_Artefacts: TypeAlias = dict[str, dict[str, Artefact]]


def accelerate(
    servable: EngineServable,
    wanted: str,
    rows: RowsOf,
    sizes: BatchSizes,
    progress: Progress = no_progress,
    *,
    measures_all: bool = False,
    is_strict: bool = False,
) -> None:
    """Let the engine that was asked for run a version; TensorFlow runs what it cannot, with the reason.

    Args:
        servable: the version.
        wanted: the name of an engine, `auto` or `tensorflow`.
        rows: what to compare on.
        sizes: the batch sizes that will be used.
        progress: called with each step.
        measures_all: compare and measure all engines although what was asked for is known, and try again to convert
            what could not be converted.
        is_strict: whether an engine that was asked for by its name has to run the default signature; where there is
            none, any.

    Raises:
        InvalidOption: if it cannot; nothing was changed then.
    """
    measured = AUTO if measures_all else wanted
    if measured == TENSORFLOW:
        servable.use({}, _known_table(servable))
        return
    obstacle = _obstacle(servable, measured)
    if obstacle:
        if is_strict:
            _check_runs(wanted, TENSORFLOW, obstacle)
        servable.use({}, (), (f"TensorFlow runs it: {obstacle}",))
        return
    record = servable.engine_folder.read()
    if measures_all or record is None or not _is_known(servable, record, measured):
        known = record.without_failures() if measures_all and record is not None else record
        record = _find_out(servable, measured, rows, sizes.tried, progress, known)
    left_out = {} if sizes.are_all else {kind.name: _ANY_SIZE for kind in KINDS.values() if kind.needs_sizes}
    engines, record = _loaded(servable, wanted, record, left_out)
    measurements = _table(wanted, record, left_out)
    if is_strict:
        needed = {DEFAULT_SIGNATURE} & servable.signatures.keys() or servable.signatures.keys()
        reasons = {
            row.reason for row in measurements if row.engine == wanted and row.signature in needed and row.reason
        }
        _check_runs(wanted, wanted if needed & engines.keys() else TENSORFLOW, "; ".join(sorted(reasons)))
    servable.use(engines, measurements, tuple(_notes(servable, wanted, engines, measurements, record)))


def _check_runs(wanted: str, chosen: str, reason: str) -> None:
    if wanted not in (AUTO, TENSORFLOW, chosen):
        raise InvalidOption(
            f"engine={wanted!r} cannot run this model: {reason}", hint=f"--engine {AUTO}, or --engine {TENSORFLOW}"
        )


def _obstacle(servable: EngineServable, wanted: str) -> str:
    """Why no engine is tried for a version, in words; "" when some are."""
    effects = servable.effects
    if effects.lasting:
        return f"{effects.lasting}, which no other engine does"
    if effects.randomness:
        return f"{effects.randomness}: its outputs cannot be compared"
    missing = [kind.missing for kind in wanted_kinds(wanted)]
    return "" if not all(missing) else "; ".join(missing)


def _is_known(servable: EngineServable, record: EngineRecord, wanted: str) -> bool:
    """Whether all is known here and now of the engines that may run a version."""
    kinds = [kind for kind in wanted_kinds(wanted) if not kind.missing]
    return record.machine == _place(servable) and all(
        kind.name in {*found.ms, *found.problems} and _kept(servable, kind, name, record) is not None
        for name, found in record.findings.items()
        for kind in kinds
    )


def _place(servable: EngineServable) -> str:
    """What measured times depend on: the machine, and the GPU where the version is for one."""
    return this_machine() if servable.gpu is None else f"{this_machine()}, GPU {servable.gpu}"


def _find_out(
    servable: EngineServable,
    wanted: str,
    rows: RowsOf,
    sizes: Sequence[int],
    progress: Progress,
    known: EngineRecord | None,
) -> EngineRecord:
    """Convert what is missing, compare and measure; what was found, also noted in the version's folder."""
    names = {*(kind.name for kind in wanted_kinds(wanted)), *(known.artefacts if known else ())}
    kinds = [kind for kind in KINDS.values() if kind.name in names and not kind.missing]
    _log.info("%s: converting and measuring for %s", servable.path, ", ".join(kind.name for kind in kinds))
    progress(ProgressEvent("converting", 0, 1))
    artefacts = _converted(servable, kinds, known)
    progress(ProgressEvent("converting", 1, 1))
    findings = {}
    for number, (name, signature) in enumerate(servable.signatures.items()):
        progress(ProgressEvent("measuring", number, len(servable.signatures)))
        engines, singles, problems = {}, {}, {}
        for kind in kinds:
            try:
                load = partial(_engine, servable, kind, signature, artefacts[kind.name][name], {})
                engines[kind.name] = load(servable.num_threads)
                if servable.num_threads > 1:
                    singles[kind.name] = load(1)
            except Exception as error:  # noqa: BLE001 - runtimes raise types of their own; it becomes a reason
                problems[kind.name] = artefacts[kind.name][name].problem or innermost(error)
        found = examine(signature, partial(servable.session().run, name), engines, rows(signature), sizes, singles)
        findings[name] = replace(found, problems={**found.problems, **problems})
    progress(ProgressEvent("measuring", 1, 1))
    record = EngineRecord(
        fingerprint(servable.path),
        servable.tags,
        {kind.name: kind.options for kind in kinds},
        versions_of(kinds),
        artefacts,
        findings,
        machine=_place(servable),
    )
    try:
        servable.engine_folder.write(record)
    except OSError as error:
        _log.warning("%s: what was found of engines cannot be noted: %s", servable.path, error.strerror or error)
    return record


def _converted(servable: EngineServable, kinds: Sequence[EngineKind], known: EngineRecord | None) -> _Artefacts:
    """What became of every signature for every engine; what was converted by the same versions is kept."""
    artefacts: _Artefacts = {kind.name: {} for kind in kinds}
    jobs: list[tuple[str, str]] = []
    for kind in kinds:
        for name, signature in servable.signatures.items():
            kept = _kept(servable, kind, name, known)
            problem = unsuited(signature) or kind.missing_converter
            if kept is not None:
                artefacts[kind.name][name] = kept
            elif problem:
                artefacts[kind.name][name] = Artefact(problem=problem)
            else:
                jobs.append((kind.name, name))
    try:
        for engine, name, artefact in _convert(servable, jobs):
            artefacts[engine][name] = artefact
    except OSError as error:  # a full disk keeps no version from being served
        why = Artefact(problem=f"there is no place for what is converted: {error.strerror or error}")
        for engine, name in jobs:
            artefacts[engine].setdefault(name, why)
    return artefacts


def _convert(servable: EngineServable, jobs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, Artefact]]:
    """What becomes of pairs of an engine and a signature.

    Raises:
        OSError: if it cannot be written.
    """
    with TemporaryFolder("tfserve-engines") as folder:
        files = [folder.path / f"{number}{KINDS[engine].suffix}" for number, (engine, _) in enumerate(jobs)]
        problems = conversion.convert(
            [
                conversion.Job(engine, str(servable.path.absolute()), servable.tags, name, str(file))
                for (engine, name), file in zip(jobs, files, strict=True)
            ]
        )
        for (engine, name), file, problem in zip(jobs, files, problems, strict=True):
            stored = Artefact(problem=problem) if problem else servable.engine_folder.store(engine, file, name)
            yield engine, name, stored


def _kept(servable: EngineServable, kind: EngineKind, signature: str, known: EngineRecord | None) -> Artefact | None:
    """What was converted before, if it is whole and would be converted in the same way again."""
    if known is None or signature not in known.artefacts.get(kind.name, {}):
        return None
    if known.options.get(kind.name) != kind.options:
        return None
    if any(known.versions.get(name) != version for name, version in versions_of([kind]).items()):
        return None
    artefact = known.artefacts[kind.name][signature]
    if artefact.file:
        try:
            servable.engine_folder.file_of(kind.name, artefact)
        except ValueError as error:
            _log.warning("it is converted anew: %s", error)
            return None
    return artefact


def _engine(
    servable: EngineServable,
    kind: EngineKind,
    signature: SignatureSpec,
    artefact: Artefact,
    guards: Mapping[str, Sequence[str]],
    num_threads: int,
) -> Engine:
    """Load an engine; raises whatever its runtime raises, and ValueError without a whole file."""
    file = servable.engine_folder.file_of(kind.name, artefact)
    return GuardedEngine(kind.load(file, signature, num_threads, servable.gpu), guards)


def _loaded(
    servable: EngineServable, wanted: str, record: EngineRecord, left_out: Mapping[str, str]
) -> tuple[dict[str, Engine], EngineRecord]:
    """The engines that are to run a version, by signature, and what is known now: one that cannot be loaded is out."""
    engines: dict[str, Engine] = {}
    for name, found in record.findings.items():
        while True:
            chosen, _ = choose(wanted, found, left_out)
            if chosen == TENSORFLOW:
                break
            try:
                artefact, guards = record.artefacts[chosen][name], found.guards.get(chosen, {})
                signature, threads = servable.signatures[name], 1 if chosen in found.single else servable.num_threads
                engines[name] = _engine(servable, KINDS[chosen], signature, artefact, guards, threads)
                break
            except Exception as error:  # noqa: BLE001 - runtimes raise types of their own; it becomes a reason
                _log.warning("%s: %s is not used: %s", servable.path, chosen, error)
                others = {engine: ms for engine, ms in found.ms.items() if engine != chosen}
                found = replace(found, ms=others, problems={**found.problems, chosen: innermost(error)})  # noqa: PLW2901
        record = replace(record, findings={**record.findings, name: found})
    return engines, record


def _known_table(servable: EngineServable) -> list[EngineMeasurement]:
    """What was measured on this machine before TensorFlow was asked for."""
    record = servable.engine_folder.read()
    return [] if record is None or record.machine != _place(servable) else _table(TENSORFLOW, record, {})


def _table(wanted: str, record: EngineRecord, left_out: Mapping[str, str]) -> list[EngineMeasurement]:
    """All that is known, also of engines that were tried for an earlier choice."""
    tried = [name for name in KINDS if name in record.artefacts]
    tables = (rows_of(name, wanted, found, tried, left_out) for name, found in record.findings.items())
    return list(itertools.chain.from_iterable(tables))


def _notes(
    servable: EngineServable,
    wanted: str,
    engines: Mapping[str, Engine],
    measurements: Sequence[EngineMeasurement],
    record: EngineRecord,
) -> Iterator[str]:
    """One line for each signature: what runs it, and why. It is named where a version has several."""
    for name in servable.signatures:
        what = name if len(servable.signatures) > 1 else "it"
        engine = engines.get(name)
        if engine is not None:
            yield f"{engine.name} runs {what}: {speed_note(engine.name, record.findings[name])}"
            continue
        reasons: dict[str, dict[str, None]] = {}
        for row in measurements:
            if row.signature == name and row.reason:
                reasons.setdefault(row.reason, {})[row.engine] = None
        yield "; ".join(
            (f"TensorFlow runs {what}", *(f"{' and '.join(found)}: {reason}" for reason, found in reasons.items()))
        )
    if wanted == AUTO:
        yield from (f"not tried: {kind.missing}" for kind in wanted_kinds(wanted) if kind.missing)
