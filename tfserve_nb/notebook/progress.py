"""Show the steps of a deploy: a bar in a notebook, lines in a terminal.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import html
import time
from typing import Any  # IPython's display handle is untyped

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import HTML, display

from ..types import ProgressEvent

STEPS = ("exporting", "checking", "loading", "warming up", "replaying", "switching", "done")


class ProgressView:
    """Callable with `ProgressEvent`s; the last state stays in the saved notebook as one line.

    Args:
        shell: decides between notebook and terminal.
        title: what is going on, plain text.
    """

    def __init__(self, shell: InteractiveShell, title: str) -> None:
        self._title = title
        self._in_notebook = hasattr(shell, "kernel")
        self._started_s = time.perf_counter()
        self._phase = ""
        self._phase_s = self._started_s
        self._spent: dict[str, float] = {}
        self._handle: Any = None
        self._remark = ""

    def __call__(self, event: ProgressEvent) -> None:
        """Show one step."""
        now_s = time.perf_counter()
        if event.phase != self._phase:
            if self._phase:
                self._spent[self._phase] = self._spent.get(self._phase, 0.0) + now_s - self._phase_s
            self._phase, self._phase_s = event.phase, now_s
            if not self._in_notebook:
                print(f"{self._title}: {event.phase}{' ' + event.detail if event.detail else ''}", flush=True)
        if event.phase == "checking" and event.detail:
            self._remark = event.detail
            if not self._in_notebook:
                print(f"{self._title}: checking, {event.detail}", flush=True)
        if event.phase == "replaying" and event.detail and event.done:
            self._remark += f"; replay: {event.detail}"
            if not self._in_notebook:
                print(f"{self._title}: {event.detail}", flush=True)
        if self._in_notebook:
            self._show(self._summary(event) if event.phase == "done" else self._bar(event))
        elif event.phase == "done":
            print(f"{self._title}: {self._timings()}", flush=True)

    def fail(self) -> None:
        """Replace the bar by a line that says where it stopped; the error itself is shown by IPython."""
        if self._in_notebook and self._handle is not None:
            self._show(f"<div>{html.escape(self._title)}: failed while {html.escape(self._phase or 'starting')}</div>")

    def _bar(self, event: ProgressEvent) -> str:
        step = STEPS.index(event.phase) if event.phase in STEPS else 0
        value = step + (event.done / event.total if event.total else 0)
        count = f" {event.done}/{event.total}" if event.total > 1 else ""
        return (
            f'<div><progress value="{value:.2f}" max="{len(STEPS) - 1}" aria-label="{html.escape(self._title)}">'
            f"</progress> {html.escape(self._title)}: {html.escape(event.phase)}{count}</div>"
        )

    def _summary(self, event: ProgressEvent) -> str:
        return f"<div>{html.escape(event.detail or self._title)}: {html.escape(self._timings())}</div>"

    def _timings(self) -> str:
        parts = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in self._spent.items() if seconds >= 0.005)
        remark = f"; {self._remark}" if self._remark else ""
        return f"ready in {time.perf_counter() - self._started_s:.2f} s" + (f" ({parts})" if parts else "") + remark

    def _show(self, text: str) -> None:
        if self._handle is None:
            self._handle = display(HTML(text), display_id=True)
        else:
            self._handle.update(HTML(text))
