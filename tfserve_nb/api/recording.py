"""What a handle does with captured requests: keep them, write them down, send them to another version.

Thread: any.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ..bench.run import Watcher
from ..errors import InvalidOption
from ..export.layout import version_dir
from ..replay import replay as replaying
from ..replay.result import ReplayOptions, ReplayResult, check_number
from ..server.handle import Home
from ..serving.telemetry.captured import MAX_MIB, MAX_REQUESTS, MAX_ROWS, CapturedRequests, CaptureSettings, Redact

DEFAULT_FOLDER = "tfserve_models"


class Recording(ABC):
    """The part of `Deployment` that deals with captured requests.

    Attributes:
        name: the model's name.
    """

    name: str

    @property
    @abstractmethod
    def _home(self) -> Home:
        """The server with the model."""

    def capture(
        self,
        is_on: bool = True,
        *,
        max_requests: int = MAX_REQUESTS,
        max_rows: int = MAX_ROWS,
        max_mib: float = MAX_MIB,
        redact: Sequence[str] | Redact = (),
    ) -> Self:
        """Keep answered requests with their arrival times from now on, for `replay`; or stop, and keep what there is.

        They lie in the memory of the server, the newest of them, within all three limits, and end with it. Headers,
        tokens, keys and ids of requests are never among them.

        Args:
            is_on: False stops.
            max_requests: requests that are kept.
            max_rows: rows of them altogether.
            max_mib: inputs and outputs of them altogether, in MiB.
            redact: names of inputs that are kept as zeros of the same shape; or, for a model that is served in this
                kernel, a function that gets name -> array and gives what may be kept, with the same names, dtypes and
                shapes, or None to leave the request out. A request that it raises for is left out.

        Raises:
            InvalidOption: naming the value that is not allowed.
        """
        names = redact if callable(redact) else (redact,) if isinstance(redact, str) else tuple(redact)
        settings = CaptureSettings(max_requests, max_rows, max_mib, names) if is_on else None
        self._home.core.capture(self.name, settings)
        return self

    def clear_captured(self) -> Self:
        """Drop what was captured; capturing goes on if it was on."""
        core = self._home.core
        core.capture(self.name, core.captured(self.name, 0).settings, clear=True)
        return self

    def captured(self, limit: int | None = None) -> CapturedRequests:
        """The newest captured requests, or all, in the order in which they came; empty until `capture`."""
        return self._home.core.captured(self.name, limit)

    def save_warmup(self, version: int | str | Path | None = None) -> Path:
        """Write the newest captured requests, at most 1000, as a version's warm-up file; TensorFlow Serving reads it.

        Args:
            version: a version's number, or its folder; the version that answers by default.

        Returns:
            `assets.extra/tf_serving_warmup_requests` in the version's folder; it counts when that is loaded next.

        Raises:
            InvalidOption: if nothing was captured, or the folder is not on this machine.
        """
        core = self._home.core
        wanted = core.model_status(self.name).default_version if version is None else version
        if isinstance(wanted, str | Path):
            return self.captured().save_warmup(wanted)
        base_path = core.base_path(self.name)
        if base_path is None or wanted is None:
            raise InvalidOption(f"the folder of {self.name} is not known", hint="d.save_warmup(folder)")
        return self.captured().save_warmup(version_dir(base_path, self.name, wanted))

    def replay(
        self,
        onto: int,
        *,
        against: int | None = None,
        speed: float = 1.0,
        requests: int | CapturedRequests | None = None,
        seconds: float | None = None,
        tolerance: float | None = None,
        protocol: str = "json",
        watcher: Watcher | None = None,
    ) -> ReplayResult:
        """Send captured requests to a version at the times at which they came, and compare; `%replay` for scripts.

        The requests go to `onto` and to `against` in turns, from another process in an open loop; clients see nothing
        of it. docs/replay.md says what is compared with what.

        Args:
            onto: the version, which must be loaded.
            against: the version to compare latencies with; by default the one that answered most of the requests.
            speed: how much faster than they came; 2 halves all gaps.
            requests: how many, the newest; or what `captured` or `load_captured` gave. All by default.
            seconds: the newest that take at most that long.
            tolerance: difference of two numbers that counts as none, relative and absolute; by default 0.001, and
                shares of classes agree when the largest stands at the same place.
            protocol: `json`, `binary` or `grpc`.
            watcher: follows the run, on the calling thread.

        Raises:
            InvalidOption: if nothing was captured, it does not fit the version, or a value is not allowed.
            VersionNotFound: if the version is not loaded.
        """
        options = ReplayOptions(onto, against, speed, seconds, tolerance, protocol)
        if not isinstance(requests, CapturedRequests):
            check_number("requests", requests, 1)
            requests = self.captured(requests)
        folder = Path(DEFAULT_FOLDER).absolute()
        return replaying.replay(self._home, self.name, requests, options, folder, watcher)
