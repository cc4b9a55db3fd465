"""The gate of a deploy: captured requests are replayed onto the new version before it gets any traffic.

Thread: the caller's; it may be interrupted, which leaves the served version untouched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..bench.load.samples import Samples
from ..bench.load.schedule import Load
from ..bench.run import Watcher
from ..errors import InvalidOption, ReplayFailed, ServingError
from ..replay.replay import replay_captured
from ..replay.result import ReplayLimits, ReplayResult
from ..server.handle import ServerHandle
from ..types import Progress, ProgressEvent
from .servers import server_of


def check_captured(name: str) -> None:
    """Refuse a gate without anything to replay, before a model is exported.

    Raises:
        InvalidOption: naming what is missing.
    """
    server = server_of(name)
    if server is None:
        raise InvalidOption(
            f"there is nothing to replay onto the first version of {name}", hint="deploy it without --check-replay"
        )
    found = server.models.captured(name, 0)
    if not found.num_kept:
        state = "capture is on, but no request came since" if found.is_on else "capture is off"
        raise InvalidOption(
            f"there are no captured requests of {name} to replay: {state}",
            hint=f"%serving {name} --capture on, let clients send requests, then deploy",
        )


@contextlib.contextmanager
def only_if_replayed(
    server: ServerHandle, name: str, version: int, limits: ReplayLimits, folder: Path, progress: Progress
) -> Iterator[None]:
    """Run the body if a staged version keeps the limits; unload the version if it does not, or the body fails.

    Args:
        server: the server.
        name: the model.
        version: loaded, without traffic.
        limits: what it must keep.
        folder: where the result is kept when the model's own folder is not on this machine.
        progress: called with each step.

    Raises:
        ReplayFailed: naming the numbers.
    """
    try:
        options = limits.options(version, server.models.model_status(name).default_version)
        captured = server.models.captured(name, limits.requests)
        result = replay_captured(server, name, captured, options, folder, _ReplayProgress(progress))
        if not result.passed(limits.max_disagreement, limits.max_slowdown, limits.max_errors):
            raise _failed(result, limits)
        progress(ProgressEvent("replaying", 1, 1, str(result.verdict)))
        yield
    except BaseException:
        with contextlib.suppress(ServingError):  # the error that led here is what counts
            server.models.undeploy(name, version)
        raise


def _failed(result: ReplayResult, limits: ReplayLimits) -> ReplayFailed:
    problems = result.problems(limits.max_disagreement, limits.max_slowdown, limits.max_errors)
    number = "" if result.run is None else f" (replay {result.run})"
    return ReplayFailed(
        f"version {result.onto} of {result.name} was not deployed{number}: "
        f"{'; '.join(problems) or 'the replay was interrupted'}",
        hint=f"deploy it with --stage and look at %replay {result.name} --onto N; or --max-disagreement 0.1",
    )


class _ReplayProgress(Watcher):
    """Reports a replay as progress of the deploy that waits for it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def say(self, text: str) -> None:
        """What is being done."""
        self._progress(ProgressEvent("replaying", 0, 1, text))

    def follow(self, load: Load, samples: Samples) -> None:
        """How much of the replay is done."""
        done_s = max(0.0, float(samples.due_s.max(initial=0.0)))
        self._progress(ProgressEvent("replaying", min(int(done_s), int(load.seconds)), max(1, int(load.seconds))))
