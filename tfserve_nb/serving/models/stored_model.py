"""How a model was served, as JSON for the state file, and back.

Thread: any; pure functions but for a look at which versions are on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON

from ...export.layout import list_versions, version_dir
from ..batching.options import BatchingOptions
from ..versions.source import VersionSource
from .routing import Routing


@dataclass(frozen=True, slots=True)
class StoredModel:
    """What an earlier kernel left behind.

    Attributes:
        routing: as it was, versions that are gone included.
        keep: versions to keep loaded.
        sources: version -> how to load it, for the versions that are on disk.
    """

    routing: Routing
    keep: int
    sources: Mapping[int, VersionSource]


def to_json(routing: Routing, keep: int, sources: Mapping[int, VersionSource]) -> dict[str, Any]:
    """A JSON object that `from_json` reads."""
    return {
        "routing": routing.to_json(),
        "keep": keep,
        "versions": {str(version): source_to_json(source) for version, source in sources.items()},
    }


def from_json(name: str, base_path: Path, value: Mapping[str, Any]) -> StoredModel:
    """The inverse of `to_json`; versions that appeared on disk since get default options."""
    sources = {}
    for version in list_versions(base_path / name):
        path = version_dir(base_path, name, version)
        stored = value["versions"].get(str(version))
        sources[version] = source_from_json(path, stored) if stored else VersionSource(path, BatchingOptions())
    return StoredModel(Routing.from_json(name, value["routing"]), int(value["keep"]), sources)


def source_to_json(source: VersionSource) -> dict[str, Any]:
    """How a version is loaded, but for its folder, as a JSON object."""
    options = source.options
    return {
        "deployed_at": source.deployed_at,
        "device": source.device,
        "max_batch_size": options.max_batch_size,
        "batch_timeout_micros": options.batch_timeout_micros,
        "max_enqueued_batches": options.max_enqueued_batches,
        "allowed_batch_sizes": list(options.allowed_batch_sizes),
    }


def source_from_json(path: Path, value: Mapping[str, Any]) -> VersionSource:
    """The inverse of `source_to_json`."""
    options = BatchingOptions(
        max_batch_size=value["max_batch_size"],
        batch_timeout_micros=value["batch_timeout_micros"],
        max_enqueued_batches=value["max_enqueued_batches"],
        allowed_batch_sizes=tuple(value["allowed_batch_sizes"]),
    )
    return VersionSource(path, options, device=value["device"], deployed_at=value["deployed_at"])
