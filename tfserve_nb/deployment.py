"""Deploy a model, and the handle to what is deployed. The one place that wires export, core and server together.

Thread: any; `deploy` works on the caller's thread and may be interrupted, which leaves the served version untouched.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any  # models, arrays and DataFrames of the user

import numpy as np

from . import runtime
from .errors import InvalidOption, ModelNotFound
from .export.check import verify_against_live
from .export.layout import check_name, delete_version
from .export.saved_model import ExportedVersion, export_version
from .export.source import prepare_source
from .runtime import Runtime
from .serving.config import DEFAULT_MAX_BATCH_SIZE, DEFAULT_MAX_ENQUEUED_BATCHES, BatchingOptions
from .serving.core import DEFAULT_KEEP, Progress, no_progress
from .serving.direct import predict
from .serving.inputs import as_tensors, check_inputs
from .serving.lifecycle import VersionSource
from .serving.metrics import ModelMetrics
from .serving.port import ModelSpec
from .serving.routing import Routing
from .serving.servable import load_saved_model
from .types import DEFAULT_SIGNATURE, HistoryEvent, ModelStatus, ProgressEvent, Tensors

DEFAULT_BASE_PATH = "tfserve_models"


class Deployment:
    """A served model: its versions, who gets the traffic, and predictions without a socket.

    Handles are made by `deploy`, `resume` and `deployment`; there is one for each name in a process, and it stays valid
    over later deploys of the same name.

    Args:
        name: the model's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def rest_url(self) -> str:
        """`http://HOST:PORT/v1/models/NAME`; add `:predict`, `/metadata`, `/versions/V` or `/labels/L`."""
        return self._runtime.rest_url(self.name)

    @property
    def proxied_url(self) -> str | None:
        """The same for a browser elsewhere, through jupyter-server-proxy; None when that is not known."""
        return runtime.proxied_url(self._runtime.port, f"/v1/models/{self.name}")

    @property
    def grpc_address(self) -> str | None:
        """Where gRPC answers: None, this server opens no gRPC port."""
        return None

    @property
    def token(self) -> str | None:
        """What requests carry as `Authorization: Bearer TOKEN`, or None for a server without authentication."""
        return self._runtime.token

    @property
    def version(self) -> int | None:
        """The promoted version, which answers requests that name none (unless the traffic is split)."""
        return self.status().default_version

    @property
    def versions(self) -> tuple[int, ...]:
        """The loaded versions, in increasing order."""
        return self._runtime.core.available(self.name)

    @property
    def labels(self) -> dict[str, int]:
        """Label -> version."""
        return dict(self.status().labels)

    @property
    def traffic(self) -> dict[int, float]:
        """Version -> percent of the requests that name no version."""
        return dict(self.status().traffic)

    def status(self) -> ModelStatus:
        """States, labels and traffic now.

        Raises:
            ModelNotFound: if the model is not served any more.
        """
        return self._runtime.core.model_status(self.name)

    def metrics(self, span_s: int = 120, step_s: int = 2) -> ModelMetrics:
        """Requests and latencies of the last `span_s` seconds, in steps of `step_s` seconds."""
        return self._runtime.core.metrics.snapshot(self.name, span_s=span_s, step_s=step_s)

    def predict(
        self,
        inputs: Any,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = DEFAULT_SIGNATURE,
        timeout_s: float = 30.0,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Predict through the same routing, checks and batch queue as an HTTP request, without a socket.

        Args:
            inputs: an array, list or DataFrame for a model with one input, or a dict of input name -> array; dimension
                0 counts rows. Any number of rows; large requests are sent in pieces, all to one version.
            version: ask this version instead of the one that the traffic decides on.
            label: ask the version of this label.
            signature: the signature's name.
            timeout_s: seconds that a batch of rows may wait.

        Returns:
            The output array, row i for input row i; a dict of output name -> array when there are several outputs.

        Raises:
            InvalidRequest: if the inputs do not fit the signature.
            ModelNotFound: if no such version serves.
            QueueFull: if the queue has no room.
            DeadlineExceeded: after `timeout_s`.
            RunFailed: if TensorFlow fails.
        """
        if version is not None and label is not None:
            raise InvalidOption("version and label exclude each other", hint="d.predict(x, label='canary')")
        core = self._runtime.core
        outputs: Tensors = predict(
            core,
            ModelSpec(self.name, version, label),
            signature,
            inputs,
            rows=core.max_batch_size(self.name),
            limit_s=timeout_s,
        )
        return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)

    def promote(self, version: int) -> Deployment:
        """Give all traffic to `version`; milliseconds when it is loaded, otherwise it is loaded first."""
        self._runtime.core.promote(self.name, version)
        return self

    def rollback(self, to: int | None = None) -> Deployment:
        """Go back: to `to`, or to the version that answered before, or out of a running traffic split."""
        self._runtime.core.roll_back(self.name, to)
        return self

    def set_label(self, label: str, version: int | None) -> Deployment:
        """Point `label` to `version`; None removes the label."""
        self._runtime.core.set_label(self.name, label, version)
        return self

    def set_traffic(self, weights: Mapping[int, float]) -> Deployment:
        """Split the requests that name no version, such as `{3: 90, 4: 10}` (percent, sum 100)."""
        self._runtime.core.set_traffic(self.name, weights)
        return self

    def history(self, limit: int = 100) -> list[HistoryEvent]:
        """Who did what, newest first; it outlives the kernel."""
        return self._runtime.core.history(self.name, limit)

    def undeploy(self, version: int | None = None, *, delete: bool = False) -> None:
        """Stop serving: one version without traffic and labels, or (None) the model.

        The files stay, unless `delete` is true. The server stops with its last model.
        """
        self._runtime.core.undeploy(self.name, version, delete=delete)
        runtime.stop_if_idle()

    @property
    def _runtime(self) -> Runtime:
        running = runtime.current()
        if running is None:
            raise ModelNotFound(
                f"{self.name} is not served: the server of this kernel is stopped",
                hint=f"%deploy MODEL --name {self.name}, or %serving --resume",
            )
        return running

    def __repr__(self) -> str:
        try:
            status = self.status()
        except ModelNotFound:
            return f"<Deployment {self.name}: not served>"
        traffic = ", ".join(f"version {version}: {percent:g} %" for version, percent in status.traffic.items())
        labels = ", ".join(f"{label} → {version}" for label, version in status.labels.items())
        token = "none" if self.token is None else "*** (d.token)"
        return (
            f"<Deployment {self.name} at {self.rest_url}  traffic {traffic or 'none'}"
            f"{'  labels ' + labels if labels else ''}  loaded {list(self.versions)}  token {token}>"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Deployment) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


def deploy(
    model: Any,
    name: str | None = None,
    *,
    version: int | None = None,
    label: str | None = None,
    stage: bool = False,
    canary: float | None = None,
    base_path: str | Path | None = None,
    port: int | None = None,
    auth: bool | None = None,
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
    batch_timeout_micros: int = 0,
    max_enqueued_batches: int = DEFAULT_MAX_ENQUEUED_BATCHES,
    allowed_batch_sizes: Sequence[int] = (),
    device: str | None = None,
    warmup: Any = None,
    check: Any = None,
    keep: int = DEFAULT_KEEP,
    progress: Progress = no_progress,
) -> Deployment:
    """Export a model as the next version, check it, load it, warm it up, and switch to it.

    Args:
        model: a Keras model, a `tf.Module`, a `tf.function`, or the path of a SavedModel.
        name: the name to serve it under; a Keras model's own name by default.
        version: the version's number; the next free one by default.
        label: point this label to the new version.
        stage: load it, but give it no traffic.
        canary: percent of the traffic for the new version; the rest stays with the current one.
        base_path: the folder for `NAME/VERSION`; `tfserve_models` by default.
        port: TCP port of the server, when it is started by this call; a free one by default.
        auth: False starts the server without a token; None keeps what is.
        max_batch_size: most rows of one run.
        batch_timeout_micros: how long a request may wait for company, in microseconds.
        max_enqueued_batches: batches that may wait before requests are rejected.
        allowed_batch_sizes: sizes that batches are padded to; powers of two by default.
        device: TensorFlow device such as `/CPU:0`.
        warmup: rows to warm up with (array or dict), instead of made-up ones.
        check: rows to compare the exported with the live model on, instead of made-up ones.
        keep: versions that stay loaded, for instant rollback.
        progress: told about each step, on the calling thread.

    Returns:
        The handle of the model.

    Raises:
        InvalidOption: if an option has a value that is not allowed.
        ModelNotServable: if the model cannot be exported.
        ExportFailed: if writing failed, or the exported model answers differently from the live one.
        ServingError: if the version cannot be loaded. In all cases nothing is left behind and what was served before
            still is.
    """
    options = BatchingOptions(max_batch_size, batch_timeout_micros, max_enqueued_batches, tuple(allowed_batch_sizes))
    check_options(stage=stage, canary=canary, keep=keep, label=label)
    name = check_name(name if name is not None else _name_of(model))
    folder = _folder(name, base_path)
    running = runtime.ensure(port, with_token=auth)
    try:
        exported = _export(running, model, name, version, folder, check, progress)
        try:
            source = VersionSource(
                exported.path, options, device, _sample(exported, warmup), deployed_at=time.time()
            )
            running.core.deploy(
                name,
                exported.version,
                source,
                base_path=folder,
                keep=keep,
                route=_route(exported.version, label=label, stage=stage, canary=canary),
                detail=", ".join(_described(label=label, stage=stage, canary=canary)),
                progress=progress,
            )
        except BaseException:
            delete_version(folder, name, exported.version)
            raise
    finally:
        runtime.stop_if_idle()
    progress(ProgressEvent("done", 1, 1, f"version {exported.version} of {name}"))
    return Deployment(name)


def deployment(name: str) -> Deployment:
    """The handle of a served model.

    Raises:
        ModelNotFound: naming the models that are served.
    """
    handle = Deployment(name)
    handle.status()
    return handle


def deployments() -> list[Deployment]:
    """The handles of all served models, by name."""
    running = runtime.current()
    return [] if running is None else [Deployment(name) for name in running.core.names]


def resume(
    base_path: str | Path | None = None,
    name: str | None = None,
    *,
    progress: Progress = no_progress,
    report: Callable[[str], None] = lambda _: None,
) -> list[Deployment]:
    """Serve again what an earlier kernel served: versions, labels, default version and traffic.

    Args:
        base_path: the folder with the models; `tfserve_models` by default.
        name: one model; all by default.
        progress: told about each step.
        report: told in words what could not be brought back.

    Returns:
        The handles of the models that are served again.

    Raises:
        ModelNotFound: if nothing is stored there.
    """
    folder = Path(base_path or DEFAULT_BASE_PATH).absolute()
    served_before = {handle.name for handle in deployments()}
    running = runtime.ensure()
    try:
        problems = running.core.resume(folder, name, progress)
    finally:
        runtime.stop_if_idle()
    for model, texts in problems.items():
        for text in texts:
            report(f"{model}: {text}")
    if not problems and (not served_before or (name is not None and name not in served_before)):
        what = "any model" if name is None else f"model {name!r}"
        raise ModelNotFound(f"nothing is stored about {what} in {folder}", hint="--base-path FOLDER, or deploy it anew")
    return [Deployment(model) for model in problems]


def shutdown() -> None:
    """Stop the server of this process and free all models; files and stored state stay."""
    runtime.shutdown()


def _export(
    running: Runtime, model: Any, name: str, version: int | None, folder: Path, check: Any, progress: Progress
) -> ExportedVersion:
    """Write and check the next version."""
    progress(ProgressEvent("exporting", 0, 1))
    source = prepare_source(model, example=check)

    def load_and_run(path: Path, signature: str, inputs: Tensors) -> Tensors:
        servable = load_saved_model(path)
        try:
            return servable.run(signature, inputs)
        finally:
            servable.close()

    def verify(path: Path) -> None:
        progress(ProgressEvent("checking", 0, 1))
        report = verify_against_live(source, path, load_and_run, example=check)
        found = f"not compared: {report.skipped_reason}" if report.skipped_reason else f"{report.num_rows} rows agree"
        progress(ProgressEvent("checking", 1, 1, found))

    return export_version(source, folder, name, version=version, above=running.core.highest_version(name), verify=verify)


def _route(version: int, *, label: str | None, stage: bool, canary: float | None) -> Callable[[Routing], Routing]:
    """The routing after a deploy."""

    def route(routing: Routing) -> Routing:
        default = routing.default_version
        if stage:
            routing = routing.stage(version)
        elif canary is not None and default is not None:
            routing = routing.used(version).with_traffic({default: 100 - canary, version: canary})
        else:
            routing = routing.promote(version)
        return routing if label is None else routing.with_label(label, version)

    return route


def _described(*, label: str | None, stage: bool, canary: float | None) -> list[str]:
    return [
        text
        for text in (
            "staged" if stage else "",
            f"canary {canary:g} %" if canary is not None else "",
            f"label {label}" if label else "",
        )
        if text
    ]


def check_options(*, stage: bool, canary: float | None, keep: int, label: str | None) -> None:
    """Refuse options that no deploy could follow, before anything runs.

    Raises:
        InvalidOption: naming the value and what is allowed.
    """
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise InvalidOption(f"keep={keep!r} must be an integer of at least 1", hint="--keep 2 allows instant rollback")
    if stage and canary is not None:
        raise InvalidOption("stage and canary exclude each other", hint="--stage for no traffic, --canary 10 for some")
    if canary is not None and not 0 < canary < 100:
        raise InvalidOption(f"canary={canary!r} must be a percentage between 0 and 100", hint="--canary 10")
    if label is not None:
        Routing("").with_label(label, 1)


def _name_of(model: Any) -> str:
    name = getattr(model, "name", None)
    if not isinstance(name, str) or not name:
        raise InvalidOption(f"a name is needed to serve a {type(model).__name__}", hint="deploy(model, name='digits')")
    return name


def _folder(name: str, base_path: str | Path | None) -> Path:
    """Where the versions of a model lie: a model that is served stays where it is."""
    running = runtime.current()
    served_from = running.core.base_path(name) if running is not None else None
    wanted = Path(base_path).absolute() if base_path is not None else None
    if served_from is not None and wanted not in (None, served_from):
        raise InvalidOption(
            f"base_path={str(base_path)!r}: model {name} is served from {served_from}",
            hint=f"another --name, or %undeploy {name} first",
        )
    return served_from or wanted or Path(DEFAULT_BASE_PATH).absolute()


def _sample(exported: ExportedVersion, warmup: Any) -> Tensors | None:
    if warmup is None:
        return None
    signature = exported.signatures[DEFAULT_SIGNATURE]
    sample = as_tensors(signature, warmup)
    if check_inputs(signature, sample) < 1:
        raise InvalidOption("warmup has no rows", hint="--warmup x_test[:8]")
    return sample

