"""The options of a bundle.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import InvalidOption
from ...options import option


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """What goes into a bundle, and what it says about the place where it will serve.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    versions: tuple[int, ...] = option(
        (), "the versions to bundle", shown="those that traffic or a label needs", names="version"
    )
    copy: bool = option(
        True, "point at the version folders where they are, instead of copying them", flags=("--no-copy",)
    )
    root: str = option("", "where the bundle will lie on the server", metavar="FOLDER", shown="where it is written")
    image: str = option("", "what the container image is called", metavar="NAME:TAG", shown="MODEL:VERSION")
    storage: str = option(
        "",
        "where a cluster finds the models: an address that begins with `gs://`, `s3://` or `pvc://`",
        metavar="ADDRESS",
        shown="`pvc://tfserve-models`, or a bucket's name to fill in",
    )
    min_replicas: int = option(1, "servers that always run")
    max_replicas: int = option(3, "servers that run under load")

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", tuple(self.versions))
        for version in self.versions:
            if not isinstance(version, int) or isinstance(version, bool) or version < 1:
                raise InvalidOption(f"versions={list(self.versions)}: {version!r} is no version", hint="--versions 2,3")
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise InvalidOption(
                f"min_replicas={self.min_replicas} and max_replicas={self.max_replicas} must be 1 or more and in order",
                hint="--min-replicas 1 --max-replicas 3",
            )
        if self.root and not Path(self.root).is_absolute():
            raise InvalidOption(f"root={self.root!r} must be an absolute path", hint="--root /srv/models")
        if self.storage and "://" not in self.storage:
            raise InvalidOption(f"storage={self.storage!r} must be an address", hint="--storage gs://my-bucket/models")
