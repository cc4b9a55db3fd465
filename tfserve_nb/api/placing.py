"""How an exported version gets its requests: at once, or watched by an experiment that can take it back.

Thread: the caller's.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from ..errors import InvalidOption, ServingError
from ..experiment.plan import Limits, Plan
from ..export.saved_model import ExportedVersion
from ..server.handle import Home
from ..serving.models.placement import Placement
from ..serving.versions.source import VersionSource
from ..types import Progress, ProgressEvent


def guard_of(slo_p99_ms: float | None, placement: Placement) -> Limits | None:
    """The limits that `deploy(slo_p99_ms=...)` asks for; None for nothing.

    Raises:
        InvalidOption: if the value is not allowed, or the version gets no requests that could be watched.
    """
    if slo_p99_ms is None:
        return None
    if placement.stage or placement.shadow is not None:
        raise InvalidOption(
            f"slo_p99_ms={slo_p99_ms!r} watches requests, and a staged version gets none",
            hint="leave --stage and --shadow out, or use --canary 10",
        )
    return Limits(slo_p99_ms=slo_p99_ms)


def place(
    home: Home,
    exported: ExportedVersion,
    source: VersionSource,
    folder: Path,
    placement: Placement,
    guard: Limits | None,
    progress: Progress,
) -> None:
    """Load a version and give it its requests.

    Args:
        home: the server.
        exported: the version.
        source: where it comes from.
        folder: the base folder.
        placement: who gets to it.
        guard: limits that it must keep once it has requests; None for no watch.
        progress: told about each step.

    Raises:
        ServingError: if it cannot be loaded, or the experiment that watches it cannot begin.
    """
    name, version = exported.name, exported.version
    before = home.core.model_status(name).default_version if name in home.core.names else None
    if guard is None or before is None:
        home.core.deploy(name, version, source, folder, placement, progress)
        if guard is not None:
            progress(ProgressEvent("switching", 1, 1, "not watched: there is no earlier version to go back to"))
        return
    # The label follows when all else is well: one that had moved would keep the version from being unloaded.
    staged = replace(placement, stage=True, canary=None, label=None)
    home.core.deploy(name, version, source, folder, staged, progress)
    split = 100.0 if placement.canary is None else placement.canary
    try:
        _end_watch(home, name, before)
        home.experiments.start(Plan(name, before, version, split=split, shadow=0.0, limits=guard))
    except BaseException:
        with contextlib.suppress(ServingError):  # the error that led here is what counts
            home.core.undeploy(name, version)
        raise
    if placement.label is not None:
        home.core.set_label(name, placement.label, version)


def _end_watch(home: Home, name: str, version: int) -> None:
    """A version that has all requests and is watched since its deploy has stood its test when the next one comes."""
    state = home.experiments.state(name)
    if state is not None and not state.is_over and (state.plan.b, state.percent) == (version, 100.0):
        home.experiments.end(name, "promote")
