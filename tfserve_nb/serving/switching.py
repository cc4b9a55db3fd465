"""Who gets the requests: promote, roll back, stage, labels, traffic, shadow copies.

Each loads what is needed, then moves one pointer.

Thread: any.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..types import HistoryEvent, Progress, no_progress
from .models.model import ServedModel
from .models.routing import Routing
from .models.state_store import new_event
from .traffic import Shadow


class Switching(ABC):
    """The part of a core that decides which version answers."""

    @abstractmethod
    def _model(self, name: str) -> ServedModel:
        """A served model.

        Raises:
            ModelNotFound: naming those that are served.
        """

    def promote(self, name: str, version: int, progress: Progress = no_progress) -> None:
        """Give all traffic to a version; it is loaded first if need be.

        Raises:
            VersionNotFound: if the model has no such version, naming those it has.
        """
        model = self._model(name)
        with model.loaded([version], progress):
            model.change(lambda routing: routing.promote(version), new_event("promote", version))

    def roll_back(
        self,
        name: str,
        to: int | None = None,
        progress: Progress = no_progress,
        *,
        event: HistoryEvent | None = None,
    ) -> int:
        """Go back to an earlier version; milliseconds while it is still loaded.

        The history gets `event`, or which version answered before.

        Returns:
            The version that answers now.

        Raises:
            VersionNotFound: if there is none.
        """
        model = self._model(name)
        before = model.routing
        target = before.roll_back(to).promoted[-1]
        with model.loaded([target], progress):
            # To the version by number: two clicks at the same time go back one step, not two.
            event = event or new_event("rollback", target, f"from version {before.default_version}")
            model.change(lambda routing: routing.roll_back(target), event)
        return target

    def stage(self, name: str, version: int, progress: Progress = no_progress) -> None:
        """Load a version and keep it loaded, without traffic."""
        model = self._model(name)
        with model.loaded([version], progress):
            model.change(lambda routing: routing.stage(version), new_event("stage", version))

    def set_label(self, name: str, label: str, version: int | None, progress: Progress = no_progress) -> None:
        """Point a label to a version (None removes it); the version is loaded first if need be."""
        model = self._model(name)
        with model.loaded([] if version is None else [version], progress):
            event = new_event("label", version, label if version is not None else f"{label} removed")
            model.change(lambda routing: routing.with_label(label, version), event)

    def set_traffic(self, name: str, weights: Mapping[int, float], progress: Progress = no_progress) -> None:
        """Split the traffic between versions; they are loaded first if need be."""
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
        """Set all that a comparison needs at once; what it needs is loaded first. See `Routing.with_split`.

        The history gets `event`, or the shares in words.
        """
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
        """Give a version copies of requests that others answer (None ends it); it is loaded first if need be.

        Clients never see its answers. Requests that name a version or a label are not copied.

        Args:
            name: the model.
            version: who gets the copies.
            percent: share of the requests that are copied.
            progress: told about each step, on the calling thread.

        Raises:
            InvalidOption: if the version answers everything itself, or the share is none.
            VersionNotFound: if there is no such version.
        """
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
