"""What `%abtest` does with its options, and what it shows while the experiment runs.

Thread: the kernel's main thread; requests come from another process, or from elsewhere.
"""

from __future__ import annotations

import argparse
from typing import Any  # the user's rows

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from ..agreement.kinds import AgreementOptions
from ..api.ab_test import ABTest
from ..api.deployment import Deployment
from ..experiment.plan import Limits, Plan
from ..experiment.state import ExperimentState
from ..markup import status_line
from ..options import given, read
from .commands import AskOptions, TestedVersions
from .progress import LiveOutput

OPTIONS = (TestedVersions, Plan, AgreementOptions, Limits)


def run(handle: Deployment, parsed: argparse.Namespace, values: Any, view: ExperimentView | None) -> ABTest:
    """Begin the experiment that a line describes; with rows, see it through. Without options, the latest one.

    Args:
        handle: the model.
        parsed: the line.
        values: rows to ask with, or None.
        view: follows it.

    Raises:
        UsageError: if a version is missing, or for options that do not go together.
        InvalidOption: for a value that is not allowed.
    """
    versions = read(TestedVersions, parsed)
    if values is None and not given(parsed, *OPTIONS):
        latest = handle.latest_test()
        if latest is not None:
            return latest
    if versions.a is None or versions.b is None:
        has = ", ".join(map(str, handle.versions))
        raise UsageError(f"%abtest needs two versions: %abtest {handle.name} --a 1 --b 2 ({handle.name} has {has})")
    _check_together(parsed, has_rows=values is not None)
    options = given(parsed, *OPTIONS, AskOptions)
    return handle.ab_test(**{**options, "values": values}, watch=view)


def _check_together(parsed: argparse.Namespace, *, has_rows: bool) -> None:
    """Refuse options that would be without effect beside the others."""
    if "steps" in parsed and "split" in parsed:
        raise UsageError("--split and --steps exclude each other: the steps are B's shares, one after the other")
    if "hold_s" in parsed and "steps" not in parsed:
        raise UsageError("--hold is the least time of each step: add --steps 1,5,25,50")
    for option in ("rate", "seconds"):
        if option in parsed and not has_rows:
            raise UsageError(f"--{option} is for asking with rows: add --values VAR, or use %%abtest")


class ExperimentView:
    """Follows an experiment: one line that changes in a notebook, lines in a terminal.

    Args:
        shell: decides between notebook and terminal.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._output = LiveOutput(shell)

    def __call__(self, state: ExperimentState) -> None:
        """Show the state, at most every half second, and the end."""
        if not (state.is_decided or self._output.is_due()):
            return
        requests = sum(state.reading.samples.values())
        text = f"{requests} requests; {state.verdict}"
        self._output.show(status_line(text))
        self._output.write(f"  {text}")
