"""Load a version with its engine, and change what runs a loaded one.

Thread: the manager's, or the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...errors import InvalidOption
from ...export.signatures import main_signature
from ...types import EngineMeasurement, Progress, SignatureSpec, Tensors, no_progress
from ..batching.options import BatchingOptions
from ..engines.accelerated import EngineServable
from ..engines.engine import TENSORFLOW
from ..engines.evidence import GIVEN, Evidence
from ..engines.kinds import check_installed, check_single_file
from ..engines.selection import BatchSizes, RowsOf, accelerate
from ..engines.servable import Loader, Servable, SingleFileServable
from .source import VersionSource
from .warmup import Seen, evidence_for, nothing_seen, stored_rows


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


def known_rows(servable: EngineServable, seen: Seen = nothing_seen, given: Evidence | None = None) -> RowsOf:
    """The rows that are known of a version: given ones, stored warm-up requests, captured ones, else made-up ones.

    Args:
        servable: the version.
        seen: captured requests.
        given: rows of the user for the signature that answers by default.
    """
    stored = cache(partial(stored_rows, servable, servable.path))  # not read where nothing is compared

    def rows(signature: SignatureSpec) -> Iterator[Evidence]:
        if given is not None and signature.name == main_signature(servable.signatures).name:
            yield given
        yield from evidence_for(signature, stored().get(signature.name, ()), seen)

    return rows


def sizes_of(options: BatchingOptions) -> BatchSizes:
    """The batch sizes that a version is run with."""
    return BatchSizes(options.allowed_batch_sizes if options.is_enabled else (1,), options.is_enabled and options.pads)


def choose_engine(
    servable: Servable,
    source: VersionSource,
    engine: str | None,
    given: Tensors,
    seen: Seen,
    progress: Progress,
) -> list[EngineMeasurement]:
    """Let another engine run a loaded version, or measure anew; what was measured.

    Args:
        servable: the version, which goes on answering.
        source: where it comes from, and what was asked for before.
        engine: the name of an engine, `auto` or `tensorflow`; None measures all engines for what was asked for before.
        given: rows of the user for the signature that answers by default; may be empty.
        seen: captured requests.
        progress: called with each step.

    Raises:
        InvalidOption: if the engine was asked for by its name and cannot run the version; all is as before then.
    """
    if isinstance(servable, SingleFileServable):
        check_single_file(servable.engine, engine, str(source.path))
        return []
    if not isinstance(servable, EngineServable):
        raise InvalidOption(f"{source.path} is no SavedModel that engines could run", hint="--engine tensorflow")
    if engine is not None:
        check_installed(engine)
    rows = known_rows(servable, seen, Evidence(given, GIVEN) if given else None)
    sizes = sizes_of(source.options)
    accelerate(servable, engine or source.engine, rows, sizes, progress, measures_all=engine is None, is_strict=True)
    return list(servable.measurements)
