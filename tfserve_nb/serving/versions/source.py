"""Where a version comes from and how it is to be loaded.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..batching.options import BatchingOptions


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
        batching: reads the limits when the version is loaded, in place of `options`.
        num_warmup_iterations: how often each request of the version's warm-up file is run; 0 leaves the file alone.
    """

    path: Path
    options: BatchingOptions
    device: str | None = None
    deployed_at: float | None = None
    max_num_load_retries: int = 0
    load_retry_interval_s: float = 60.0
    num_warmup_iterations: int = 1
    batching: Callable[[Path], BatchingOptions] | None = None

    def resolved(self) -> VersionSource:
        """The same with its limits read from the version's folder, if they stand there.

        Raises:
            ServingError: if what stands there is wrong.
        """
        return self if self.batching is None else replace(self, options=self.batching(self.path), batching=None)
