"""Find the engine of a new version before it counts, and see that it runs there.

What is converted, compared and measured is kept in the version's folder, for whatever loads it: so a process that
serves the version can begin without TensorFlow.

Thread: the caller's.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import ExportFailed, InvalidOption, ModelNotServable, NotAvailable, ServingError
from ..export.arrays import given_batch
from ..export.check import VersionFacts
from ..export.endpoint import ExportSource
from ..export.signatures import main_signature
from ..export.single_file.source import single_file
from ..export.variants.variants import VARIANTS, no_variants_of
from ..export.warmup_requests import WARMUP_FILE
from ..server.handle import ServerHandle
from ..serving.batching.options import BatchingOptions
from ..serving.engines.accelerated import EngineServable, SavedModelLoader
from ..serving.engines.conversion import try_out
from ..serving.engines.engine import TENSORFLOW
from ..serving.engines.evidence import Evidence
from ..serving.engines.kinds import check_single_file
from ..serving.engines.saved_model.devices import is_processor
from ..serving.engines.selection import accelerate
from ..serving.versions.acceleration import known_rows, sizes_of
from ..serving.versions.source import VersionSource
from ..serving.versions.trial import Trial
from ..serving.versions.warmup import MAX_SEEN, Seen, warm_up
from ..types import Progress, ProgressEvent, Tensors
from .deploy_options import ExportOptions, ServeOptions


def engine_for(source: ExportSource, serve: ServeOptions, optimize: str | None) -> str:
    """What is to run a version: what was asked for, or what alone can.

    Args:
        source: what is exported.
        serve: names the engine.
        optimize: the variant, `auto`, or None.

    Raises:
        InvalidOption: if something was asked for that cannot.
    """
    if source.file is not None and optimize is not None:
        raise no_variants_of(source.description)
    runtime = VARIANTS[optimize].runtime if optimize in VARIANTS else ""
    runtime = runtime or ("" if source.file is None else source.file.engine)
    if not runtime:
        return serve.engine
    if serve.engine != TENSORFLOW:  # the default, which nobody has to ask for
        check_single_file(runtime, serve.engine, source.description)
    if serve.device is not None and not is_processor(serve.device):
        raise InvalidOption(
            f"device={serve.device!r}: {source.description} runs on the processor", hint="leave --device out"
        )
    return runtime


def facts_of(path: Path, source: ExportSource) -> VersionFacts:
    """What is known of a new version; one that is a single file has been run in a process of its own before.

    Raises:
        ExportFailed: if the file ended that process.
        ModelNotServable: if its runtime cannot load it; the message names what the user gave.
    """
    load = SavedModelLoader()
    if source.file is None:
        return load.facts(path)
    problem = try_out(path)
    if problem:
        raise ExportFailed(f"{source.description} cannot be run: {problem}", hint="export it again, in another way")
    try:
        return load.facts(path)
    except NotAvailable as error:
        message = error.message.replace(str(single_file(path)), source.description)
        raise ModelNotServable(message, hint=error.hint) from error


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
            signature = main_signature(servable.signatures)
            rows = given_batch(export.example_option, export.example, source.order, signature)
            given = Evidence(rows, f"the rows of --{export.example_option}")
        known = known_rows(servable, seen, given)
        accelerate(servable, serve.engine, known, sizes_of(batching), progress, is_strict=True)
        if any(map(servable.answering, servable.signatures)):
            # Here TensorFlow is at hand; who loads the version finds what was decided about rows that share runs.
            num_iterations = int((path / WARMUP_FILE).is_file())  # that there is none is said by whoever loads it
            source_here = VersionSource(path, batching, num_warmup_iterations=num_iterations)
            warm_up(Trial(servable), source_here, lambda *_: None, seen=seen)
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
