"""Find the engine of a new version before it counts: convert, compare and measure in its folder, for whatever loads it.

Thread: the caller's.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import ServingError
from ..export.arrays import by_name, given_as, named_batch
from ..export.endpoint import ExportSource
from ..export.signatures import main_signature
from ..server.handle import ServerHandle
from ..serving.batching.options import BatchingOptions
from ..serving.engines.accelerated import EngineServable
from ..serving.engines.evidence import Evidence
from ..serving.engines.selection import accelerate
from ..serving.versions.acceleration import known_rows, sizes_of
from ..serving.versions.warmup import MAX_SEEN, Seen
from ..types import Progress, ProgressEvent, Tensors
from .deploy_options import ExportOptions, ServeOptions


def prepare_engines(
    path: Path,
    source: ExportSource,
    serve: ServeOptions,
    export: ExportOptions,
    batching: BatchingOptions,
    seen: Seen,
    progress: Progress,
) -> None:
    """Convert a version for the engine that was asked for, and note in its folder what was found.

    Args:
        path: the version's folder.
        source: what it was exported from.
        serve: names the engine.
        export: the user's rows.
        batching: the batch sizes that will be used.
        seen: captured requests.
        progress: called with each step.

    Raises:
        InvalidOption: if the engine was asked for by its name and cannot run the version.
    """
    with contextlib.closing(EngineServable(path, serve.device)) as servable:
        given = None
        if export.example is not None:
            with given_as(export.example_option):
                rows = named_batch(by_name(export.example, source.order), main_signature(servable.signatures))
            given = Evidence(rows, f"the rows of --{export.example_option}")
        known = known_rows(servable, seen, given)
        accelerate(servable, serve.engine, known, sizes_of(batching), progress, is_strict=True)
        progress(ProgressEvent("measuring", 1, 1, "; ".join(servable.notes)))


def captured_by(server: ServerHandle, name: str) -> Seen:
    """The newest captured requests of a model, if it is served and some were captured."""

    def seen(signature: str) -> list[Tensors]:
        try:
            requests = server.models.captured(name, MAX_SEEN).requests if name in server.models.names else ()
        except ServingError:  # a server that cannot be reached: there are other rows
            return []
        return [one.inputs for one in requests if one.signature == signature and not one.is_redacted]

    return seen
