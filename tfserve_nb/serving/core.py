"""The core of a server: models, their versions and routing, behind an `InferenceBackend`.

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
from dataclasses import replace
from pathlib import Path
from typing import Any  # what users predict on

from ..errors import InvalidOption, ModelNotFound, ServingError, VersionNotFound
from ..export.layout import check_folder, check_name, check_version, list_versions, sweep
from ..types import (
    EngineMeasurement,
    HistoryEvent,
    ModelStatus,
    Progress,
    ProgressEvent,
    Tensors,
    VersionStatus,
    no_progress,
)
from . import direct
from .backend import Key, ModelSpec, ModelView, assignment_of, found_key
from .engines.accelerated import SavedModelLoader
from .engines.kinds import check_engine
from .engines.servable import Loader
from .models.coming import ComingModels
from .models.followed import FollowedModel
from .models.model import ServedModel, read_stored_model, resumed
from .models.placement import Placement
from .models.routing import Routing, not_found
from .models.state_store import StateStore, new_event
from .shadow import ShadowCopies
from .telemetry.capture import CapturedRequests, Captures, CaptureSettings
from .telemetry.metrics import Metrics
from .telemetry.model_metrics import ModelMetrics
from .telemetry.observer import Observers
from .telemetry.records import RequestRecord, RequestTensors
from .telemetry.request_samples import KEPT, RequestSamples, Samples
from .telemetry.resources import ResourceReader, Resources
from .traffic import Shadow
from .versions.lifecycle import ServableManager
from .versions.source import VersionSource
from .versions.version import VersionHandle

UNLOAD_WAIT_S = 40.0


class ServingCore:
    """Models, versions, routing and metrics of one process. Implements `InferenceBackend` and `ModelAdmin`.

    Args:
        loader: turns a version folder into a servable.
        num_run_threads: batches that may run at the same time on one device.
        now: the clock in seconds.
        draw: uniform numbers on [0, 1) for the traffic split; by default not from the generator that users seed.

    Attributes:
        metrics: counts requests.
        samples: some requests of the models that are sampled, in full.
        captures: the requests of the models that are captured, for a replay.
        observers: get requests, batches, warm-ups, shadow copies and resumed models.
        copies: the shadow copies and their counts.
    """

    def __init__(
        self,
        loader: Loader = SavedModelLoader(),  # noqa: B008 - it keeps nothing
        *,
        num_run_threads: int = 1,
        now: Callable[[], float] = time.perf_counter,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self.metrics = Metrics(now)
        self.samples = RequestSamples(now)
        self.captures = Captures()
        self.observers = Observers()
        self._coming = ComingModels()
        self._models: dict[str, ServedModel] = {}
        self._resources = ResourceReader()
        self._manager = ServableManager(
            loader, num_run_threads=num_run_threads, observers=self.observers, seen=self.captures.inputs_of, now=now
        )
        self._draw = draw or random.Random().random  # noqa: S311 - no secret
        self.copies = ShadowCopies(self._manager.acquire, self._copied_to, self.observers, draw=self._draw, now=now)
        self._lock = threading.Lock()

    @property
    def coming(self) -> frozenset[str]:
        """Models that are being resumed, or are about to be."""
        return self._coming.names

    def start(self) -> None:
        """Start the threads of the manager and of shadow copies."""
        self._manager.start()
        self.copies.start()

    def stop(self) -> None:
        """Stop all threads and free all versions. Idempotent, bounded."""
        self._models = {}
        self.copies.stop()
        self._manager.stop()

    # --- InferenceBackend ----------------------------------------------------------------------------------------

    def acquire(self, spec: ModelSpec, preferred: int | None = None, key: Key | None = None) -> VersionHandle:
        """Choose and pin a version; see `InferenceBackend.acquire`."""
        model = self._models.get(spec.name)
        if model is None:
            self._coming.check(spec.name)
            raise not_found(spec)
        # The routing may move between reading it and pinning; it always moves before a version is unloaded, so the
        # second try finds a version that can answer.
        for _ in range(3):
            routing = model.routing
            version, key_text = routing.sole, ""
            if not routing.is_plain:
                key_text = found_key(key, routing.key_header)
            if version is None or spec.version is not None or spec.label is not None:
                version = model.version_for(spec, self._draw, preferred, key_text)
            handle = self._manager.acquire(spec.name, version)
            if handle is not None:
                if not routing.is_plain:
                    handle.assignment = assignment_of(spec, version, key_text, routing.traffic, routing.arms)
                    handle.copier = self.copies.copier(spec, version, routing.copies_of(version))
                if self.observers.hears_requests:
                    handle.wants_tensors = self.observers.wants_tensors(spec.name)
                return handle
        raise not_found(ModelSpec(spec.name, version))

    def wake(self) -> None:
        """Start what was submitted without waking; see `InferenceBackend.wake`."""
        self._manager.wake()

    def status(self, spec: ModelSpec) -> tuple[VersionStatus, ...]:
        """The states of versions; see `InferenceBackend.status`."""
        versions = self._manager.status(spec.name)
        if not versions:
            self._coming.check(spec.name)
            raise ModelNotFound(f"Could not find any versions of model {spec.name}")
        if spec.version is None:
            return versions
        found = tuple(status for status in versions if status.version == spec.version)
        if not found:
            raise VersionNotFound(f"Could not find version {spec.version} of model {spec.name}")
        return found

    def record(self, record: RequestRecord, tensors: RequestTensors | None = None) -> None:
        """Count a finished request and pass it to the observers; unknown models are counted together."""
        if self.observers.hears_requests:
            self.observers.on_request(record, tensors)
        if record.version is None and record.model not in self._models:
            record = record._replace(model="")
        self.metrics.record(record)

    def catalog(self) -> dict[str, ModelView]:
        """What is served now; see `InferenceBackend.catalog`."""
        return {
            name: model.view(wants_tensors=self.observers.wants_tensors(name)) for name, model in self._models.items()
        }

    # --- administration -----------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are served."""
        return tuple(sorted(self._models))

    def model_status(self, name: str) -> ModelStatus:
        """See `ModelAdmin.model_status`."""
        model = self._model(name)
        return ModelStatus(
            name=name,
            versions=self._manager.status(name),
            default_version=model.default_version,
            traffic=model.traffic,
            labels=model.routing.labels,
            shadow=model.routing.shadow,
            key_header=model.routing.key_header,
            problem=model.problem,
            on_disk=tuple(list_versions(model.base_path / name)),
            base_path=model.base_path,
            highest_version=self.highest_version(name),
            used=tuple(version for version in self.available(name) if self.uses(name, version)),
        )

    def predict(
        self, spec: ModelSpec, signature: str, value: Any, limit_s: float, key: str = "", request_id: str = ""
    ) -> Tensors:
        """See `ModelAdmin.predict`; without a socket, as `direct.predict`."""
        rows = self.max_batch_size(spec.name)
        return direct.predict(self, spec, signature, value, rows=rows, limit_s=limit_s, key=key, request_id=request_id)

    def uses(self, name: str, version: int) -> bool:
        """See `ModelAdmin.uses`."""
        return name in self._models and version in self._models[name].routing.aspired(0)

    def available(self, name: str) -> tuple[int, ...]:
        """See `ModelAdmin.available`."""
        return tuple(sorted(self._manager.available(name)))

    def base_path(self, name: str) -> Path | None:
        """The folder that a served model's versions lie in, or None when it is not served."""
        model = self._models.get(name)
        return None if model is None else model.base_path

    def highest_version(self, name: str) -> int:
        """The highest version that was ever served here; 0 when there is none. A number is not used twice."""
        if name not in self._models:
            return 0
        known = (status.version for status in self._manager.status(name) if status.error_code == "OK")
        return max(self._manager.highest(name), *known, 0)

    def max_batch_size(self, name: str) -> int:
        """Rows that every known version of a model runs at once; `ModelNotFound` if it is not served."""
        self._model(name)
        return min([source.options.max_batch_size for source in self._manager.sources(name).values()], default=1)

    def deploy(
        self,
        name: str,
        version: int,
        source: VersionSource,
        base_path: Path,
        placement: Placement,
        progress: Progress = no_progress,
    ) -> None:
        """See `ModelAdmin.deploy`."""
        check_name(name)
        check_version(version)
        check_folder(source.path)
        check_folder(base_path)
        if name not in self._models:
            sweep(base_path)
        with self._lock:
            model = self._models.get(name)
            _check_unconfigured(model)
            is_new = model is None
            if model is None:
                model = ServedModel(name, base_path, placement.keep, self._manager)
                model.inherit()
                self._add(model)
        model.keep = placement.keep
        self._manager.set_source(name, version, source)
        try:
            with model.loaded([version], progress):
                progress(ProgressEvent("switching", 0, 1))
                model.change(
                    lambda routing: placement.route(routing, version), new_event("deploy", version, str(placement))
                )
        except BaseException:
            if is_new and not model.routing.recent:
                self._drop(model)
            raise
        if is_new:
            self._manager.wait_until_settled(name, frozenset(model.traffic))  # inherited traffic needs its versions
            self.observers.on_resumed(name)  # what it inherited may be a split that an experiment made

    def undeploy(self, name: str, version: int | None = None, *, delete: bool = False, force: bool = False) -> None:
        """See `ModelAdmin.undeploy`."""
        model = self._model(name)
        _check_unconfigured(model)
        deleted = model.deletable(version, force=force) if delete else ()
        if version is None:
            gone = frozenset(self._manager.sources(name))
            model.stop_routing()
            self._manager.wait_until_gone(name, gone, UNLOAD_WAIT_S)
            self._drop(model)
            model.forget(deleted, force=force)
            return
        model.source_of(version)
        action = "delete" if delete else "unload"
        model.change(lambda routing: routing.without(version), new_event(action, version))
        self._manager.wait_until_gone(name, frozenset({version}), UNLOAD_WAIT_S)
        for number in deleted:
            model.delete(number, force=force)

    def history(self, name: str, limit: int = 100) -> list[HistoryEvent]:
        """See `ModelAdmin.history`."""
        return self._model(name).history(limit)

    def follow(self, name: str, base_path: Path) -> FollowedModel:
        """Serve a model whose versions a configuration decides about; see `configured.ConfiguredModels`."""
        model = FollowedModel(name, base_path, self._manager)
        with self._lock:
            self._add(model)
        return model

    def unfollow(self, model: FollowedModel) -> None:
        """Unload a followed model; `status` still reports its versions."""
        model.set_versions({})
        self._remove(model)

    def wait_until_settled(self, name: str, versions: frozenset[int]) -> dict[int, VersionStatus]:
        """Block until versions have been loaded or have failed, as `ServableManager.wait_until_settled`."""
        self._manager.wait_until_settled(name, versions)
        return {status.version: status for status in self._manager.status(name) if status.version in versions}

    def expect(self, names: Iterable[str]) -> None:
        """Models that are about to be resumed: until then, requests for them may be sent again."""
        self._coming.add(*names)

    def resume(
        self, base_path: Path, only: str | None = None, progress: Progress = no_progress
    ) -> dict[str, list[str]]:
        """See `ModelAdmin.resume`."""
        problems: dict[str, list[str]] = {}
        coming = [] if only is None else [only]
        try:
            sweep(check_folder(base_path))
            states = StateStore(base_path).load()
            wanted = sorted(name for name in states if name not in self._models and only in (None, name))
            coming += wanted
            self.expect(wanted)
            for name in wanted:
                try:
                    problems[name] = self._resume(name, states[name], base_path, progress)
                except (ServingError, OSError) as error:  # it costs this model only
                    problems[name] = [str(error)]
                finally:
                    self._coming.remove(name)
        finally:
            self._coming.remove(*coming)
        return problems

    def _resume(self, name: str, state: Any, base_path: Path, progress: Progress) -> list[str]:
        """Serve one model as it was; what could not be brought back, in words."""
        stored = read_stored_model(name, base_path, state)
        with resumed(self._manager, stored, base_path, progress) as (model, problems):
            with self._lock:
                self._add(model)
            model.change(lambda same: same, new_event("resume", model.routing.default_version))
            self.observers.on_resumed(name)
        return problems

    # --- which version answers -----------------------------------------------------------------------------------

    def promote(self, name: str, version: int, progress: Progress = no_progress) -> None:
        """See `ModelAdmin.promote`."""
        model = self._model(name)
        with model.loaded([version], progress):
            model.change(lambda routing: routing.promote(version), new_event("promote", version))

    def roll_back(
        self, name: str, to: int | None = None, progress: Progress = no_progress, *, event: HistoryEvent | None = None
    ) -> int:
        """See `ModelAdmin.roll_back`; the history gets `event`, or which version answered before."""
        model = self._model(name)
        before = model.routing
        target = before.roll_back(to).promoted[-1]
        with model.loaded([target], progress):
            # To the version by number: two clicks at the same time go back one step, not two.
            event = event or new_event("rollback", target, f"from version {before.default_version}")
            model.change(lambda routing: routing.roll_back(target), event)
        return target

    def stage(self, name: str, version: int, progress: Progress = no_progress) -> None:
        """See `ModelAdmin.stage`."""
        model = self._model(name)
        with model.loaded([version], progress):
            model.change(lambda routing: routing.stage(version), new_event("stage", version))

    def set_label(self, name: str, label: str, version: int | None, progress: Progress = no_progress) -> None:
        """See `ModelAdmin.set_label`."""
        model = self._model(name)
        model.routing.with_label(label, version)
        with model.loaded([] if version is None else [version], progress):
            event = new_event("label", version, label if version is not None else f"{label} removed")
            model.change(lambda routing: routing.with_label(label, version), event)

    def set_traffic(self, name: str, weights: Mapping[int, float], progress: Progress = no_progress) -> None:
        """See `ModelAdmin.set_traffic`."""
        model = self._model(name)
        model.routing.with_traffic(weights)
        wanted = [version for version, percent in weights.items() if percent > 0]
        with model.loaded(wanted, progress):
            detail = ", ".join(f"version {version}: {weights[version]:g} %" for version in sorted(wanted))
            model.change(lambda routing: routing.with_traffic(weights), new_event("traffic", None, detail))

    def set_split(
        self,
        name: str,
        weights: Mapping[int, float],
        *,
        salt: str | None = None,
        key_header: str | None = None,
        arms: Mapping[int, str] | None = None,
        shadow: tuple[int, float] | None = None,
        event: HistoryEvent | None = None,
        progress: Progress = no_progress,
    ) -> None:
        """See `ModelAdmin.set_split`; the history gets `event`, or the shares in words."""
        model = self._model(name)
        copies = None if shadow is None else Shadow(*shadow)

        def split(routing: Routing) -> Routing:
            return routing.with_split(weights, salt=salt, key_header=key_header, arms=arms, shadow=copies)

        split(model.routing)
        shares = {version: percent for version, percent in sorted(weights.items()) if percent > 0}
        needed = sorted({*shares, *(arms or {}), *(() if copies is None else (copies.version,))})
        words = [f"version {version}: {percent:g} %" for version, percent in shares.items()]
        words += [] if copies is None else [f"copies of {copies.percent:g} % to version {copies.version}"]
        with model.loaded(needed, progress):
            model.change(split, event or new_event("traffic", None, ", ".join(words)))

    def set_shadow(
        self, name: str, version: int | None, percent: float = 100.0, progress: Progress = no_progress
    ) -> None:
        """See `ModelAdmin.set_shadow`."""
        model = self._model(name)
        shadow = None if version is None else Shadow(version, percent)
        replace(model.routing, traffic=model.traffic).with_shadow(shadow)
        with model.loaded([] if version is None else [version], progress):
            detail = "ended" if version is None else f"copies of {percent:g} % of the requests"
            model.change(lambda routing: routing.with_shadow(shadow), new_event("shadow", version, detail))

    @contextlib.contextmanager
    def holding(self, name: str, versions: Iterable[int]) -> Iterator[None]:
        """Keep versions loaded while the body runs, loading them first; the routing decides afterwards."""
        with self._model(name).loaded(list(versions), no_progress):
            yield

    def arms(self, name: str) -> Mapping[int, str]:
        """Version -> `a` or `b` while an experiment splits the traffic of a model."""
        return self._model(name).routing.arms

    # --- metrics, samples, captures, resource usage --------------------------------------------------------------

    def model_metrics(
        self, name: str, span_s: int = 120, step_s: int = 2, signature: str | None = None
    ) -> ModelMetrics:
        """The numbers of a model; see `Metrics.snapshot`."""
        self.metrics.forget_versions(name, {status.version for status in self._manager.status(name)})
        metrics = self.metrics.snapshot(name, span_s=span_s, step_s=step_s, signature=signature)
        return metrics.with_batches(self._manager.batches(name))

    def recent_samples(self, name: str, limit: int = KEPT) -> Samples:
        """What was sampled of a model's requests; see `ModelAdmin.recent_samples`."""
        self._model(name)
        return Samples(self.samples.wants_tensors(name), tuple(self.samples.recent(name, limit)))

    def sample_requests(self, name: str, *, is_on: bool) -> None:
        """See `ModelAdmin.sample_requests`."""
        self._model(name)
        with self._lock:
            self.samples.switch(name, is_on=is_on)
            self._observe(self.samples)

    def capture(self, name: str, settings: CaptureSettings | None, *, clear: bool = False) -> None:
        """Begin or end capturing a model's requests; see `ModelAdmin.capture`.

        Raises:
            InvalidOption: if `redact` names an input that no loaded version has: a slip there would keep everything.
        """
        self._model(name)
        if settings is not None:
            settings.check_names(name, self._input_names(name))
        with self._lock:
            self.captures.configure(name, settings, clear=clear)
            self._observe(self.captures)

    def captured(self, name: str, limit: int | None = None) -> CapturedRequests:
        """What was captured of a model's requests; see `ModelAdmin.captured`."""
        self._model(name)
        return self.captures.requests_of(name, limit)

    def resources(self) -> Resources:
        """See `ModelAdmin.resources`."""
        return self._resources.read()

    # --- helpers -----------------------------------------------------------------------------------------------

    def set_engine(
        self, name: str, engine: str, version: int | None = None, progress: Progress = no_progress
    ) -> list[EngineMeasurement]:
        """See `ModelAdmin.set_engine`."""
        return self._model(name).set_engine(check_engine(engine), version, progress)

    def measure_engines(
        self, name: str, version: int | None = None, progress: Progress = no_progress
    ) -> list[EngineMeasurement]:
        """See `ModelAdmin.measure_engines`."""
        return self._model(name).set_engine(None, version, progress)

    def give_rows(self, name: str, rows: Tensors, version: int | None = None) -> None:
        """See `ModelAdmin.give_rows`."""
        self._model(name).give_rows(rows, version)

    def _model(self, name: str) -> ServedModel:
        """A served model.

        Raises:
            ModelNotFound: naming those that are served.
        """
        model = self._models.get(name)
        if model is None:
            self._coming.check(name)
            known = ", ".join(self.names) or "none"
            raise ModelNotFound(
                f"no model {name!r} is served here; served: {known}",
                hint=f"%deploy MODEL --name {name}, or %serving --resume",
            )
        return model

    def _copied_to(self, name: str) -> frozenset[int]:
        """The versions that get copies of a model's requests now."""
        model = self._models.get(name)
        return frozenset() if model is None else model.routing.copied_to

    def _input_names(self, model: str) -> frozenset[str]:
        """Names of the inputs of all signatures of a model's loaded versions."""
        views = self._manager.views(model).values()
        return frozenset(name for view in views for signature in view.signatures.values() for name in signature.inputs)

    def _add(self, model: ServedModel) -> None:
        """Serve a model; the caller holds the lock."""
        self._coming.remove(model.name)
        self._models = {**self._models, model.name: model}

    def _remove(self, model: ServedModel) -> None:
        with self._lock:
            self._models = {name: other for name, other in self._models.items() if other is not model}

    def _drop(self, model: ServedModel) -> None:
        self._remove(model)
        self._manager.forget(model.name)
        self.metrics.forget(model.name)
        with self._lock:
            for observer in (self.samples, self.captures):
                observer.forget(model.name)
                self._observe(observer)

    def _observe(self, observer: RequestSamples | Captures) -> None:
        """Add an observer while it wants any model, and remove it otherwise: requests cost nothing more then.

        The caller holds the lock.
        """
        (self.observers.add if observer.is_on else self.observers.remove)(observer)


def _check_unconfigured(model: ServedModel | None) -> None:
    if isinstance(model, FollowedModel):
        raise InvalidOption(f"model {model.name} follows this server's configuration", hint="add and remove it there")
