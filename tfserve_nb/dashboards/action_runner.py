"""Carries out actions for the widgets, one at a time.

Actions run on a thread of their own: loading a version takes seconds, and the dashboard shows its progress meanwhile.

Thread: `tfserve-dashboard-action`, a daemon for each action; everything else runs on the updater's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import InvalidRequest
from ..types import ModelStatus
from .actions import ACTIONS, Choice, Job, Undo
from .controls import DeploymentControls
from .updater import Updater


class ActionRunner:
    """Carries out one action at a time.

    Args:
        controls: the deployment.
        updater: the thread that writes widgets.
        say: shows a line of plain text.
        on_change: called when an action starts or has ended.

    Attributes:
        running: the job that runs, or None.
        undo: how to take the last action back, or None.
    """

    def __init__(
        self, controls: DeploymentControls, updater: Updater, say: Callable[[str], None], on_change: Callable[[], None]
    ) -> None:
        self._controls = controls
        self._updater = updater
        self._say = say
        self._on_change = on_change
        self.running: Job | None = None
        self.undo: Undo | None = None

    def start(self, name: str, choice: Choice, status: ModelStatus | None) -> None:
        """Carry out an action of the table, unless another one runs.

        Args:
            name: a key of `ACTIONS`.
            choice: what was chosen for it.
            status: the model's last known state, from which Undo is derived.
        """
        try:
            job = ACTIONS[name].job(self._controls, choice, status)
        except InvalidRequest as error:
            self._say(error.message)
        else:
            self.run(job)

    def take_back(self) -> None:
        """Undo the last action that can be undone."""
        undo, self.undo = self.undo, None
        if undo is not None:
            job = ACTIONS[undo.action].job(self._controls, undo.choice, None)
            self.run(Job(f"taking back: {undo.what}", job.work, lambda *_: f"taken back: {undo.what}"))

    def run(self, job: Job) -> None:
        """Do something, unless something else is being done."""
        if self.running is not None:
            self._say(f"{self.running.what}… (one thing at a time)")
            return
        self.running = job
        self._say(f"{job.what}…")
        self._on_change()
        threading.Thread(target=self._work, args=(job,), name="tfserve-dashboard-action", daemon=True).start()

    def _work(self, job: Job) -> None:
        undo = job.undo
        try:
            text = job.carry_out()
        except Exception as error:  # noqa: BLE001 - shown to the person who clicked, whatever it is
            text, undo = in_words(error), self.undo
        self._updater.post_if_running(lambda: self._finish(text, undo))

    def _finish(self, text: str, undo: Undo | None) -> None:
        self.running = None
        self.undo = undo
        self._on_change()  # first: the buttons work again when the line reports the end
        self._say(text)


def in_words(error: Exception) -> str:
    """An error as a line of plain text: what is wrong, and its hint."""
    hint = getattr(error, "hint", "")
    return f"⚠ {error}{f' (try: {hint})' if hint else ''}"
