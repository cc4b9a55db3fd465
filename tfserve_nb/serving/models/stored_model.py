"""How a model was served, as the state file keeps it.

Thread: any; pure functions but for a look at which versions are on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON

from ...errors import ServingError
from ...export.layout import list_versions, version_dir
from ...serialization import from_json, to_json
from ..batching.options import BatchingOptions
from ..versions.source import VersionSource
from .routing import Routing


@dataclass(frozen=True, slots=True)
class StoredModel:
    """What an earlier kernel left behind.

    Attributes:
        routing: as it was, versions that are gone included.
        keep: versions to keep loaded.
        versions: version -> how to load it.
    """

    routing: Routing
    keep: int
    versions: Mapping[int, VersionSource]

    def stored(self) -> dict[str, Any]:
        """What `StateStore.save` keeps."""
        value: dict[str, Any] = to_json(self)
        return value


def read_stored_model(name: str, base_path: Path, value: Mapping[str, Any]) -> StoredModel:
    """What `StoredModel.stored` gave, with the versions that are on disk now.

    Versions that appeared on disk since get default options; files may also have been moved with their folder.

    Args:
        name: the model.
        base_path: the folder that holds `NAME/VERSION`.
        value: from the state file.

    Raises:
        ServingError: if something is missing or of another kind; nothing is read then.
    """
    on_disk = {version: version_dir(base_path, name, version) for version in list_versions(base_path / name)}
    try:
        kept = {
            version: {**value["versions"][str(version)], "path": str(path)}
            for version, path in on_disk.items()
            if str(version) in value["versions"]
        }
        routing = {"name": name, **value["routing"]}
        stored = from_json({**value, "routing": routing, "versions": kept}, StoredModel)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ServingError(
            f"the stored state of model {name!r} in {base_path} cannot be read: {type(error).__name__}: {error}",
            hint="move the state file away to start anew",
        ) from error
    unknown = {
        version: VersionSource(path, BatchingOptions()) for version, path in on_disk.items() if version not in kept
    }
    return StoredModel(stored.routing, stored.keep, {**unknown, **stored.versions})
