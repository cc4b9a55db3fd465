"""What happened in each of the last windows of time: what hard limits are judged by.

Thread: one; pure apart from its own state.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class Window:
    """Counts of one window.

    Attributes:
        number: the window's number; it holds `[number, number + 1)` times its length.
        requests_a: requests that A answered or failed.
        failed_a: of these, failed.
        requests_b: requests that B answered or failed, copies included.
        failed_b: of these, failed.
        answered_b: requests that B answered, without copies.
        slow_b: of these, slower than the limit.
        rows_a: rows of A's outputs that were looked at.
        nonfinite_a: of these, not finite.
        rows_b: rows of B's outputs that were looked at.
        nonfinite_b: of these, not finite although A's were, or outside the allowed range.
        pairs: rows that both versions answered.
        differing: of these, decided differently.
    """

    number: int
    requests_a: int = 0
    failed_a: int = 0
    requests_b: int = 0
    failed_b: int = 0
    answered_b: int = 0
    slow_b: int = 0
    rows_a: int = 0
    nonfinite_a: int = 0
    rows_b: int = 0
    nonfinite_b: int = 0
    pairs: int = 0
    differing: int = 0


class Windows:
    """The last windows.

    Args:
        length_s: of one.
        num: how many complete ones are looked back at.
    """

    def __init__(self, length_s: float, num: int) -> None:
        self._length_s = max(length_s, 1e-3)
        self._num = num
        self._windows: deque[Window] = deque(maxlen=num + 2)

    def at(self, at_s: float) -> Window:
        """The window that a moment belongs to; one that is gone already is made up for nobody."""
        number = int(at_s // self._length_s)
        for window in reversed(self._windows):
            if window.number == number:
                return window
            if window.number < number:
                break
        window = Window(number)
        if not self._windows or number > self._windows[-1].number:
            self._windows.append(window)
        return window

    def complete(self, now_s: float) -> list[Window]:
        """The last complete windows, oldest first; empty ones are those without traffic."""
        current = int(now_s // self._length_s)
        known = {window.number: window for window in self._windows}
        return [known.get(number) or Window(number) for number in range(max(0, current - self._num), current)]
