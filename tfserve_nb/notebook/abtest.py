"""What `%abtest` does with its options, and what is seen while it runs.

Thread: the kernel's main thread; requests come from another process, or from elsewhere.
"""

from __future__ import annotations

import argparse
import time
from typing import Any  # the user's rows, IPython's display handle

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic_arguments import argument
from IPython.display import HTML, display

from ..api.ab_test import ABTest
from ..api.deployment import Deployment
from ..experiment.plan import METRICS
from ..experiment.state import ExperimentState
from ..markup import status_line

SHOW_EVERY_S = 0.5
PRINT_EVERY_S = 2.0


def version_or_label(text: str) -> int | str:
    """`3` is a version, everything else a label."""
    return int(text) if text.isdecimal() else text


def numbers(text: str) -> tuple[float, ...]:
    """`1,5,25` as a tuple.

    Raises:
        ArgumentTypeError: if a part is no number.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers with commas between them") from None


ABTEST_OPTIONS = (
    argument("name", nargs="?", metavar="NAME", help="the model; may be left out when only one is served"),
    argument("--a", type=version_or_label, metavar="VERSION", help="the current version, a number or a label"),
    argument("--b", type=version_or_label, metavar="VERSION", help="the candidate"),
    argument("--split", type=float, metavar="PERCENT", help="share of B; 0 compares by copies alone; default: 50"),
    argument("--steps", type=numbers, metavar="P,P,...", help="a canary's shares of B, one after the other"),
    argument("--hold", type=float, metavar="SECONDS", help="with steps: the least time of each; default: 30"),
    argument("--shadow", type=float, metavar="PERCENT", help="share of A's requests copied to B; default: 20"),
    argument("--key", metavar="HEADER", help="header whose value keeps a client with its version"),
    argument("--metric", choices=METRICS, help="what the verdict is about; default: latency"),
    argument("--margin", type=float, help="how much worse B may be, relative; default: 0.05"),
    argument("--alpha", type=float, help="accepted probability of a wrong verdict; default: 0.05"),
    argument(
        "--slo-p99-ms", type=float, metavar="MS", help="take B back when more than 1 %% of its answers are slower"
    ),
    argument("--max-error-rate", type=float, metavar="SHARE", help="take B back when more fails; default: 0.05"),
    argument("--output-range", type=numbers, metavar="LOW,HIGH", help="take B back when its numbers leave this range"),
    argument(
        "--max-disagreement", type=float, metavar="SHARE", help="take B back when it decides differently more often"
    ),
    argument("--auto-promote", action="store_true", help="give B all traffic once it passed"),
    argument("--no-rollback", action="store_true", help="watch, but leave rolling back to a person"),
    argument("--values", metavar="VAR", help="variable with rows to ask the model with until there is a verdict"),
    argument("--rate", type=float, metavar="PER_S", help="with rows: requests per second; default: 8 clients in turn"),
    argument("--seconds", type=float, help="with rows: the longest time; default: 60"),
    argument("--stop", action="store_true", help="end the running experiment, A gets all traffic"),
    argument("--promote", action="store_true", help="end it, B gets all traffic"),
    argument("--rollback", action="store_true", help="end it, A gets all traffic"),
    argument("--out", "-o", metavar="NAME", help="variable to bind the experiment to"),
    argument("--quiet", "-q", action="store_true", help="show neither progress nor the report"),
)

_PLAN_OPTIONS = (
    "split", "steps", "shadow", "key", "metric", "margin", "alpha", "slo_p99_ms", "max_error_rate", "output_range",
    "max_disagreement",
)  # fmt: skip


def how_to_end(given: argparse.Namespace) -> str | None:
    """`stop`, `promote` or `rollback`, when the running experiment shall end.

    Raises:
        UsageError: if more than one is asked for, or versions are named too.
    """
    asked = [how for how in ("stop", "promote", "rollback") if getattr(given, how)]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]} exclude each other")
    if asked and (given.a is not None or given.b is not None):
        raise UsageError(f"--{asked[0]} ends the experiment that runs; leave --a and --b out")
    return asked[0] if asked else None


def run(handle: Deployment, given: argparse.Namespace, values: Any, shell: InteractiveShell) -> ABTest:
    """Begin the experiment that the options describe; with rows, see it through. Without options, the latest one.

    Raises:
        UsageError: if a version is missing.
        InvalidOption: for a value that is not allowed.
    """
    is_bare = given.a is None and given.b is None and values is None
    if is_bare and all(getattr(given, option) is None for option in _PLAN_OPTIONS):
        latest = handle.latest_test()
        if latest is not None:
            return latest
    if given.a is None or given.b is None:
        has = ", ".join(map(str, handle.versions))
        raise UsageError(f"%abtest needs two versions: %abtest {handle.name} --a 1 --b 2 ({handle.name} has {has})")
    _check_together(given, has_rows=values is not None)
    if given.output_range is not None and len(given.output_range) != 2:
        raise UsageError(f"--output-range wants LOW,HIGH, not {len(given.output_range)} numbers")
    view = None if given.quiet else ExperimentView(shell)
    options: dict[str, Any] = {option: getattr(given, option) for option in _PLAN_OPTIONS}
    return handle.ab_test(
        given.a,
        given.b,
        values=values,
        rate=given.rate,
        seconds=60.0 if given.seconds is None else given.seconds,
        watch=view,
        hold_s=given.hold,
        auto_promote=given.auto_promote,
        auto_rollback=not given.no_rollback,
        **options,
    )


def _check_together(given: argparse.Namespace, *, has_rows: bool) -> None:
    """Refuse options that would be without effect beside the others."""
    if given.steps is not None and given.split is not None:
        raise UsageError("--split and --steps exclude each other: the steps are B's shares, one after the other")
    if given.hold is not None and given.steps is None:
        raise UsageError("--hold is the least time of each step: add --steps 1,5,25,50")
    for option in ("rate", "seconds"):
        if getattr(given, option) is not None and not has_rows:
            raise UsageError(f"--{option} is for asking with rows: add --values VAR, or use %%abtest")


class ExperimentView:
    """Follows an experiment: one line that changes in a notebook, lines in a terminal.

    Args:
        shell: decides between notebook and terminal.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._in_notebook = hasattr(shell, "kernel")
        self._handle: Any = None
        self._shown_s = float("-inf")

    def __call__(self, state: ExperimentState) -> None:
        """Show where it stands, now and then, and the end."""
        now_s = time.perf_counter()
        if state.is_decided or now_s - self._shown_s >= (SHOW_EVERY_S if self._in_notebook else PRINT_EVERY_S):
            self._shown_s = now_s
            self._show(state)

    def _show(self, state: ExperimentState) -> None:
        requests = sum(state.reading.samples.values())
        text = f"{requests} requests; {state.verdict}"
        if not self._in_notebook:
            print(f"  {text}", flush=True)
        elif self._handle is None:
            self._handle = display(HTML(status_line(text)), display_id=True)
        else:
            self._handle.update(HTML(status_line(text)))
