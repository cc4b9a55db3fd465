"""Carries out what people click, one thing at a time.

That is done off the thread that draws: loading a version takes seconds, and its progress is to be seen meanwhile.

Thread: `tfserve-dashboard-action`, a daemon for each action; everything else runs on the updater's thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .updater import Updater


@dataclass(frozen=True, slots=True)
class Undo:
    """How to take an action back.

    Attributes:
        text: what is taken back, such as `promote version 3`.
        work: does it.
    """

    text: str
    work: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do.

    Attributes:
        doing: what is said meanwhile, plain text.
        work: does it, off the updater's thread.
        done: makes of what `work` returned and the milliseconds that it took what is said then, plain text.
        undo: how to take it back, or None.
    """

    doing: str
    work: Callable[[], object]
    done: Callable[[object, float], str]
    undo: Undo | None = None


class Actions:
    """Carries out one action at a time.

    Args:
        updater: the thread that writes widgets.
        say: shows a line of plain text.
        on_change: told when an action starts or has ended.
    """

    def __init__(self, updater: Updater, say: Callable[[str], None], on_change: Callable[[], None]) -> None:
        self._updater = updater
        self._say = say
        self._on_change = on_change
        self.running: Action | None = None
        self.undo: Undo | None = None

    def start(self, action: Action) -> None:
        """Carry it out, unless another one runs."""
        if self.running is not None:
            self._say(f"{self.running.doing} (one thing at a time)")
            return
        self.running = action
        self._say(action.doing)
        self._on_change()
        threading.Thread(target=self._work, args=(action,), name="tfserve-dashboard-action", daemon=True).start()

    def take_back(self) -> None:
        """Undo the last action that can be undone."""
        undo, self.undo = self.undo, None
        if undo is not None:
            self.start(Action(f"taking back: {undo.text}…", undo.work, lambda *_: f"taken back: {undo.text}"))

    def _work(self, action: Action) -> None:
        started_s = time.perf_counter()
        undo = action.undo
        try:
            result = action.work()
            said = action.done(result, (time.perf_counter() - started_s) * 1e3)
        except Exception as error:  # noqa: BLE001 - shown to the person who clicked, whatever it is
            said, undo = in_words(error), self.undo
        self._updater.post_if_running(lambda: self._finish(said, undo))

    def _finish(self, said: str, undo: Undo | None) -> None:
        self.running = None
        self.undo = undo
        self._on_change()  # first: who reads what is said can go on at once
        self._say(said)


def in_words(error: Exception) -> str:
    """An error as a line for people: what is wrong, and what to try."""
    hint = getattr(error, "hint", "")
    return f"⚠ {error}{f' (try: {hint})' if hint else ''}"
