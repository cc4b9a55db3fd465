"""The handle to what is deployed: versions, labels, traffic, and predictions without a socket.

Thread: any.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # arrays and DataFrames of the user

import numpy as np

from ..bench.options import Options
from ..bench.report import AnyResult
from ..bench.run import Watcher
from ..errors import InvalidOption, InvalidRequest, ModelNotFound, ServingError
from ..server.handle import ChildHome, Home, rest_url
from ..serving.backend import ModelSpec
from ..serving.telemetry.model_metrics import ModelMetrics
from ..serving.telemetry.request_samples import KEPT, RequestSample
from ..serving.telemetry.resources import Resources
from ..types import DEFAULT_SIGNATURE, HistoryEvent, ModelStatus
from . import benchmark as benchmarking
from . import servers as runtime
from .comparing import Comparing
from .recording import DEFAULT_FOLDER, Recording

DEFAULT_BASE_PATH = DEFAULT_FOLDER


class Deployment(Comparing, Recording):
    """A served model: its versions, who gets the traffic, and predictions without a socket.

    Handles are made by `deploy`, `resume` and `deployment`; there is one for each name in a process, and it stays valid
    over later deploys of the same name.

    Args:
        name: the model's name.
        home: the server elsewhere that serves it; None for one of this process.
    """

    def __init__(self, name: str, home: Home | None = None) -> None:
        self.name = name
        self._elsewhere = home

    @property
    def rest_url(self) -> str:
        """`http://HOST:PORT/v1/models/NAME`; add `:predict`, `/metadata`, `/versions/V` or `/labels/L`."""
        return rest_url(self._home, self.name)

    @property
    def proxied_url(self) -> str | None:
        """The same for a browser elsewhere, through jupyter-server-proxy; None when that is not known."""
        port = self._home.port
        return None if port is None else runtime.proxied_url(port, f"/v1/models/{self.name}")

    @property
    def grpc_address(self) -> str | None:
        """Where gRPC answers, such as `127.0.0.1:8500`; None for a server without gRPC (`--grpc-port` opens it)."""
        return self._home.grpc_address

    @property
    def is_isolated(self) -> bool:
        """Whether a child process serves it."""
        return isinstance(self._home, ChildHome)

    @property
    def token(self) -> str | None:
        """What requests carry as `Authorization: Bearer TOKEN`, or None for a server without authentication."""
        return self._home.token

    @property
    def version(self) -> int | None:
        """The promoted version, which answers requests that name none (unless the traffic is split)."""
        return self.status().default_version

    @property
    def versions(self) -> tuple[int, ...]:
        """The loaded versions, in increasing order."""
        return self._home.core.available(self.name)

    @property
    def labels(self) -> dict[str, int]:
        """Label -> version."""
        return dict(self.status().labels)

    @property
    def traffic(self) -> dict[int, float]:
        """Version -> percent of the requests that name no version."""
        return dict(self.status().traffic)

    @property
    def base_path(self) -> Path | None:
        """The folder that holds `NAME/VERSION` and the history, on the server's machine; None when it is not known."""
        return self._home.core.base_path(self.name)

    def status(self) -> ModelStatus:
        """States, labels and traffic now.

        Raises:
            ModelNotFound: if the model is not served any more.
        """
        return self._home.core.model_status(self.name)

    def metrics(self, span_s: int = 120, step_s: int = 2, signature: str | None = None) -> ModelMetrics:
        """Requests and latencies of the last `span_s` seconds (900 at most), in steps of `step_s` seconds.

        Args:
            span_s: seconds that the numbers cover.
            step_s: seconds between two values of the series.
            signature: count only the requests of this signature; None for all.
        """
        return self._home.core.model_metrics(self.name, span_s, step_s, signature)

    def predict(
        self,
        inputs: Any,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = DEFAULT_SIGNATURE,
        timeout_s: float = 30.0,
        key: str | None = None,
        request_id: str | None = None,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Predict through the same routing, checks and batch queue as an HTTP request.

        In the kernel no socket is involved; an isolated or remote server is asked over REST.

        Args:
            inputs: an array, list or DataFrame for a model with one input, or a dict of input name -> array; dimension
                0 counts rows. Any number of rows; large requests are sent in pieces, all to one version.
            version: ask this version instead of the one that the traffic decides on.
            label: ask the version of this label.
            signature: the signature's name.
            timeout_s: seconds that a batch of rows may wait.
            key: who asks, such as `user-17`: while the traffic is split, all requests of one key go to one version.
            request_id: your name for the request, ASCII of up to 128 characters, for `feedback`.

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
        for what, text in (("key", key), ("request_id", request_id)):
            if text is not None and not _fits_header(text):
                raise InvalidOption(
                    f"{what}={text!r} must be text for one line of a header", hint=f"d.predict(x, {what}='user-17')"
                )
        spec = ModelSpec(self.name, version, label)
        outputs = self._home.core.predict(spec, signature, inputs, timeout_s, key or "", request_id or "")
        return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)

    def promote(self, version: int) -> Deployment:
        """Give all traffic to `version`; milliseconds when it is loaded, otherwise it is loaded first."""
        self._home.core.promote(self.name, version)
        return self

    def rollback(self, to: int | None = None) -> Deployment:
        """Go back: to `to`, or to the version that answered before, or out of a running traffic split."""
        self._home.core.roll_back(self.name, to)
        return self

    def stage(self, version: int) -> Deployment:
        """Load a version from disk and keep it loaded, without traffic."""
        self._home.core.stage(self.name, version)
        return self

    def set_label(self, label: str, version: int | None) -> Deployment:
        """Point `label` to `version`; None removes the label."""
        self._home.core.set_label(self.name, label, version)
        return self

    def set_traffic(self, weights: Mapping[int, float]) -> Deployment:
        """Split the requests that name no version, such as `{3: 90, 4: 10}` (percent, sum 100)."""
        self._home.core.set_traffic(self.name, weights)
        return self

    def shadow(self, version: int | None, percent: float = 100.0) -> Deployment:
        """Give `version` copies of `percent` % of the requests that others answer; None ends it.

        Clients never see its answers. Copies run only while nobody else wants the device, and are left out when there
        are too many. Requests that name a version or a label are not copied.
        """
        self._home.core.set_shadow(self.name, version, percent)
        return self

    def history(self, limit: int = 100) -> list[HistoryEvent]:
        """Who did what, newest first; it outlives the kernel."""
        return self._home.core.history(self.name, limit)

    def sample_requests(self, is_on: bool = True) -> Deployment:
        """Keep a sample of the requests from now on, with inputs and outputs, in the memory of the server; or stop."""
        self._home.core.sample_requests(self.name, is_on=is_on)
        return self

    def samples(self, limit: int = KEPT) -> list[RequestSample]:
        """The newest sampled requests, newest first; empty until `sample_requests`."""
        return list(self._home.core.recent_samples(self.name, limit).samples)

    @property
    def is_sampling(self) -> bool:
        """Whether requests are sampled."""
        return self._home.core.recent_samples(self.name, 1).is_on

    def send_again(self, sample: RequestSample, version: int | None = None) -> np.ndarray | dict[str, np.ndarray]:
        """Send the rows of a sampled request once more, to a version or to whoever answers by default.

        Raises:
            InvalidRequest: if the sample holds none of its inputs any more.
            ServingError: as `predict`.
        """
        if not sample.inputs:
            raise InvalidRequest(f"request {sample.number} was too large to be kept", hint="send it from its client")
        return self.predict(dict(sample.inputs), version=version, signature=sample.signature or DEFAULT_SIGNATURE)

    def resources(self) -> Resources:
        """What the server's process takes of its machine: processor, memory, threads, GPUs."""
        return self._home.core.resources()

    def benchmark(self, *, watcher: Watcher | None = None, **options: Any) -> AnyResult:
        """Load the model from another process and measure what clients would see; `%benchmark` for scripts.

        Args:
            watcher: follows the run, on the calling thread; see `bench.run.Watcher`.
            **options: the attributes of `bench.options.Options`, such as `rate=200`, `seconds=10`, `slo_ms=20`,
                `closed=8`, `sweep=True`, `protocol="binary"`, `versions=(3, 4)`, `values=x_test`.

        Returns:
            A `BenchmarkResult`, a `SweepResult` with `sweep=True`, or a `ComparisonResult` with `versions`.

        Raises:
            InvalidOption: naming the option that is not allowed.
            ServingError: if the first request already fails.
        """
        try:
            asked = Options(**options)
        except TypeError as error:
            known = ", ".join(one.name for one in dataclasses.fields(Options))
            raise InvalidOption(f"{error}; there are {known}") from None
        return self.run_benchmark(asked, watcher)

    def run_benchmark(self, options: Options, watcher: Watcher | None = None) -> AnyResult:
        """The same with options that were checked before."""
        folder = Path(DEFAULT_BASE_PATH).absolute()
        return benchmarking.benchmark(self._home, self.name, options, folder, watcher)

    def undeploy(self, version: int | None = None, *, delete: bool = False) -> None:
        """Stop serving: one version without traffic and labels, or (None) the model.

        The files stay, unless `delete` is true. The server stops with its last model.
        """
        home = self._home
        home.core.undeploy(self.name, version, delete=delete)
        if version is None:
            home.forget(self.name)
        runtime.stop_if_idle()

    @property
    def _home(self) -> Home:
        home = self._elsewhere or runtime.home_of(self.name)
        if home is None:
            known = ", ".join(runtime.served()) or "none"
            raise ModelNotFound(
                f"{self.name} is not served here; served: {known}",
                hint=f"%deploy MODEL --name {self.name}, or %serving --resume",
            )
        return home

    def __repr__(self) -> str:
        try:
            status = self.status()
        except ModelNotFound:
            return f"<Deployment {self.name}: not served>"
        except ServingError as error:
            return f"<Deployment {self.name}: {error.message}>"
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
        return isinstance(other, Deployment) and (other.name, other._elsewhere) == (self.name, self._elsewhere)

    def __hash__(self) -> int:
        return hash((self.name, self._elsewhere))


def _fits_header(text: object) -> bool:
    """Whether a value can be sent as a header field as it is."""
    return isinstance(text, str) and bool(text) and text.isprintable() and text == text.strip()
