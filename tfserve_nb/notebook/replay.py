"""What `%serving --capture`, `%replay` and `%deploy --check-replay` do with their options.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import argparse

from IPython.core.error import UsageError

from ..agreement.kinds import AgreementOptions
from ..api.deployment import Deployment
from ..options import given, read
from ..replay.result import ReplayLimits, ReplayOptions, ReplayResult
from ..serving.telemetry.capture import CapturedRequests, load_captured
from .benchmark import BenchmarkView
from .commands import ReplayedRequests, ServingOptions


def replay_limits(options: argparse.Namespace) -> ReplayLimits | None:
    """The gate of a `%deploy`, or None.

    Raises:
        UsageError: for limits without the gate.
        InvalidOption: naming the value that is not allowed.
    """
    if "check_replay" in options:
        return read(ReplayLimits, options)
    if given(options, ReplayLimits):
        raise UsageError("--max-disagreement and --max-slowdown are limits of --check-replay")
    return None


def capture(handle: Deployment, options: ServingOptions) -> None:
    """Carry `%serving --capture` out, and print the state of the capture."""
    if options.capture == "clear":
        handle.clear_captured()
    elif options.capture != "?":
        names = [name.strip() for name in (options.redact or "").split(",") if name.strip()]
        handle.capture(options.capture == "on", redact=names)
    print(repr(handle.captured(0))[1:-1])


def replay(handle: Deployment, parsed: argparse.Namespace, view: BenchmarkView | None) -> ReplayResult:
    """Carry `%replay` out.

    Args:
        handle: the model.
        parsed: the line.
        view: follows it.

    Raises:
        UsageError: without `--onto`.
        InvalidOption: naming the value that is not allowed, or what is missing.
    """
    if "onto" not in parsed:
        raise UsageError(f"%replay {handle.name} --onto VERSION, one of {', '.join(map(str, handle.versions))}")
    wanted = read(ReplayedRequests, parsed)
    requests: CapturedRequests | int | None = wanted.requests
    if wanted.source is not None:
        requests = load_captured(wanted.source).newest(wanted.requests)
    if wanted.save is not None:
        requests = requests if isinstance(requests, CapturedRequests) else handle.captured(requests)
        print(f"saved: {requests.save(wanted.save)}")
    result: ReplayResult | None = None
    try:
        options = given(parsed, ReplayOptions, AgreementOptions)
        result = handle.replay(**options, requests=requests, watcher=view)
    finally:
        if view is not None:
            view.finish(result)
    return result
