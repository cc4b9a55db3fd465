"""One served model: its routing pointer, where its versions come from, how both change, are stored and resumed.

Thread: any. `routing` is read without a lock; everything is written under the model's lock, which is never held while a
version loads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any  # JSON

from ...errors import InvalidOption, ServingError, VersionNotFound
from ...export.layout import check_name, deletable_dir, delete_version, list_versions, version_dir
from ...serialization import from_json, to_json
from ...types import EngineMeasurement, HistoryEvent, Progress, Tensors
from ..backend import ModelSpec, ModelView
from ..batching.options import BatchingOptions
from ..versions.lifecycle import ServableManager
from ..versions.source import VersionSource
from .fitness import check_fitness
from .routing import Routing
from .state_store import StateStore, new_event

LOAD_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class StoredModel:
    """How a model was served, as the state file keeps it.

    Attributes:
        routing: as it was, versions that are gone included.
        keep: versions to keep loaded.
        versions: version -> how to load it.
    """

    routing: Routing
    keep: int
    versions: Mapping[int, VersionSource]


class ServedModel:
    """A model that is deployed: its versions, its routing, and the state that is stored of both.

    Args:
        name: its name.
        base_path: the folder that holds `NAME/VERSION` and the state file.
        keep: versions to keep loaded.
        manager: loads and unloads.

    Raises:
        InvalidOption: if the name is not allowed; there is no other way to serve a model than through here.
    """

    def __init__(self, name: str, base_path: Path, keep: int, manager: ServableManager) -> None:
        self.name = check_name(name)
        self.base_path = base_path
        self.keep = keep
        self.routing = Routing(name)
        self.store = StateStore(base_path)
        self.problem = ""
        self._manager = manager
        self._lock = threading.RLock()
        self._pending: list[int] = []

    def inherit(self) -> None:
        """Start from what an earlier kernel stored: labels and earlier versions stay; only what is used is loaded."""
        with self.noting_problem():
            state = self.store.load().get(self.name)
            if state is None:
                return
            stored = read_stored_model(self.name, self.base_path, state)
            routing = stored.routing.restricted_to(frozenset(stored.versions))
            self.routing = replace(routing, recent=())
            for version in routing.aspired(0):
                self._manager.set_source(self.name, version, stored.versions[version])

    def version_for(
        self, spec: ModelSpec, draw: Callable[[], float], preferred: int | None = None, key: str = ""
    ) -> int:
        """The version that answers a request; see `Routing.version_for`."""
        return self.routing.version_for(spec, draw, preferred, key)

    def view(self, *, wants_tensors: bool) -> ModelView:
        """What servers in other processes have to know of it."""
        routing = self.routing
        return ModelView(
            self.traffic,
            routing.labels,
            self._manager.views(self.name),
            routing.salt or self.name,
            routing.key_header,
            routing.arms,
            wants_tensors,
        )

    @property
    def default_version(self) -> int | None:
        """The version that answers requests that name none."""
        return self.routing.default_version

    @property
    def traffic(self) -> Mapping[int, float]:
        """Version -> percent of the requests that name no version."""
        return self.routing.traffic

    @contextlib.contextmanager
    def loaded(self, versions: list[int], progress: Progress) -> Iterator[None]:
        """Keep versions loaded while the body runs; afterwards the routing decides which stay.

        Raises:
            VersionNotFound: if a version is not there.
            ServingError: if one cannot be loaded.
        """
        for version in versions:
            self._manager.set_source(self.name, version, self.source_of(version))
        with self._lock:
            self._pending += versions
            self._aspire()
        try:
            for version in versions:
                self._manager.start_anew(self.name, version)
                self._manager.wait(self.name, version, LOAD_LIMIT_S, progress)
            yield
        finally:
            with self._lock:
                for version in versions:
                    self._pending.remove(version)
                self._aspire()

    def source_of(self, version: int) -> VersionSource:
        """Where a version comes from; one that is loaded needs no folder any more.

        Raises:
            VersionNotFound: naming the versions on disk.
        """
        source = self._manager.sources(self.name).get(version)
        if source is not None and (version in self._manager.available(self.name) or source.path.exists()):
            return source
        on_disk = list_versions(self.base_path / self.name)
        if version not in on_disk:
            raise VersionNotFound(
                f"model {self.name} has no version {version!r}; "
                f"it has {', '.join(str(known) for known in on_disk) or 'none'}",
                hint=f"%serving {self.name}",
            )
        return VersionSource(version_dir(self.base_path, self.name, version), BatchingOptions())

    def set_engine(self, engine: str | None, version: int | None, progress: Progress) -> list[EngineMeasurement]:
        """Let another engine run a loaded version, or (None) measure anew; see `ModelAdmin.set_engine`.

        Raises:
            VersionNotFound: naming the versions that are loaded.
        """
        chosen = self._loaded_version(version)
        measured = self._manager.set_engine(self.name, chosen, engine, progress)
        if engine is not None:
            self.change(lambda same: same, new_event("engine", chosen, engine))
        return measured

    def give_rows(self, rows: Tensors, version: int | None) -> None:
        """Keep rows that the engines of a loaded version are compared on; see `ModelAdmin.give_rows`.

        Raises:
            VersionNotFound: naming the versions that are loaded.
        """
        self._manager.give_rows(self.name, self._loaded_version(version), rows)

    def _loaded_version(self, version: int | None) -> int:
        """A version that is loaded, by default the promoted one.

        Raises:
            VersionNotFound: naming the versions that are loaded.
        """
        chosen = self.default_version if version is None else version
        available = self._manager.available(self.name)
        if chosen is None or chosen not in available:
            loaded = ", ".join(map(str, sorted(available))) or "none"
            raise VersionNotFound(f"version {chosen} of model {self.name} is not loaded", hint=f"loaded: {loaded}")
        return chosen

    def deletable(self, version: int | None, *, force: bool) -> list[int]:
        """The versions whose folders `--delete` removes: one, or all of them; none for one whose folder is gone.

        Raises:
            InvalidOption: if one of them may not be removed.
        """
        on_disk = list_versions(self.base_path / self.name)
        versions = [number for number in on_disk if version in (None, number)]
        for number in versions:
            self._check_deletable(number, force=force)
        return versions

    def delete(self, version: int, *, force: bool) -> None:
        """Remove the folder of a version.

        Raises:
            InvalidOption: if it may not be removed.
            ServingError: if it cannot.
        """
        self._check_deletable(version, force=force)
        delete_version(self.base_path, self.name, version)

    def forget(self, deleted: Sequence[int], *, force: bool) -> None:
        """Remove what is stored of it, once nothing is routed to it, and the folders of some versions.

        Raises:
            ServingError: if a folder cannot be removed.
        """
        with self.noting_problem():
            # With the highest number, so that it is not used again.
            event = new_event("undeploy", max(deleted, default=None), "deleted" if deleted else "")
            self.store.forget(self.name, event)
        for number in deleted:
            self.delete(number, force=force)

    def _check_deletable(self, version: int, *, force: bool) -> None:
        folder = deletable_dir(self.base_path, self.name, version)
        if not force and self._manager.is_used_elsewhere(self.name, version, folder):
            raise InvalidOption(
                f"version {version} of {self.name} is not deleted: another process serves it from {folder}",
                hint=f"undeploy it there first, or %undeploy {self.name} --version {version} --delete --force",
            )

    def change(self, transform: Callable[[Routing], Routing], event: HistoryEvent) -> None:
        """Move the pointer, then store it; a failure to store never undoes or delays a switch, it is shown.

        Raises:
            FailedPrecondition: if it would give requests to a version that cannot answer.
            InvalidOption: if it would give copies to a version that they change.
        """
        with self._lock:
            routing = transform(self.routing)
            serving = {*self.traffic, *self.routing.promoted}
            check_fitness(self.routing, routing, serving, self._manager.status(self.name))
            self.routing = routing
            self._aspire()
            self._remember(event)

    def _remember(self, event: HistoryEvent) -> None:
        state = to_json(StoredModel(self.routing, self.keep, self._manager.sources(self.name)))
        with self.noting_problem():
            self.store.save(self.name, state, event)

    def history(self, limit: int) -> list[HistoryEvent]:
        """The newest events, newest first; see `ModelAdmin.history`."""
        return self.store.history(self.name, limit)

    def stop_routing(self) -> None:
        """Route no requests any more, and unload all versions."""
        with self._lock:
            self.routing = Routing(self.name)
            self._aspire()

    @contextlib.contextmanager
    def noting_problem(self) -> Iterator[None]:
        """Go on when the state file cannot be used; `problem` holds the reason until it can be."""
        try:
            yield
            self.problem = ""
        except ServingError as error:
            self.problem = f"{error.message}; this kernel goes on, but the change will not survive it ({error.hint})"

    def _aspire(self) -> None:
        self._manager.set_aspired(self.name, self.routing.aspired(self.keep) | frozenset(self._pending))


def read_stored_model(name: str, base_path: Path, value: Any) -> StoredModel:
    """The inverse of `to_json(StoredModel)`, with the versions that are on disk now.

    Versions that appeared on disk since get default options; files may also have been moved with their folder.

    Args:
        name: the model.
        base_path: the folder that holds `NAME/VERSION`.
        value: from the state file.

    Raises:
        ServingError: if something is missing or of another kind, or the name is not allowed.
    """
    check_name(name)
    if not isinstance(value, Mapping):
        raise ServingError(
            f"the stored state of model {name!r} in {base_path} cannot be read: {value!r:.60} is no JSON object",
            hint="deploy it anew",
        )
    on_disk = {version: version_dir(base_path, name, version) for version in list_versions(base_path / name)}
    try:
        kept = {
            version: {**value["versions"][str(version)], "path": str(path)}
            for version, path in on_disk.items()
            if str(version) in value["versions"]
        }
        routing = {"name": name, **value["routing"]}
        stored = from_json({**value, "routing": routing, "versions": kept}, StoredModel)
        stored.routing.check()
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, InvalidOption) as error:
        raise ServingError(
            f"the stored state of model {name!r} in {base_path} cannot be read: {type(error).__name__}: {error}",
            hint="deploy it anew",
        ) from error
    unknown = {
        version: VersionSource(path, BatchingOptions()) for version, path in on_disk.items() if version not in kept
    }
    return StoredModel(stored.routing, stored.keep, {**unknown, **stored.versions})


@contextlib.contextmanager
def resumed(
    manager: ServableManager, stored: StoredModel, base_path: Path, progress: Progress
) -> Iterator[tuple[ServedModel, list[str]]]:
    """A model with the versions that it had, as far as they can be loaded; they stay loaded while the body runs.

    Args:
        manager: loads them.
        stored: what is known of the model.
        base_path: the folder that holds `NAME/VERSION`.
        progress: called with each step.

    Yields:
        The model, which is not served yet, and what could not be brought back, in words.
    """
    name = stored.routing.name
    on_disk = frozenset(stored.versions)
    routing = stored.routing.restricted_to(on_disk)
    gone = sorted(stored.routing.aspired(stored.keep) - on_disk)
    problems = [f"version {version} is no longer on disk" for version in gone]
    model = ServedModel(name, base_path, stored.keep, manager)
    for version, source in stored.versions.items():
        manager.set_source(name, version, source)
    loaded: set[int] = set()
    with contextlib.ExitStack() as held:
        for version in sorted(routing.aspired(stored.keep)):
            try:
                held.enter_context(model.loaded([version], progress))
                loaded.add(version)
            except ServingError as error:
                problems.append(f"version {version}: {error.message}")
        model.routing = routing.restricted_to(frozenset(loaded))
        yield model, problems
