"""A model that follows a configuration: its versions are those that its version policy chooses of a folder.

The highest AVAILABLE version answers requests that name none, as in TensorFlow Serving. Nothing is stored: the
configuration is the state.

Thread: any, as `ServedModel`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ...errors import VersionNotFound
from ...types import HistoryEvent
from ..backend import ModelSpec
from ..versions.lifecycle import ServableManager
from ..versions.source import VersionSource
from .model import ServedModel
from .routing import not_found

MAX_EVENTS = 100


class FollowedModel(ServedModel):
    """A model of the core whose versions are those of the last `set_versions`.

    Args:
        name: its name.
        base_path: the folder that holds the version folders.
        manager: loads and unloads.

    Attributes:
        events: what happened to it, newest first.
        versions: the versions that should be loaded.
    """

    def __init__(self, name: str, base_path: Path, manager: ServableManager) -> None:
        super().__init__(name, base_path, 0, manager)
        self.events: tuple[HistoryEvent, ...] = ()
        self.versions: frozenset[int] = frozenset()

    def set_versions(self, sources: Mapping[int, VersionSource]) -> None:
        """Aspire exactly these versions. A version that failed is tried again only after it was removed and added.

        What was promoted or split by hand holds as long as its versions are there.
        """
        with self._lock:
            for version, source in sources.items():
                if version not in self.versions:
                    self._manager.set_source(self.name, version, replace(source, deployed_at=time.time()))
            self.versions = frozenset(sources)
            # Before anything is unloaded: no request may be sent to a version that is on its way out.
            self.routing = replace(self.routing.restricted_to(self.versions), labels=self.routing.labels)
            self._aspire()

    def source_of(self, version: int) -> VersionSource:
        """Where a version comes from; only those that the configuration serves can be asked for.

        Raises:
            VersionNotFound: naming them.
        """
        source = self._manager.sources(self.name).get(version)
        if source is None or version not in self.versions:
            raise VersionNotFound(
                f"model {self.name} serves no version {version!r}; "
                f"its configuration serves {', '.join(map(str, sorted(self.versions))) or 'none'}",
                hint="change its model_version_policy",
            )
        return source

    def history(self, limit: int) -> list[HistoryEvent]:
        """The newest events; nothing is stored of a followed model."""
        return list(self.events[:limit])

    def set_labels(self, labels: Mapping[str, int]) -> None:
        """Replace all labels at once."""
        with self._lock:
            self.routing = replace(self.routing, labels=dict(labels))

    def version_for(
        self, spec: ModelSpec, draw: Callable[[], float], preferred: int | None = None, key: str = ""
    ) -> int:
        """The version that answers a request: the highest AVAILABLE one, unless the request or a split decides."""
        if spec.version is not None or spec.label is not None or self.routing.traffic:
            return self.routing.version_for(spec, draw, preferred, key)
        version = self.default_version
        if version is None:
            raise not_found(spec)
        return version

    @property
    def default_version(self) -> int | None:
        """The promoted version, or else the highest that is AVAILABLE."""
        available = self._manager.available(self.name)
        return self.routing.default_version or max(available, default=None)

    @property
    def traffic(self) -> Mapping[int, float]:
        """The split if there is one, else everything for the default version."""
        version = self.default_version
        return self.routing.traffic or ({} if version is None else {version: 100.0})

    def _aspire(self) -> None:
        self._manager.set_aspired(self.name, self.versions | frozenset(self._pending))

    def _remember(self, event: HistoryEvent) -> None:
        self.events = (event, *self.events)[:MAX_EVENTS]
