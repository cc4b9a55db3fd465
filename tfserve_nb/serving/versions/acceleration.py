"""Give a version its engines: convert what is missing, compare and measure, and let the best ones run it.

What was found lies beside the version (`engines.artefacts`): whatever loads it later does not convert again, and on the
same machine does not measure again.

Thread: the one that deploys, or the manager's.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from ...errors import InvalidOption
from ...export.reasons import innermost
from ...temporary import TemporaryFolder
from ...types import DEFAULT_SIGNATURE, EngineMeasurement, Progress, ProgressEvent, SignatureSpec, no_progress
from ..batching.options import BatchingOptions
from ..engines import conversion
from ..engines.accelerated import EngineServable
from ..engines.artefacts import (
    Artefact,
    EngineRecord,
    file_of,
    fingerprint,
    read_record,
    store,
    this_machine,
    write_record,
)
from ..engines.choice import choose, examine, rows_of, speed_note
from ..engines.engine import AUTO, TENSORFLOW, Engine, EngineKind, unsuited, versions_of
from ..engines.evidence import Evidence
from ..engines.kinds import KINDS, check_installed, wanted_kinds
from ..engines.servable import Loader, Servable
from ..engines.strange import GuardedEngine
from .source import VersionSource
from .warmup import Seen, evidence_for, nothing_seen, stored_rows

_log = logging.getLogger(__name__)

RowsOf: TypeAlias = Callable[[SignatureSpec], Iterable[Evidence]]
"""Signature -> rows to try, those of users first."""

_Artefacts: TypeAlias = dict[str, dict[str, Artefact]]


@runtime_checkable
class EngineLoader(Protocol):
    """A `Loader` whose versions engines can run."""

    def unopened(self, path: Path, device: str | None) -> Servable:
        """A version that TensorFlow has not loaded yet, if engines may run it; else as the loader itself."""


def load_version(loader: Loader, source: VersionSource, seen: Seen, progress: Progress = no_progress) -> Servable:
    """Load a version with the engine that its source names.

    Args:
        loader: loads it.
        source: where it comes from.
        seen: captured requests.
        progress: called with each step.
    """
    if source.engine == TENSORFLOW or not isinstance(loader, EngineLoader):
        return loader(source.path, source.device)
    servable = loader.unopened(source.path, source.device)
    if isinstance(servable, EngineServable):
        accelerate(servable, source.engine, known_rows(servable, seen), sizes_of(source.options), progress)
    return servable


def known_rows(servable: EngineServable, seen: Seen = nothing_seen) -> RowsOf:
    """The rows that are known of a version: stored warm-up requests, captured ones, and else made-up ones."""
    stored = stored_rows(servable, servable.path)
    return lambda signature: evidence_for(signature, stored.get(signature.name, ()), seen)


def sizes_of(options: BatchingOptions) -> tuple[int, ...]:
    """The batch sizes that a version is run with."""
    return options.allowed_batch_sizes if options.is_enabled else (1,)


def choose_engine(
    servable: Servable, source: VersionSource, engine: str | None, seen: Seen, progress: Progress
) -> list[EngineMeasurement]:
    """Let another engine run a loaded version, or measure anew; what was measured.

    Args:
        servable: the version, which goes on answering.
        source: where it comes from, and what was asked for before.
        engine: the name of an engine, `auto` or `tensorflow`; None measures all engines for what was asked for before.
        seen: captured requests.
        progress: called with each step.

    Raises:
        InvalidOption: if the engine was asked for by its name and cannot run the version; all is as before then.
    """
    if not isinstance(servable, EngineServable):
        raise InvalidOption(f"{source.path} is no SavedModel that engines could run", hint="--engine tensorflow")
    if engine is not None:
        check_installed(engine)
    rows, sizes = known_rows(servable, seen), sizes_of(source.options)
    accelerate(servable, engine or source.engine, rows, sizes, progress, measures_all=engine is None, is_strict=True)
    return list(servable.measurements)


def accelerate(
    servable: EngineServable,
    wanted: str,
    rows: RowsOf,
    sizes: Sequence[int],
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
        sizes: the batch sizes that will be used, increasing.
        progress: called with each step.
        measures_all: compare and measure all engines although what was asked for is known.
        is_strict: whether an engine that was asked for by its name has to run the default signature; where there is
            none, any.

    Raises:
        InvalidOption: if it cannot; nothing was changed then.
    """
    measured = AUTO if measures_all else wanted
    if measured == TENSORFLOW:
        servable.use({}, ())
        return
    obstacle = _obstacle(servable, measured)
    if obstacle:
        if is_strict:
            _check_runs(wanted, TENSORFLOW, obstacle)
        servable.use({}, (), (f"TensorFlow runs it: {obstacle}",))
        return
    record = read_record(servable.path)
    if measures_all or record is None or not _is_known(record, measured):
        record = _find_out(servable, measured, rows, sizes, progress, record)
    engines, record = _loaded(servable, wanted, record)
    measurements = _table(wanted, measured, record)
    if is_strict:
        needed = {DEFAULT_SIGNATURE} & servable.signatures.keys() or servable.signatures.keys()
        reasons = {
            row.reason for row in measurements if row.engine == wanted and row.signature in needed and row.reason
        }
        _check_runs(wanted, wanted if needed & engines.keys() else TENSORFLOW, "; ".join(sorted(reasons)))
    servable.use(engines, measurements, tuple(_notes(servable, engines, measurements, record)))


