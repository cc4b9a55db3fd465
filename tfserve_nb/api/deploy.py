"""Deploy a model: export, check, load, warm up, switch. The one place that wires export, core and server together.

Thread: the caller's; it may be interrupted, which leaves the served version untouched.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any  # models and arrays of the user

from ..agreement.kinds import AgreementOptions
from ..errors import InvalidOption, ModelNotFound, ServingError, VersionExists
from ..experiment.plan import Limits, Plan
from ..export.arrays import by_name, given_batch
from ..export.check import CheckReport, in_words, nan_notes, verify_against_live
from ..export.endpoint import ExportSource
from ..export.graph.live import left_alone
from ..export.layout import check_folder, check_name, delete_version, list_versions, next_version
from ..export.provenance.code import Code, running_cell
from ..export.provenance.provenance import ProvenanceInput, provenance_input, store
from ..export.saved_model import ExportedVersion, export_version
from ..export.signatures import main_signature
from ..export.single_file.source import name_of, single_file
from ..export.source import owners_of, prepare_source
from ..export.warmup_requests import write_warmup_requests
from ..replay.result import ReplayLimits
from ..server.handle import ServerHandle
from ..server.settings import AUTO_WORKERS
from ..serving.batching.options import DEFAULT_MAX_BATCH_SIZE, DEFAULT_MAX_ENQUEUED_BATCHES, BatchingOptions
from ..serving.engines.accelerated import SavedModelLoader
from ..serving.engines.engine import TENSORFLOW
from ..serving.engines.saved_model.devices import isolation_problem
from ..serving.models.placement import DEFAULT_KEEP, Placement
from ..serving.models.state_store import StateStore
from ..serving.versions.sharing import sharing_notes
from ..serving.versions.source import VersionSource
from ..serving.versions.warmup import Seen
from ..types import Progress, ProgressEvent, Tensors, no_progress
from .deploy_options import ExportOptions, ServeOptions, compared_as, guard_of, limits_of
from .deployment import DEFAULT_BASE_PATH, Deployment
from .engine_check import captured_by, engine_for, facts_of, prepare_engines
from .optimize import Comparison, optimize_version
from .replay_gate import check_captured, only_if_replayed
from .row_check import note_check_rows
from .servers import ListenOptions, ensure_child, ensure_kernel, folder_of, server_of, settle, workers_in_words


def deploy(  # noqa: PLR0913 - the options of %deploy
    model: Any, name: str | None = None, *,
    version: int | None = None, base_path: str | Path | None = None, optimize: str | None = None,
    check: Any = None, warmup: Any = None, labels: Any = None,
    label: str | None = None, stage: bool = False, canary: float | None = None, shadow: float | None = None,
    keep: int = DEFAULT_KEEP,
    device: str | None = None, engine: str = TENSORFLOW, isolate: bool = False,
    slo_p99_ms: float | None = None,
    check_replay: bool | ReplayLimits = False, kind: str | None = None, tolerance: float | None = None,
    force: bool = False,
    port: int | None = None, grpc_port: int | None = None, workers: int | str | None = None, auth: bool | None = None,
    frontends: int | str | None = None,
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE, batch_timeout_micros: int = 0,
    max_enqueued_batches: int = DEFAULT_MAX_ENQUEUED_BATCHES, allowed_batch_sizes: Sequence[int] = (),
    provenance: bool = True, data: Any = None, seed: int | None = None, metrics: Any = None,
    code: Code | None = None, progress: Progress = no_progress,
) -> Deployment:  # fmt: skip
    """Export a model as the next version, check it, load it, warm it up, and switch to it.

    If anything fails, nothing is left behind, and the version before goes on serving.

    Args:
        model: a Keras model, a `tf.Module`, a `tf.function`, an `onnx.ModelProto`, the path of a SavedModel, of an
            `.onnx` or a `.tflite` file, or a model of MLflow: `models:/NAME@ALIAS`, `models:/NAME/3`, `runs:/RUN/PATH`.
        name: the name to serve it under; a Keras model's own name, or that of the file or in MLflow, by default.
        version: the version's number; the next free one by default.
        base_path: the folder for `NAME/VERSION`; `tfserve_models` by default.
        optimize: a smaller or faster form of the version: such as `float16`, or `auto` for the best of those that
            agree on every row of `check`. It is deployed only if it answers as the model does; see docs/variants.md.
        check: rows to compare the exported with the live model on, instead of those of `warmup` or made-up ones; they
            also show what a subclassed model takes.
        warmup: rows to warm up with (array or dict), instead of made-up ones; they are stored with the version, for
            TensorFlow Serving too.
        labels: with `optimize`: the right answer for each row of `check`: the accuracies of both are compared too.
        label: point this label to the new version.
        stage: load the new version, but give it no traffic.
        canary: percent of the traffic for the new version; all of it by default.
        shadow: load the new version without traffic, and give it copies of this percentage of the requests that the
            other versions get.
        keep: versions that stay loaded, for instant rollback.
        device: TensorFlow device such as `/CPU:0`.
        engine: what runs it: `tensorflow`; `onnx` or `litert`, which run the same graph faster where they can; `auto`
            compares each with TensorFlow, measures it on this machine and takes the fastest that agrees. See
            docs/engines.md.
        isolate: serve it in a child process, which a busy kernel cannot slow down. A model stays where it is served.
        slo_p99_ms: go back to the version before, by itself, when over 1 % of the new version's requests take longer
            than this many milliseconds, requests fail, or outputs hold NaN; an experiment watches, see `ab_test`.
        check_replay: replay captured requests onto the new version before it gets any traffic, and deploy it only if it
            keeps the limits (those of `ReplayLimits` for True).
        kind: with `check_replay` and `optimize`: what the outputs are: `classification`, `regression`, `exact` or
            `random`; by default found out, see docs/agreement.md.
        tolerance: with `check_replay` and `optimize`: by how much numbers of a regression may differ, relative; 0.001
            by default.
        force: give it its requests although no row that was tried could be run, and the number of a deleted version.
            Without it a version without such rows is refused, and the version before goes on answering; staged, it
            stays without traffic.
        port: TCP port of the server, when it is started by this call; a free one by default.
        grpc_port: TCP port for gRPC, 0 for a free one; no gRPC by default.
        workers: processes that hold HTTP, gRPC and codecs in front of the server, which then does little for each
            request; none by default. `auto` is as many as fit the cores, and none in the kernel; see docs/scaling.md.
        auth: False starts the server without a token; None keeps what is.
        frontends: another name for `workers`.
        max_batch_size: most rows that one run of the model gets; larger requests are split.
        batch_timeout_micros: how long the first request of a batch may wait for company.
        max_enqueued_batches: how many full batches may wait; more is rejected at once.
        allowed_batch_sizes: sizes that runs are padded up to; powers of two by default.
        provenance: store in the version where it comes from: code, commit, packages, and what follows here.
        data: the training data, of which a fingerprint is stored: an array, a DataFrame, or a dict of arrays.
        seed: the seed of the training; by default what `keras.utils.set_random_seed` was given.
        metrics: name -> number; by default those of the last epoch of `fit`.
        code: the code that deploys; by default the cell that runs, or the script.
        progress: called with each step, on the calling thread.

    Raises:
        InvalidOption: if an option has a value that is not allowed.
        ModelNotServable: if the model cannot be exported.
        ExportFailed: if writing failed, or the exported model's outputs differ from the live one's.
        ReplayFailed: if the new version did not keep the limits of `check_replay`.
        FailedPrecondition: if no row that was tried could be run; see `force`.
        ServingError: if the version cannot be loaded.
    """
    name = check_name(name if name is not None else _name_of(model))
    placement = Placement(label, stage=stage, canary=canary, shadow=shadow, keep=keep)
    serve = ServeOptions(
        device=device,
        engine=engine,
        isolate=isolate,
        slo_p99_ms=slo_p99_ms,
        check_replay=check_replay,
        kind=kind,
        tolerance=tolerance,
        force=force,
    )
    export = ExportOptions(
        version=version, base_path=base_path, optimize=optimize, check=check, warmup=warmup, labels=labels
    )
    compared = compared_as(export, serve)
    request = DeployRequest(
        name,
        _folder(name, base_path),
        export,
        placement,
        BatchingOptions(max_batch_size, batch_timeout_micros, max_enqueued_batches, tuple(allowed_batch_sizes)),
        serve,
        ListenOptions(port=port, grpc_port=grpc_port, workers=_num_workers(workers, frontends), auth=auth),
        compared,
        limits_of(serve.check_replay, compared),
        guard_of(serve.slo_p99_ms, placement),
        provenance_input(code or running_cell(), data, seed, metrics) if provenance else None,
    )
    if request.limits is not None:
        check_captured(name)
    server = _server(request, progress)
    try:
        exported = _export_and_place(server, model, request, progress)
        _say_what_runs_alone(server, exported, progress)
        if request.listen.workers == AUTO_WORKERS:
            progress(ProgressEvent("switching", 1, 1, workers_in_words(server)))
    finally:
        settle()
    done = f"version {exported.version} of {name}{_without_requests(server, exported)}"
    progress(ProgressEvent("done", 1, 1, done, exported.version))
    return Deployment(name)


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """The arguments of `deploy`, checked and resolved.

    Attributes:
        name: the model's name.
        folder: what holds `NAME/VERSION`.
        export: what is written.
        placement: which requests the version gets.
        batching: how it batches.
        serve: what runs it.
        listen: how the server is reached.
        compared: how outputs are compared with those of a variant or another version.
        limits: what it must keep in a replay before it gets traffic; None for no replay.
        guard: what an experiment watches once it has traffic; None for no watch.
        provenance: what is stored about where it comes from; None for nothing.
    """

    name: str
    folder: Path
    export: ExportOptions
    placement: Placement
    batching: BatchingOptions
    serve: ServeOptions
    listen: ListenOptions
    compared: AgreementOptions
    limits: ReplayLimits | None
    guard: Limits | None
    provenance: ProvenanceInput | None


def _export_and_place(server: ServerHandle, model: Any, request: DeployRequest, progress: Progress) -> ExportedVersion:
    """Write the next version, and serve it."""
    from ..scaleout.mlflow.fetch import fetched

    name, folder, placement, export = request.name, request.folder, request.placement, request.export
    with fetched(model, progress) as given, left_alone(owners_of(given.model)):
        progress(ProgressEvent("exporting", 0, 1))
        source = prepare_source(given.model, example=export.example, option=export.example_option)
        source = replace(source, description=given.origin or source.description)
        engine = engine_for(source, request.serve, export.optimize)
        verify = _checks(source, request, captured_by(server, name), progress)
        used = _used_versions(server, name, folder)
        if not request.serve.force:
            _check_unused(export.version, used, folder / name)
        exported = export_version(source, folder, name, version=export.version, above=max(used), verify=verify)
    with _removed_unless_used(server, exported):
        loaded = VersionSource(
            exported.path,
            request.batching,
            request.serve.device,
            deployed_at=time.time(),
            is_trusted=request.serve.force or export.check is not None,
            engine=engine,
        )
        if request.limits is None:
            place(server, exported, loaded, folder, placement, request.guard, progress)
        else:
            staged = Placement(stage=True, keep=placement.keep)
            server.models.deploy(name, exported.version, loaded, folder, staged, progress)
            with only_if_replayed(server, name, exported.version, request.limits, folder, progress):
                place(server, exported, loaded, folder, placement, request.guard, progress)
    if export.check is not None:
        rows: Any = by_name(export.check, source.order)
        with contextlib.suppress(ServingError):  # it is served; engines can be compared on other rows
            server.models.give_rows(name, rows, exported.version)
    return exported


def _say_what_runs_alone(server: ServerHandle, exported: ExportedVersion, progress: Progress) -> None:
    for status in server.models.model_status(exported.name).versions:
        if status.version == exported.version and any(status.alone.values()):
            progress(ProgressEvent("switching", 1, 1, "; ".join(sharing_notes(status.alone))))


def _used_versions(server: ServerHandle, name: str, folder: Path) -> set[int]:
    """The numbers that versions of the model had, here or in an earlier kernel, as far as known; 0 when there are none.

    The last one that this server has served is among them.
    """
    used = {server.models.highest_version(name)}
    with contextlib.suppress(ServingError, OSError):  # without its history, what is on disk still counts
        used |= StateStore(folder).used_versions(name)
    return used


def _check_unused(version: int | None, used: Collection[int], model_dir: Path) -> None:
    """Refuse the number of a version that is gone: clients that name it would get another one in its place."""
    if version in used and version not in list_versions(model_dir):
        free = next_version(model_dir, above=max(used))
        raise VersionExists(
            f"version {version} of model {model_dir.name} was deleted; numbers of deleted versions are not used again",
            hint=f"leave --version out to get {free}; --force uses {version} again",
        )


def _without_requests(server: ServerHandle, exported: ExportedVersion) -> str:
    """What to say of a version that is loaded and cannot answer."""
    with contextlib.suppress(ServingError):
        for status in server.models.model_status(exported.name).versions:
            if status.version == exported.version and status.problem:
                return f", loaded without traffic, since no row that was tried could be run: {status.problem}"
    return ""


def _num_workers(workers: int | str | None, frontends: int | str | None) -> int | str | None:
    """One value from an option with two names."""
    if frontends is None or workers == frontends:
        return workers
    if workers is not None:
        raise InvalidOption(f"workers={workers} and frontends={frontends} are the same option", hint="workers=N alone")
    return frontends


def place(
    server: ServerHandle,
    exported: ExportedVersion,
    source: VersionSource,
    folder: Path,
    placement: Placement,
    guard: Limits | None,
    progress: Progress,
) -> None:
    """Load a version and give it its requests.

    Args:
        server: the server.
        exported: the version.
        source: where it comes from.
        folder: the base folder.
        placement: which requests it gets.
        guard: limits that it must keep once it has requests; None for no watch.
        progress: called with each step.

    Raises:
        ServingError: if it cannot be loaded, or the experiment that watches it cannot begin.
    """
    name, version = exported.name, exported.version
    before = server.models.model_status(name).default_version if name in server.models.names else None
    if guard is None or before is None:
        server.models.deploy(name, version, source, folder, placement, progress)
        if guard is not None:
            progress(ProgressEvent("switching", 1, 1, "not watched: there is no earlier version to go back to"))
        return
    # The label follows when all else is well: one that had moved would keep the version from being unloaded.
    staged = replace(placement, stage=True, canary=None, label=None)
    server.models.deploy(name, version, source, folder, staged, progress)
    split = 100.0 if placement.canary is None else placement.canary
    try:
        _end_watch(server, name, before)
        server.experiments.start(Plan(name, before, version, split=split, shadow=0.0, limits=guard))
    except BaseException:
        with contextlib.suppress(ServingError):  # the error that led here is what counts
            server.models.undeploy(name, version)
        raise
    if placement.label is not None:
        server.models.set_label(name, placement.label, version)


def _end_watch(server: ServerHandle, name: str, version: int) -> None:
    """End the watch of a version that has all requests, as passed: the next version replaces it."""
    state = server.experiments.state(name)
    if state is not None and not state.is_over and (state.plan.b, state.percent) == (version, 100.0):
        server.experiments.end(name, "promote")


def _server(request: DeployRequest, progress: Progress) -> ServerHandle:
    """The server that serves the model or will serve it; started if there is none."""
    name, isolate, wanted = request.name, request.serve.isolate, request.listen
    now = server_of(name)
    if isolate and now is not None and now.kind == "in_kernel":
        raise InvalidOption(
            f"model {name} is served in the kernel, and would lose requests on its way out",
            hint=f"another --name, or %undeploy {name} first",
        )
    if not isolate and (now is None or now.kind == "in_kernel"):
        return ensure_kernel(wanted)
    problem = isolation_problem(request.serve.device)
    if problem:
        progress(ProgressEvent("starting the server process", 0, 1, problem))
    return ensure_child(wanted, progress)


def _checks(source: ExportSource, request: DeployRequest, seen: Seen, progress: Progress) -> Callable[[Path], None]:
    """Completes a version's folder before it counts: compares it, and adds the warm-up and provenance files."""
    load = SavedModelLoader()

    def load_and_run(path: Path, signature: str, inputs: Tensors) -> Tensors:
        servable = load(path, request.serve.device)
        try:
            return servable.run(signature, inputs)
        finally:
            servable.close()

    export = request.export

    def verify(path: Path) -> None:
        progress(ProgressEvent("checking", 0, 1))
        facts = facts_of(path, source)
        try:
            report = verify_against_live(source, path, load_and_run, export.example, export.example_option, facts)
        except InvalidOption as error:  # it fails on the user's rows
            if not request.serve.force:
                raise
            report = CheckReport(0, None, error.message)
        found = "; ".join(
            (in_words(report, source), *source.notes, *facts.effects.notes, *nan_notes(report.nan_outputs))
        )
        progress(ProgressEvent("checking", 1, 1, found))
        optimize_version(path, Comparison(source, facts, export, request.compared, seen, request.serve), progress)
        sizes, device = request.batching.allowed_batch_sizes, request.serve.device
        note_check_rows(path, by_name(export.check, source.order), sizes, device)
        if export.warmup is not None:
            signature = main_signature(facts.signatures)
            rows = given_batch("warmup", export.warmup, source.order, signature, most=None)
            write_warmup_requests(path, request.name, rows, signature.name)
        if request.serve.engine != TENSORFLOW and single_file(path) is None:
            prepare_engines(path, source, request.serve, export, request.batching, seen, progress)
        problem = store(source, path, request.provenance)
        if problem:
            progress(ProgressEvent("checking", 1, 1, f"{found}; {problem}"))

    return verify


