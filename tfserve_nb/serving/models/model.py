"""One served model: its routing pointer, where its versions come from, and how both change and are stored.

Thread: any. `routing` is read without a lock; everything is written under the model's lock, which is never held while a
version loads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ...errors import ServingError, VersionNotFound
from ...export.layout import list_versions, version_dir
from ...types import HistoryEvent, Progress
from ..backend import ModelSpec, ModelView
from ..batching.options import BatchingOptions
from ..versions.lifecycle import ServableManager
from ..versions.source import VersionSource
from .routing import Routing
from .state_store import StateStore
from .stored_model import StoredModel, read_stored_model

LOAD_LIMIT_S = 600.0


class ServedModel:
    """A model that is deployed: its versions, its routing, and the state that is stored of both.

    Args:
        name: its name.
        base_path: the folder that holds `NAME/VERSION` and the state file.
        keep: versions to keep loaded.
        manager: loads and unloads.
    """

    def __init__(self, name: str, base_path: Path, keep: int, manager: ServableManager) -> None:
        self.name = name
        self.base_path = base_path
        self.keep = keep
        self.routing = Routing(name)
        self.store = StateStore(base_path)
        self.problem = ""
        self._manager = manager
        self._lock = threading.RLock()
        self._pending: list[int] = []

    def inherit(self) -> None:
        """Start from what an earlier kernel stored: its labels and the way back stay, only what is needed is loaded."""
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
        """The version that answers when nothing else is said."""
        return self.routing.default_version

    @property
    def traffic(self) -> Mapping[int, float]:
        """Version -> percent of the requests that name no version."""
        return self.routing.traffic

    @contextlib.contextmanager
    def loaded(self, versions: list[int], progress: Progress) -> Iterator[None]:
        """Keep versions loaded while the body runs; what the routing says decides afterwards.

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
        """Where a version comes from.

        Raises:
            VersionNotFound: naming the versions on disk.
        """
        source = self._manager.sources(self.name).get(version)
        if source is not None and source.path.exists():
            return source
        on_disk = list_versions(self.base_path / self.name)
        if version not in on_disk:
            raise VersionNotFound(
                f"model {self.name} has no version {version!r}; "
                f"it has {', '.join(str(known) for known in on_disk) or 'none'}",
                hint=f"%serving {self.name}",
            )
        return VersionSource(version_dir(self.base_path, self.name, version), BatchingOptions())

    def change(self, transform: Callable[[Routing], Routing], event: HistoryEvent) -> None:
        """Move the pointer, then store it; a store that fails never undoes or delays a switch, it is shown."""
        with self._lock:
            self.routing = transform(self.routing)
            self._aspire()
            self._remember(event)

    def _remember(self, event: HistoryEvent) -> None:
        state = StoredModel(self.routing, self.keep, self._manager.sources(self.name)).stored()
        with self.noting_problem():
            self.store.save(self.name, state, event)

    def stop_routing(self) -> None:
        """Let nothing be loaded or answered any more."""
        with self._lock:
            self.routing = Routing(self.name)
            self._aspire()

    @contextlib.contextmanager
    def noting_problem(self) -> Iterator[None]:
        """Go on when the state file cannot be used; `problem` says why until it can be."""
        try:
            yield
            self.problem = ""
        except ServingError as error:
            self.problem = f"{error.message}; this kernel goes on, but the change will not survive it ({error.hint})"

    def _aspire(self) -> None:
        self._manager.set_aspired(self.name, self.routing.aspired(self.keep) | frozenset(self._pending))