def _check_runs(wanted: str, chosen: str, reason: str) -> None:
    if wanted not in (AUTO, TENSORFLOW, chosen):
        raise InvalidOption(
            f"engine={wanted!r} cannot run this model: {reason}", hint=f"--engine {AUTO}, or leave it out"
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


def _is_known(record: EngineRecord, wanted: str) -> bool:
    """Whether all is known here and now of the engines that may run a version."""
    kinds = [kind for kind in wanted_kinds(wanted) if not kind.missing]
    here = versions_of(kinds)
    return (
        record.machine == this_machine()
        and all(kind.name in record.artefacts for kind in kinds)
        and all(record.versions.get(name) == version for name, version in here.items())
    )


def _find_out(
    servable: EngineServable,
    wanted: str,
    rows: RowsOf,
    sizes: Sequence[int],
    progress: Progress,
    known: EngineRecord | None,
) -> EngineRecord:
    """Convert what is missing, compare and measure; what was found, also noted in the version's folder."""
    kinds = [kind for kind in wanted_kinds(wanted) if not kind.missing]
    progress(ProgressEvent("converting", 0, 1))
    artefacts = _converted(servable, kinds, known)
    progress(ProgressEvent("converting", 1, 1))
    findings = {}
    for number, (name, signature) in enumerate(servable.signatures.items()):
        progress(ProgressEvent("measuring", number, len(servable.signatures)))
        engines, problems = {}, {}
        for kind in kinds:
            try:
                engines[kind.name] = _engine(servable, kind, signature, artefacts[kind.name][name])
            except Exception as error:  # noqa: BLE001 - runtimes raise types of their own; it becomes a reason
                problems[kind.name] = artefacts[kind.name][name].problem or innermost(error)
        found = examine(signature, partial(servable.session().run, name), engines, rows(signature), sizes)
        findings[name] = replace(found, problems={**found.problems, **problems})
    progress(ProgressEvent("measuring", 1, 1))
    record = EngineRecord(fingerprint(servable.path), versions_of(kinds), artefacts, findings, this_machine())
    try:
        write_record(servable.path, record)
    except OSError as error:
        _log.warning("%s: what was found of its engines cannot be kept: %s", servable.path, error)
    return record


def _converted(servable: EngineServable, kinds: Sequence[EngineKind], known: EngineRecord | None) -> _Artefacts:
    """What became of every signature for every engine; what was converted by the same versions is kept."""
    artefacts: _Artefacts = {kind.name: {} for kind in kinds}
    jobs: list[tuple[str, str]] = []
    for kind in kinds:
        for name, signature in servable.signatures.items():
            kept = _kept(servable.path, kind, name, known)
            problem = unsuited(signature)
            if kept is not None:
                artefacts[kind.name][name] = kept
            elif problem:
                artefacts[kind.name][name] = Artefact(problem=problem)
            else:
                jobs.append((kind.name, name))
    with TemporaryFolder("tfserve-engines") as folder:
        files = [folder.path / f"{number}{KINDS[engine].suffix}" for number, (engine, _) in enumerate(jobs)]
        problems = conversion.convert(
            [
                conversion.Job(engine, str(servable.path.absolute()), servable.tags, name, str(file))
                for (engine, name), file in zip(jobs, files, strict=True)
            ]
        )
        for (engine, name), file, problem in zip(jobs, files, problems, strict=True):
            made = Artefact(problem=problem) if problem else _stored(servable.path, engine, file, name)
            artefacts[engine][name] = made
    return artefacts


def _kept(path: Path, kind: EngineKind, signature: str, known: EngineRecord | None) -> Artefact | None:
    """What was converted before, if it is whole and the same versions would convert it again."""
    if known is None or signature not in known.artefacts.get(kind.name, {}):
        return None
    if any(known.versions.get(name) != version for name, version in versions_of([kind]).items()):
        return None
    artefact = known.artefacts[kind.name][signature]
    if artefact.file:
        try:
            file_of(path, kind.name, artefact)
        except ValueError as error:
            _log.warning("converted anew: %s", error)
            return None
    return artefact


def _stored(path: Path, engine: str, file: Path, signature: str) -> Artefact:
    try:
        return store(path, engine, file, signature)
    except OSError as error:
        return Artefact(problem=f"it cannot be kept in {path}: {error.strerror or error}")


def _engine(servable: EngineServable, kind: EngineKind, signature: SignatureSpec, artefact: Artefact) -> Engine:
    """Load an engine; raises whatever its runtime raises, and ValueError without a whole file."""
    return kind.load(file_of(servable.path, kind.name, artefact), signature, servable.num_threads)


def _loaded(servable: EngineServable, wanted: str, record: EngineRecord) -> tuple[dict[str, Engine], EngineRecord]:
    """The engines that are to run a version, by signature, and what is known now: one that cannot be loaded is out."""
    engines: dict[str, Engine] = {}
    for name, found in record.findings.items():
        while True:
            chosen, _ = choose(wanted, found)
            if chosen == TENSORFLOW:
                break
            try:
                artefact = record.artefacts[chosen][name]
                engines[name] = _engine(servable, KINDS[chosen], servable.signatures[name], artefact)
                break
            except Exception as error:  # noqa: BLE001 - runtimes raise types of their own; it becomes a reason
                _log.warning("%s: %s is not used: %s", servable.path, chosen, error)
                others = {engine: ms for engine, ms in found.ms.items() if engine != chosen}
                found = replace(found, ms=others, problems={**found.problems, chosen: innermost(error)})  # noqa: PLW2901
        guards = found.guards.get(chosen)
        if guards:
            engines[name] = GuardedEngine(engines[name], guards)
        record = replace(record, findings={**record.findings, name: found})
    return engines, record


def _table(wanted: str, measured: str, record: EngineRecord) -> list[EngineMeasurement]:
    tried = [kind.name for kind in wanted_kinds(measured) if kind.name in record.artefacts]
    tables = (rows_of(name, wanted, found, tried) for name, found in record.findings.items())
    return list(itertools.chain.from_iterable(tables))


def _notes(
    servable: EngineServable,
    engines: Mapping[str, Engine],
    measurements: Sequence[EngineMeasurement],
    record: EngineRecord,
) -> Iterator[str]:
    """One line for each signature: what runs it, and why."""
    for name in servable.signatures:
        engine = engines.get(name)
        if engine is not None:
            yield f"{engine.name} runs {name}: {speed_note(engine.name, record.findings[name])}"
            continue
        reasons = dict.fromkeys(
            f"{row.engine}: {row.reason}" for row in measurements if row.signature == name and row.reason
        )
        yield f"TensorFlow runs {name}; {'; '.join(reasons)}"