@contextlib.contextmanager
def _removed_unless_used(server: ServerHandle, exported: ExportedVersion) -> Iterator[None]:
    """A version that could not be loaded leaves nothing behind; one that was switched to stays, after errors too."""
    try:
        yield
    except BaseException:
        if not _is_used(server, exported):
            place = exported.path.resolve()  # a link on the way there is the user's, and what we wrote is ours
            with contextlib.suppress(ServingError):  # the error that led here is what counts
                delete_version(place.parent.parent, place.parent.name, exported.version)
        raise


def _is_used(server: ServerHandle, exported: ExportedVersion) -> bool:
    """Whether a version is served, or may be: a server that cannot be reached keeps its files."""
    try:
        return server.models.uses(exported.name, exported.version)
    except ModelNotFound:
        return False
    except ServingError:
        return True


def _name_of(model: Any) -> str:
    from ..scaleout.mlflow import uris

    if uris.is_uri(model):
        return uris.name_of(model)
    is_path = isinstance(model, str | os.PathLike)
    name = name_of(Path(model)) if is_path else getattr(model, "name", None)
    if not isinstance(name, str) or not name:
        raise InvalidOption(f"a name is needed to serve a {type(model).__name__}", hint="deploy(model, name='digits')")
    return name


def _folder(name: str, base_path: str | Path | None) -> Path:
    """Where the versions of a model lie: a model that is served stays where it is."""
    served_from = folder_of(name)
    wanted = check_folder(base_path).absolute() if base_path is not None else None
    if served_from is not None and wanted not in (None, served_from):
        raise InvalidOption(
            f"base_path={str(base_path)!r}: model {name} is served from {served_from}",
            hint=f"another --name, or %undeploy {name} first",
        )
    return served_from or wanted or Path(DEFAULT_BASE_PATH).absolute()
