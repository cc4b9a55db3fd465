"""Find the engine of a new version before it counts: convert, compare and measure in its folder, for whatever loads it.

Thread: the caller's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..export.arrays import by_name, given_as, named_batch
from ..export.endpoint import ExportSource
from ..export.signatures import main_signature
from ..serving.batching.options import BatchingOptions
from ..serving.engines.accelerated import EngineServable
from ..serving.engines.evidence import Evidence
from ..serving.versions.acceleration import accelerate, known_rows, sizes_of
from ..types import Progress, ProgressEvent, SignatureSpec
from .deploy_options import ExportOptions, ServeOptions


def prepare_engines(
    path: Path,
    source: ExportSource,
    serve: ServeOptions,
    export: ExportOptions,
    batching: BatchingOptions,
    progress: Progress,
) -> None:
    """Convert a version for the engine that was asked for, and note in its folder what was found.

    Args:
        path: the version's folder.
        source: what it was exported from.
        serve: names the engine.
        export: the user's rows.
        batching: the batch sizes that will be used.
        progress: called with each step.

    Raises:
        InvalidOption: if the engine was asked for by its name and cannot run the version.
    """
    with contextlib.closing(EngineServable(path, serve.device)) as servable:
        main = main_signature(servable.signatures)
        known = known_rows(servable)

        def rows(signature: SignatureSpec) -> Iterator[Evidence]:
            if export.example is not None and signature.name == main.name:
                with given_as(export.example_option):
                    given = named_batch(by_name(export.example, source.order), signature)
                yield Evidence(given, f"the rows of --{export.example_option}")
            yield from known(signature)

        accelerate(servable, serve.engine, rows, sizes_of(batching), progress, is_strict=True)
        progress(ProgressEvent("measuring", 1, 1, "; ".join(servable.notes)))
