"""What `%serving --capture`, `%replay` and `%deploy --check-replay` do with their options.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import argparse

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic_arguments import argument

from ..api.deployment import Deployment
from ..replay.result import MAX_DISAGREEMENT, MAX_SLOWDOWN, PROTOCOLS, ReplayLimits, ReplayResult
from ..serving.telemetry.captured import CapturedRequests, load_captured
from .benchmark import BenchmarkView

CAPTURE_OPTIONS = (
    argument(
        "--capture", choices=("on", "off", "clear", "?"), help="keep requests for %%replay; stop; drop them; how it is"
    ),
    argument("--redact", metavar="INPUT,...", help="with --capture on: inputs that are kept as zeros"),
)

REPLAY_OPTIONS = (
    argument("name", nargs="?", metavar="NAME", help="the model; may be left out when only one is served"),
    argument("--onto", type=int, metavar="VERSION", help="the version that gets the captured requests"),
    argument("--against", type=int, metavar="VERSION", help="the version to compare with; default: who answered them"),
    argument("--speed", type=float, default=1.0, help="how much faster than they came; default: 1"),
    argument("--requests", type=int, metavar="N", help="only the newest N"),
    argument("--seconds", type=float, metavar="S", help="only the newest that take at most S seconds"),
    argument("--tolerance", type=float, metavar="X", help="difference of two numbers that counts as none"),
    argument("--protocol", choices=PROTOCOLS, default="json", help="default: json"),
    argument("--from", dest="source", metavar="FILE", help="replay the requests of this file"),
    argument("--save", metavar="FILE", help="write the replayed requests as Parquet"),
    argument("--out", "-o", metavar="VAR", help="variable for the result"),
    argument("--quiet", "-q", action="store_true", help="show neither progress nor result"),
)


def limits_asked_for(options: argparse.Namespace) -> ReplayLimits | None:
    """The gate of a `%deploy`, or None.

    Raises:
        UsageError: for limits without the gate.
        InvalidOption: naming the value that is not allowed.
    """
    if not options.check_replay:
        if options.max_disagreement is not None or options.max_slowdown is not None:
            raise UsageError("--max-disagreement and --max-slowdown are limits of --check-replay")
        return None
    disagreement, slowdown = options.max_disagreement, options.max_slowdown
    return ReplayLimits(
        MAX_DISAGREEMENT if disagreement is None else disagreement, MAX_SLOWDOWN if slowdown is None else slowdown
    )


def capture(handle: Deployment, options: argparse.Namespace) -> None:
    """Carry `%serving --capture` out, and tell how it is.

    Raises:
        UsageError: for options that do not go together.
    """
    if options.redact is not None and options.capture != "on":
        raise UsageError("--redact goes with --capture on")
    if options.capture == "clear":
        handle.clear_captured()
    elif options.capture != "?":
        names = [name.strip() for name in (options.redact or "").split(",") if name.strip()]
        handle.capture(options.capture == "on", redact=names)
    print(repr(handle.captured(0))[1:-1])


def replay(handle: Deployment, options: argparse.Namespace, shell: InteractiveShell) -> ReplayResult:
    """Carry `%replay` out, with progress unless it is to be quiet.

    Raises:
        UsageError: without `--onto`.
        InvalidOption: naming the value that is not allowed, or what is missing.
    """
    if options.onto is None:
        raise UsageError(f"%replay {handle.name} --onto VERSION, one of {', '.join(map(str, handle.versions))}")
    requests: CapturedRequests | int | None = options.requests
    if options.source is not None:
        requests = load_captured(options.source).newest(options.requests)
    if options.save is not None:
        requests = requests if isinstance(requests, CapturedRequests) else handle.captured(requests)
        print(f"saved: {requests.save(options.save)}")
    view = None if options.quiet else BenchmarkView(shell)
    result: ReplayResult | None = None
    try:
        result = handle.replay(
            options.onto, against=options.against, speed=options.speed, requests=requests, seconds=options.seconds,
            tolerance=options.tolerance, protocol=options.protocol, watcher=view,
        )  # fmt: skip
    finally:
        if view is not None:
            view.finish(result)
    return result
