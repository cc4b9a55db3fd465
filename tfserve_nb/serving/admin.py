"""The interface that administers a core, in this process, in a child process or on another machine.

`ServingCore` implements it, and so does `server.admin.client.RemoteModels`, which asks another server. What it declares
is also the admin API: `server.admin.operations` gives each method its HTTP path.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..types import EngineMeasurement, HistoryEvent, ModelStatus, Progress, Tensors
from .backend import ModelSpec
from .models.placement import Placement
from .telemetry.capture import CapturedRequests, CaptureSettings
from .telemetry.model_metrics import ModelMetrics
from .telemetry.request_samples import Samples
from .telemetry.resources import Resources
from .versions.source import VersionSource


class ModelAdmin(Protocol):
    """Models, versions, traffic and numbers of one server.

    All methods raise `ModelNotFound` for a model that is not served, and `NotAvailable` when the server cannot be
    reached.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are served."""

    def model_status(self, name: str) -> ModelStatus:
        """The status of a model."""

    def uses(self, name: str, version: int) -> bool:
        """Whether traffic, a label or the stage needs a version."""

    def available(self, name: str) -> tuple[int, ...]:
        """The loaded versions of a model, in increasing order."""

    def base_path(self, name: str) -> Path | None:
        """The folder that a served model's versions lie in, on the server's machine."""

    def highest_version(self, name: str) -> int:
        """The highest version that was ever served; 0 when there is none."""

    def model_metrics(
        self, name: str, span_s: int = 120, step_s: int = 2, signature: str | None = None
    ) -> ModelMetrics:
        """The numbers of the last `span_s` seconds, in steps of `step_s` seconds, of one signature or of all."""

    def history(self, name: str, limit: int = 100) -> list[HistoryEvent]:
        """The newest events of a model, newest first."""

    def recent_samples(self, name: str, limit: int = ...) -> Samples:
        """The newest sampled requests of a model, and whether sampling is on."""

    def sample_requests(self, name: str, *, is_on: bool) -> None:
        """Begin or end sampling a model's requests."""

    def capture(self, name: str, settings: CaptureSettings | None, *, clear: bool = False) -> None:
        """Keep a model's requests with their arrival times from now on, or (None) stop; what was kept stays.

        Args:
            name: the model.
            settings: how much is kept.
            clear: whether what was kept is dropped first.
        """

    def captured(self, name: str, limit: int | None = None) -> CapturedRequests:
        """The newest captured requests of a model, or all, in the order of arrival."""

    def resources(self) -> Resources:
        """Resource usage of the server's process."""

    def predict(
        self, spec: ModelSpec, signature: str, value: Any, limit_s: float, key: str = "", request_id: str = ""
    ) -> Tensors:
        """Predict as a client would; see `Deployment.predict`."""

    def deploy(
        self,
        name: str,
        version: int,
        source: VersionSource,
        base_path: Path,
        placement: Placement,
        progress: Progress = ...,
    ) -> None:
        """Load a version and route to it; the other versions answer until then.

        Args:
            name: the model; it is served from now on.
            version: the version's number.
            source: where it comes from.
            base_path: the folder that holds `NAME/VERSION`, where the state is stored too.
            placement: which requests it gets.
            progress: called with each step, on the calling thread; so for all methods.

        Raises:
            ServingError: why it could not be loaded; the routing is as before then.
        """

    def promote(self, name: str, version: int, progress: Progress = ...) -> None:
        """Give all traffic to a version; it is loaded first if need be.

        Raises:
            VersionNotFound: if the model has no such version, naming those it has.
        """

    def roll_back(self, name: str, to: int | None = None, progress: Progress = ...) -> int:
        """Go back to an earlier version; milliseconds while it is still loaded.

        Returns:
            The version that answers now.

        Raises:
            VersionNotFound: if there is none.
        """

    def stage(self, name: str, version: int, progress: Progress = ...) -> None:
        """Load a version and keep it loaded, without traffic."""

    def set_label(self, name: str, label: str, version: int | None, progress: Progress = ...) -> None:
        """Point a label to a version (None removes it); the version is loaded first if need be."""

    def set_traffic(self, name: str, weights: Mapping[int, float], progress: Progress = ...) -> None:
        """Split the traffic between versions; they are loaded first if need be."""

    def set_split(
        self,
        name: str,
        weights: Mapping[int, float],
        *,
        salt: str | None = None,
        key_header: str | None = None,
        arms: Mapping[int, str] | None = None,
        shadow: tuple[int, float] | None = None,
        progress: Progress = ...,
    ) -> None:
        """Set all that a comparison needs at once, and load what it needs first; see `Routing.with_split`."""

    def set_shadow(self, name: str, version: int | None, percent: float = 100.0, progress: Progress = ...) -> None:
        """Give a version copies of requests that others answer (None ends it); it is loaded first if need be.

        Clients never see its predictions. Requests that name a version or a label are not copied.

        Args:
            name: the model.
            version: the version that gets the copies.
            percent: share of the requests that are copied.
            progress: called with each step.

        Raises:
            InvalidOption: if the version answers everything itself, or the share is none.
            VersionNotFound: if there is no such version.
        """

    def set_engine(
        self, name: str, engine: str, version: int | None = None, progress: Progress = ...
    ) -> list[EngineMeasurement]:
        """Let another engine run a loaded version, while it goes on answering; see docs/engines.md.

        Args:
            name: the model.
            engine: `tensorflow`, `auto` or the name of an engine.
            version: the version; None for the promoted one.
            progress: called with each step.

        Returns:
            What was measured.

        Raises:
            InvalidOption: if there is no such engine, it is not installed, or it cannot run the version; what ran it
                before still does.
            VersionNotFound: if no such version is loaded.
        """

    def measure_engines(
        self, name: str, version: int | None = None, progress: Progress = ...
    ) -> list[EngineMeasurement]:
        """Compare all engines with TensorFlow again, on the rows that are known now, and measure them.

        Where `auto` was asked for, the choice follows.
        """

    def give_rows(self, name: str, rows: Tensors, version: int | None = None) -> None:
        """Keep rows that the engines of a version are compared on; in memory, as long as it is loaded.

        Args:
            name: the model.
            rows: for the signature that answers by default, as `predict` takes them; the first few are kept.
            version: a loaded version; None for the promoted one.

        Raises:
            InvalidRequest: if they do not fit.
            VersionNotFound: if no such version is loaded.
        """

    def undeploy(self, name: str, version: int | None = None, *, delete: bool = False, force: bool = False) -> None:
        """Stop serving a model, or unload one version of it.

        Args:
            name: the model.
            version: one version, which must have neither traffic nor labels; None for all.
            delete: remove the files too.
            force: also those that another process serves.

        Raises:
            InvalidOption: if the version is still used, or its files are to be removed and another process serves it.
            VersionNotFound: if there is no such version.
        """

    def resume(self, base_path: Path, only: str | None = None, progress: Progress = ...) -> dict[str, list[str]]:
        """Serve again what was served from a folder when its last kernel ended.

        Args:
            base_path: the folder with the models and their stored state.
            only: one model; None for all that are not served now.
            progress: called with each step.

        Returns:
            Model -> what could not be brought back, in words; empty when all is as before.
        """
