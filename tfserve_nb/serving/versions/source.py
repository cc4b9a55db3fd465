"""Where a version comes from and how it is to be loaded.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any  # JSON

from ...errors import FailedPrecondition
from ...export.layout import leading_out
from ..batching.options import BatchingOptions
from ..engines.engine import TENSORFLOW
from ..engines.kinds import check_engine

_KEPT_LIMITS = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches")


@dataclass(frozen=True, slots=True)
class VersionSource:
    """What is needed to load a version.

    Attributes:
        path: the folder with `saved_model.pb`.
        options: its batching limits.
        device: TensorFlow device, or None.
        deployed_at: seconds since the epoch.
        max_num_load_retries: how often a failed load is tried again.
        load_retry_interval_s: seconds between two tries.
        is_trusted: whether it may get requests although no row that was made up could be run.
        batching: reads the limits when the version is loaded, in place of `options`.
        num_warmup_iterations: how often each request of the version's warm-up file is run; 0 leaves the file alone.
        engine: what is to run it: `tensorflow`, `auto` or the name of an engine.
        within: the folder and links in it may lead to these folders and below; None for anywhere.
    """

    path: Path
    options: BatchingOptions
    device: str | None = None
    deployed_at: float | None = None
    max_num_load_retries: int = 0
    load_retry_interval_s: float = 60.0
    num_warmup_iterations: int = 1
    is_trusted: bool = False
    batching: Callable[[Path], BatchingOptions] | None = None
    engine: str = TENSORFLOW
    within: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """What the state file keeps beside the folder's number, and what the admin API's `deploy` takes."""
        limits = {name: getattr(self.options, name) for name in _KEPT_LIMITS}
        return {
            "path": str(self.path),
            "deployed_at": self.deployed_at,
            "device": self.device,
            "is_trusted": self.is_trusted,
            "engine": self.engine,
            **limits,
            "allowed_batch_sizes": list(self.options.allowed_batch_sizes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> VersionSource:
        """The inverse of `to_json`."""
        limits = {name: value[name] for name in _KEPT_LIMITS}
        options = BatchingOptions(**limits, allowed_batch_sizes=tuple(value["allowed_batch_sizes"]))
        return cls(
            Path(value["path"]),
            options,
            device=value["device"],
            deployed_at=value["deployed_at"],
            is_trusted=value.get("is_trusted", False) is True,
            engine=check_engine(value.get("engine", TENSORFLOW)),
        )

    def resolved(self) -> VersionSource:
        """The same with its limits read from the version's folder, if they stand there.

        Raises:
            FailedPrecondition: if the folder leads out of those that it may lie in; nothing of it was read.
            ServingError: if what stands there is wrong.
        """
        roots = [Path(root).resolve() for root in self.within or ()]
        outside = None if self.within is None else leading_out(self.path, roots)
        if outside is not None:
            raise FailedPrecondition(
                f"{outside} leads out of the configured base paths; models of reloads without a token stay below them. "
                "Start the server with --reload_base_paths=FOLDER or --auth_token_file=FILE"
            )
        return self if self.batching is None else replace(self, options=self.batching(self.path), batching=None)
