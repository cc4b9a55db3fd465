"""Show what goes on while a magic runs: one output that changes in a notebook, lines in a terminal.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import contextlib
import html
import time
from typing import Any  # IPython's display handle is untyped

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import HTML, display

from ..types import Progress, ProgressEvent, no_progress

STEPS = (
    "exporting",
    "checking",
    "optimizing",
    "converting",
    "measuring",
    "loading",
    "warming up",
    "replaying",
    "switching",
    "done",
)
"""The steps of a deploy, in order."""

_NAMED = ("optimizing", "measuring")
"""Steps that take long for each of several variants, which are named."""

SHOW_EVERY_S = 0.5
PRINT_EVERY_S = 2.0


class LiveOutput:
    """One output of a cell, which each newer state replaces.

    Args:
        shell: decides between notebook and terminal.

    Attributes:
        is_notebook: False in a terminal, where the views print lines instead.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self.is_notebook = hasattr(shell, "kernel")
        self._handle: Any = None
        self._shown_s = float("-inf")

    @property
    def is_shown(self) -> bool:
        """Whether the notebook holds a state already."""
        return self._handle is not None

    def is_due(self) -> bool:
        """Whether the last state that was due is old enough to be replaced; if so, the pause begins again."""
        now_s = time.perf_counter()
        if now_s - self._shown_s < (SHOW_EVERY_S if self.is_notebook else PRINT_EVERY_S):
            return False
        self._shown_s = now_s
        return True

    def show(self, page: str) -> None:
        """Show a state, as HTML; in a notebook only."""
        if not self.is_notebook:
            return
        if self._handle is None:
            self._handle = display(HTML(page), display_id=True)
        else:
            self._handle.update(HTML(page))

    def write(self, line: str) -> None:
        """Print a line; in a terminal only."""
        if not self.is_notebook:
            print(line, flush=True)


class ProgressView:
    """The steps of what takes long. Callable with `ProgressEvent`s; the last state stays in the notebook as one line.

    As a context manager it says where it stopped when an error ends the block.

    Args:
        shell: decides between notebook and terminal.
        title: what is going on, plain text.
    """

    def __init__(self, shell: InteractiveShell, title: str) -> None:
        self._title = title
        self._output = LiveOutput(shell)
        self._started_s = time.perf_counter()
        self._phase = ""
        self._doing = ""
        self._phase_s = self._started_s
        self._spent: dict[str, float] = {}
        self._remark = ""

    def __call__(self, event: ProgressEvent) -> None:
        """Show one step."""
        now_s = time.perf_counter()
        if event.phase != self._phase:
            if self._phase:
                self._spent[self._phase] = self._spent.get(self._phase, 0.0) + now_s - self._phase_s
            self._phase, self._phase_s = event.phase, now_s
            self._output.write(f"{self._title}: {event.phase}{' ' + event.detail if event.detail else ''}")
        elif event.phase in _NAMED and _doing(event) not in ("", self._doing):
            self._output.write(f"{self._title}: {event.phase} {event.detail}")
        self._doing = _doing(event)
        if event.phase == "checking" and event.detail:
            self._remark = event.detail
            self._output.write(f"{self._title}: checking, {event.detail}")
        if event.phase == "replaying" and event.detail and event.done:
            self._remark += f"; replay: {event.detail}"
            self._output.write(f"{self._title}: {event.detail}")
        if event.phase in ("measuring", "switching", "answering") and event.detail and not _doing(event):
            self._remark += f"; {event.detail}" if self._remark else event.detail
            self._output.write(f"{self._title}: {event.detail}")
        self._output.show(self._summary(event) if event.phase == "done" else self._bar(event))
        if event.phase == "done":
            self._output.write(f"{self._title}: {self._timings()}")

    def __enter__(self) -> ProgressView:
        """Nothing is shown yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """After an error: a line that says where it stopped replaces the bar; the error itself is shown by IPython."""
        if kind is not None and self._output.is_shown:
            self._output.show(
                f"<div>{html.escape(self._title)}: failed while {html.escape(self._phase or 'starting')}</div>"
            )

    def _bar(self, event: ProgressEvent) -> str:
        if event.phase not in STEPS:
            # How long it takes is not known: the bar only moves.
            what = " ".join(filter(None, (event.phase, event.detail)))
            label = html.escape(self._title)
            return f'<div><progress aria-label="{label}"></progress> {label}: {html.escape(what)}</div>'
        step = STEPS.index(event.phase)
        value = step + (event.done / event.total if event.total else 0)
        count = f" {event.done}/{event.total}" if event.total > 1 else ""
        doing = f" {_doing(event)}" if event.phase in _NAMED else ""
        return (
            f'<div><progress value="{value:.2f}" max="{len(STEPS) - 1}" aria-label="{html.escape(self._title)}">'
            f"</progress> {html.escape(self._title)}: {html.escape(event.phase)}{count}{html.escape(doing)}</div>"
        )

    def _summary(self, event: ProgressEvent) -> str:
        return f"<div>{html.escape(event.detail or self._title)}: {html.escape(self._timings())}</div>"

    def _timings(self) -> str:
        parts = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in self._spent.items() if seconds >= 0.005)
        remark = f"; {self._remark}" if self._remark else ""
        return f"ready in {time.perf_counter() - self._started_s:.2f} s" + (f" ({parts})" if parts else "") + remark


def progress_view(
    shell: InteractiveShell, title: str, *, is_quiet: bool = False
) -> contextlib.AbstractContextManager[Progress]:
    """A view of what takes long, or nothing."""
    return contextlib.nullcontext(no_progress) if is_quiet else ProgressView(shell, title)


def _doing(event: ProgressEvent) -> str:
    """What is worked on; the detail of a phase that is done is what came out."""
    return event.detail if event.done < event.total else ""
