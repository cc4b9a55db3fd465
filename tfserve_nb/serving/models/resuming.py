"""Bring a model back as an earlier process left it.

Thread: any.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ...errors import ServingError
from ...types import Progress
from ..versions.lifecycle import ServableManager
from .model import ServedModel
from .stored_model import StoredModel


@contextlib.contextmanager
def resumed(
    manager: ServableManager, stored: StoredModel, base_path: Path, progress: Progress
) -> Iterator[tuple[ServedModel, list[str]]]:
    """A model with the versions that it had, as far as they can be loaded; they stay loaded while the body runs.

    Args:
        manager: loads them.
        stored: what is known of the model.
        base_path: the folder that holds `NAME/VERSION`.
        progress: told about each step.

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
