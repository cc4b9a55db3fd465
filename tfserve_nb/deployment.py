"""The handle to what is deployed: versions, labels, traffic, and predictions without a socket.

Thread: any.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any  # arrays and DataFrames of the user

import numpy as np

from . import runtime
from .errors import InvalidOption, ModelNotFound
from .runtime import Runtime
from .serving.direct import predict
from .serving.metrics import ModelMetrics
from .serving.port import ModelSpec
from .types import DEFAULT_SIGNATURE, HistoryEvent, ModelStatus, Progress, Tensors, no_progress

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
