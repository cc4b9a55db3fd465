"""The core of a server: models, their versions and routing, behind the narrow port.

Requests read one pointer (a model's `Routing`) and pin a version; they take no lock that an administrator holds for
longer than a pointer move. Administration (deploy, promote, roll back, label, traffic) loads what is needed first,
without any lock, and then moves the pointer.

Thread: any.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any  # JSON

from ..errors import ModelNotFound, ServingError, VersionNotFound
from ..export.layout import delete_version, list_versions, version_dir
from ..types import HistoryEvent, ModelStatus, ProgressEvent, VersionStatus
from .config import BatchingOptions
from .lifecycle import ServableManager, VersionHandle, VersionSource
from .metrics import Metrics, RequestRecord
from .port import ModelSpec
from .routing import Routing, not_found
from .servable import Loader, load_saved_model
from .state_store import StateStore, new_event

LOAD_LIMIT_S = 600.0
UNLOAD_WAIT_S = 40.0
DEFAULT_KEEP = 2

Progress = Callable[[ProgressEvent], None]


def no_progress(_: ProgressEvent) -> None:
    """The `Progress` of callers who do not want to know."""


@dataclass(slots=True)
class _Model:
    """One model. `routing` is read without a lock; everything is written under `lock`."""

    name: str
    base_path: Path
    keep: int
    routing: Routing
    store: StateStore
    lock: threading.RLock = field(default_factory=threading.RLock)
    pending: list[int] = field(default_factory=list)
    problem: str = ""


class ServingCore:
    """Models, versions, routing and metrics of one process. Implements `ServingPort`.

    Args:
        loader: turns a version folder into a servable.
        now: the clock in seconds.
        draw: uniform numbers on [0, 1) for the traffic split.
    """

    def __init__(
        self,
        loader: Loader = load_saved_model,
        *,
        now: Callable[[], float] = time.perf_counter,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.metrics = Metrics(now)
        self._manager = ServableManager(loader, now=now)
        self._draw = draw
        self._lock = threading.Lock()
        self._models: dict[str, _Model] = {}

    def start(self) -> None:
        """Start the manager's thread."""
        self._manager.start()

    def stop(self) -> None:
        """Stop all threads and free all versions. Idempotent, bounded."""
        self._models = {}
        self._manager.stop()

    # --- the port -----------------------------------------------------------------------------------------------

    def acquire(self, spec: ModelSpec) -> VersionHandle:
        """Choose and pin a version; see `ServingPort.acquire`."""
        model = self._models.get(spec.name)
        if model is None:
            raise not_found(spec)
        # The routing may move between reading it and pinning; it always moves before a version is unloaded, so the
        # second look finds a version that can answer.
        for _ in range(3):
            version = model.routing.version_for(spec, self._draw())
            handle = self._manager.acquire(spec.name, version)
            if handle is not None:
                return handle
        raise not_found(ModelSpec(spec.name, version))

    def status(self, spec: ModelSpec) -> tuple[VersionStatus, ...]:
        """The states of versions; see `ServingPort.status`."""
        versions = self._manager.status(spec.name) if spec.name in self._models else ()
        if not versions:
            raise ModelNotFound(f"Could not find any versions of model {spec.name}")
        if spec.version is None:
            return versions
        found = tuple(status for status in versions if status.version == spec.version)
        if not found:
            raise VersionNotFound(f"Could not find version {spec.version} of model {spec.name}")
        return found

    def record(self, record: RequestRecord) -> None:
        """Count a finished request."""
        self.metrics.record(record)

    # --- administration -----------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are served."""
        return tuple(sorted(self._models))

    def model_status(self, name: str) -> ModelStatus:
        """Everything that is known of a model now.

        Raises:
            ModelNotFound: if it is not served.
        """
        model = self._model(name)
        routing = model.routing
        return ModelStatus(
            name=name,
            versions=self._manager.status(name),
            default_version=routing.default_version,
            traffic=routing.traffic,
            labels=routing.labels,
            problem=model.problem,
        )

    def available(self, name: str) -> tuple[int, ...]:
        """The loaded versions of a model, in increasing order."""
        return tuple(sorted(self._manager.available(name)))

    def base_path(self, name: str) -> Path | None:
        """The folder that a served model's versions lie in, or None when it is not served."""
        model = self._models.get(name)
        return None if model is None else model.base_path

    def highest_version(self, name: str) -> int:
        """The highest version that was ever served here; 0 when there is none. A number is not used twice."""
        if name not in self._models:
            return 0
        return max((one.version for one in self._manager.status(name) if one.error_code == "OK"), default=0)

    def max_batch_size(self, name: str) -> int:
        """Rows that every known version of a model runs at once.

        Raises:
            ModelNotFound: if it is not served.
        """
        self._model(name)
        sizes = [source.options.max_batch_size for source in self._manager.sources(name).values()]
        return min(sizes, default=1)

    def deploy(
        self,
        name: str,
        version: int,
        source: VersionSource,
        *,
        base_path: Path,
        keep: int = DEFAULT_KEEP,
        route: Callable[[Routing], Routing],
        detail: str = "",
        progress: Progress = no_progress,
    ) -> None:
        """Load a version and route to it; the other versions answer until then.

        Args:
            name: the model; it is served from now on.
            version: the version's number.
            source: where it comes from.
            base_path: the folder that holds `NAME/VERSION`, where the state is stored too.
            keep: versions to keep loaded.
            route: the routing afterwards, such as `lambda routing: routing.promote(version)`.
            detail: for the history.
            progress: told about each step, on the calling thread.

        Raises:
            ServingError: why it could not be loaded; the routing is as before then.
        """
        with self._lock:
            model = self._models.get(name)
            is_new = model is None
            if model is None:
                model = _Model(name, base_path, keep, Routing(name), StateStore(base_path))
                self._inherit(model)
                self._models = {**self._models, name: model}
        model.keep = keep
        self._manager.set_source(name, version, source)
        try:
            with self._loaded(model, [version], progress):
                progress(ProgressEvent("switching", 0, 1))
                self._change(model, route, new_event("deploy", version, detail))
        except BaseException:
            if is_new and not model.routing.recent:
                self._drop(model)
            raise

    def promote(self, name: str, version: int, progress: Progress = no_progress) -> None:
        """Give all traffic to a version; it is loaded first if need be.

        Raises:
            VersionNotFound: if the model has no such version, naming those it has.
        """
        model = self._model(name)
        with self._loaded(model, [version], progress):
            self._change(model, lambda routing: routing.promote(version), new_event("promote", version))

    def roll_back(self, name: str, to: int | None = None, progress: Progress = no_progress) -> int:
        """Go back to an earlier version; milliseconds while it is still loaded.

        Returns:
            The version that answers now.

        Raises:
            VersionNotFound: if there is none.
        """
        model = self._model(name)
        before = model.routing.default_version
        target = model.routing.roll_back(to).default_version
        with self._loaded(model, [] if target is None else [target], progress):
            self._change(
                model, lambda routing: routing.roll_back(to), new_event("rollback", target, f"from version {before}")
            )
        return target or 0

    def set_label(self, name: str, label: str, version: int | None, progress: Progress = no_progress) -> None:
        """Point a label to a version (None removes it); the version is loaded first if need be."""
        model = self._model(name)
        with self._loaded(model, [] if version is None else [version], progress):
            event = new_event("label", version, label if version is not None else f"{label} removed")
            self._change(model, lambda routing: routing.with_label(label, version), event)

    def set_traffic(self, name: str, weights: Mapping[int, float], progress: Progress = no_progress) -> None:
        """Split the traffic between versions; they are loaded first if need be."""
        model = self._model(name)
        model.routing.with_traffic(weights)
        wanted = [version for version, percent in weights.items() if percent > 0]
        with self._loaded(model, wanted, progress):
            detail = ", ".join(f"version {version}: {weights[version]:g} %" for version in sorted(wanted))
            self._change(model, lambda routing: routing.with_traffic(weights), new_event("traffic", None, detail))

    def undeploy(self, name: str, version: int | None = None, *, delete: bool = False) -> None:
        """Stop serving a model, or unload one version of it.

        Args:
            name: the model.
            version: one version, which must have neither traffic nor labels; None for all.
            delete: remove the files too.

        Raises:
            InvalidOption: if the version is still used.
            VersionNotFound: if there is no such version.
        """
        model = self._model(name)
        if version is None:
            gone = frozenset(self._manager.sources(name))
            with model.lock:
                model.routing = Routing(name)
                self._aspire(model)
            self._manager.wait_until_gone(name, gone, UNLOAD_WAIT_S)
            self._drop(model)
            with self._noting_problem(model):
                model.store.forget(name, new_event("undeploy", None, "deleted" if delete else ""))
            versions: Iterable[int] = list_versions(model.base_path / name) if delete else ()
        else:
            self._source_of(model, version)
            action = "delete" if delete else "unload"
            self._change(model, lambda routing: routing.without(version), new_event(action, version))
            self._manager.wait_until_gone(name, frozenset({version}), UNLOAD_WAIT_S)
            versions = [version] if delete else ()
        for one in versions:
            delete_version(model.base_path, name, one)

    def history(self, name: str, limit: int = 100) -> list[HistoryEvent]:
        """The newest events of a model, newest first."""
        return self._model(name).store.history(name, limit)

    def resume(self, base_path: Path, only: str | None = None, progress: Progress = no_progress) -> dict[str, list[str]]:
        """Serve again what was served from a folder when its last kernel ended.

        Args:
            base_path: the folder with the models and their stored state.
            only: one model; None for all that are not served now.
            progress: told about each step.

        Returns:
            Model -> what could not be brought back, in words; empty when all is as before.
        """
        store = StateStore(base_path)
        problems: dict[str, list[str]] = {}
        for name, state in sorted(store.load().items()):
            if name not in self._models and only in (None, name):
                problems[name] = self._resume_one(name, state, base_path, store, progress)
        return problems

    def _resume_one(
        self, name: str, state: Mapping[str, Any], base_path: Path, store: StateStore, progress: Progress
    ) -> list[str]:
        keep = int(state["keep"])
        stored = Routing.from_json(name, state["routing"])
        on_disk = frozenset(list_versions(base_path / name))
        routing = stored.restricted_to(on_disk)
        problems = [f"version {version} is no longer on disk" for version in sorted(stored.aspired(keep) - on_disk)]
        model = _Model(name, base_path, keep, Routing(name), store)
        for version in on_disk:
            self._manager.set_source(name, version, self._stored_source(model, version, state))
        loaded: set[int] = set()
        with contextlib.ExitStack() as held:
            for version in sorted(routing.aspired(keep)):
                try:
                    held.enter_context(self._loaded(model, [version], progress))
                    loaded.add(version)
                except ServingError as error:
                    problems.append(f"version {version}: {error.message}")
            model.routing = routing.restricted_to(frozenset(loaded))
            with self._lock:
                self._models = {**self._models, name: model}
            self._change(model, lambda same: same, new_event("resume", model.routing.default_version))
        return problems

    # --- inner workings -----------------------------------------------------------------------------------------

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            known = ", ".join(self.names) or "none"
            raise ModelNotFound(
                f"no model {name!r} is served here; served: {known}", hint=f"%deploy MODEL --name {name}, or %serving --resume"
            )
        return model

    def _inherit(self, model: _Model) -> None:
        """Start from what an earlier kernel stored: its labels and the way back stay, only what is needed is loaded."""
        with self._noting_problem(model):
            stored = model.store.load().get(model.name)
            if stored is None:
                return
            on_disk = frozenset(list_versions(model.base_path / model.name))
            routing = Routing.from_json(model.name, stored["routing"]).restricted_to(on_disk)
            model.routing = replace(routing, recent=())
            for version in routing.aspired(0):
                self._manager.set_source(model.name, version, self._stored_source(model, version, stored))

    def _stored_source(self, model: _Model, version: int, state: Mapping[str, Any]) -> VersionSource:
        path = version_dir(model.base_path, model.name, version)
        values = state["versions"].get(str(version))
        return _source_from_json(path, values) if values else VersionSource(path, BatchingOptions())

    def _drop(self, model: _Model) -> None:
        with self._lock:
            self._models = {name: other for name, other in self._models.items() if other is not model}
        self._manager.forget(model.name)
        self.metrics.forget(model.name)

    @contextlib.contextmanager
    def _loaded(self, model: _Model, versions: list[int], progress: Progress) -> Iterator[None]:
        """Keep versions loaded while the body runs; what the routing says decides afterwards."""
        for version in versions:
            self._manager.set_source(model.name, version, self._source_of(model, version))
        with model.lock:
            model.pending += versions
            self._aspire(model)
        try:
            for version in versions:
                self._manager.wait(model.name, version, LOAD_LIMIT_S, progress)
            yield
        finally:
            with model.lock:
                for version in versions:
                    model.pending.remove(version)
                self._aspire(model)

    def _source_of(self, model: _Model, version: int) -> VersionSource:
        source = self._manager.sources(model.name).get(version)
        if source is not None and source.path.exists():
            return source
        on_disk = list_versions(model.base_path / model.name)
        if version not in on_disk:
            raise VersionNotFound(
                f"model {model.name} has no version {version!r}; "
                f"it has {', '.join(str(known) for known in on_disk) or 'none'}",
                hint=f"%serving {model.name}",
            )
        return VersionSource(version_dir(model.base_path, model.name, version), BatchingOptions())

    def _aspire(self, model: _Model) -> None:
        self._manager.set_aspired(model.name, model.routing.aspired(model.keep) | frozenset(model.pending))

    def _change(self, model: _Model, transform: Callable[[Routing], Routing], event: HistoryEvent) -> None:
        """Move the pointer, then store it; a store that fails never undoes or delays a switch, it is shown."""
        with model.lock:
            model.routing = transform(model.routing)
            self._aspire(model)
            state = {
                "routing": model.routing.to_json(),
                "keep": model.keep,
                "versions": {
                    str(version): _source_to_json(source) for version, source in self._manager.sources(model.name).items()
                },
            }
            with self._noting_problem(model):
                model.store.save(model.name, state, event)

    @contextlib.contextmanager
    def _noting_problem(self, model: _Model) -> Iterator[None]:
        try:
            yield
            model.problem = ""
        except ServingError as error:
            model.problem = f"{error.message}; this kernel goes on, but the change will not survive it ({error.hint})"


def _source_to_json(source: VersionSource) -> dict[str, object]:
    options = source.options
    return {
        "deployed_at": source.deployed_at,
        "device": source.device,
        "max_batch_size": options.max_batch_size,
        "batch_timeout_micros": options.batch_timeout_micros,
        "max_enqueued_batches": options.max_enqueued_batches,
        "allowed_batch_sizes": list(options.allowed_batch_sizes),
    }


def _source_from_json(path: Path, values: Mapping[str, Any]) -> VersionSource:
    options = BatchingOptions(
        max_batch_size=values["max_batch_size"],
        batch_timeout_micros=values["batch_timeout_micros"],
        max_enqueued_batches=values["max_enqueued_batches"],
        allowed_batch_sizes=tuple(values["allowed_batch_sizes"]),
    )
    return VersionSource(path, options, device=values["device"], deployed_at=values["deployed_at"])
