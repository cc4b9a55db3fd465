"""Hard limits: a candidate that breaks one in k of the last m windows is rolled back.

Whether a window is bad is decided by an exact binomial test, with `EVIDENCE` as its bound, so that two requests of
which one was slow do not make a bad window, and two hundred failures are not needed to make one. Only complete windows
count, so a breach is seen after at most `breaches` windows and one that had begun before.

- `latency`: more than 1 % of B's requests were slower than the limit. Requests that share a batch are slow together;
  that is the client's experience all the same, and the reason why one bad window is not enough.
- `errors`: B failed more often than the limit plus A's share of failures in the same window, so that what is wrong with
  the requests or the machine is not blamed on B. Copies count as B's requests.
- `outputs`: a row of B's outputs was NaN or infinite where A's was not, or outside the range that is allowed.
- `disagreement`: B's outputs disagree with A's on a larger share of copied rows than the limit; all outputs count.

Thread: one; pure apart from the state of `Windows`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..plan import Limits
from ..state import Guardrail
from ..statistics.rates import binomial_tail

EVIDENCE = 1e-3
SLOW_SHARE = 0.01


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
        rows_a: rows of A's outputs that were checked.
        nonfinite_a: of these, not finite.
        rows_b: rows of B's outputs that were checked.
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
        num: how many of the last complete ones count.
    """

    def __init__(self, length_s: float, num: int) -> None:
        self._length_s = max(length_s, 1e-3)
        self._num = num
        self._windows: deque[Window] = deque(maxlen=num + 2)

    def at(self, at_s: float) -> Window:
        """The window that a moment belongs to; an empty one for moments before the oldest."""
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


def guardrails(windows: list[Window], limits: Limits) -> tuple[Guardrail, ...]:
    """Each limit that is set, and how B keeps it.

    Args:
        windows: the last complete ones, oldest first.
        limits: what must be kept.
    """
    found = []
    if limits.slo_p99_ms is not None:
        found.append(_judge("latency", windows, limits, _is_slow, _slow_text))
    if limits.max_error_rate is not None:
        found.append(_judge("errors", windows, limits, partial(_fails, limits.max_error_rate), _errors_text))
    if not limits.allow_nan or limits.output_range is not None:
        found.append(_judge("outputs", windows, limits, _has_bad_outputs, _outputs_text))
    if limits.max_disagreement is not None:
        differs = partial(_differs, limits.max_disagreement)
        found.append(_judge("disagreement", windows, limits, differs, _disagreement_text))
    return tuple(found)


def _judge(
    name: str,
    windows: list[Window],
    limits: Limits,
    judge: Callable[[Window], bool | None],
    describe: Callable[[list[Window], Limits], str],
) -> Guardrail:
    """One limit."""
    judged = tuple(judge(window) for window in windows)
    bad = [window for window, is_bad in zip(windows, judged, strict=True) if is_bad]
    is_breached = len(bad) >= limits.breaches
    has_seen = any(is_bad is not None for is_bad in judged)
    text = describe(bad if is_breached else windows, limits) if has_seen else "no complete window with requests yet"
    if is_breached:
        text += f", in {len(bad)} of the last {len(windows)} windows of {limits.window_s:g} s"
    return Guardrail(name, text, judged, is_breached)


def _is_slow(window: Window) -> bool | None:
    if not window.answered_b:
        return None
    return binomial_tail(window.slow_b, window.answered_b, SLOW_SHARE) < EVIDENCE


def _fails(limit: float, window: Window) -> bool | None:
    if not window.requests_b:
        return None
    usual = window.failed_a / window.requests_a if window.requests_a else 0.0
    return binomial_tail(window.failed_b, window.requests_b, min(limit + usual, 0.999)) < EVIDENCE


def _has_bad_outputs(window: Window) -> bool | None:
    if not window.rows_b:
        return None
    # Inputs that make every version predict NaN are not B's fault.
    usual = window.nonfinite_a / window.rows_a if window.rows_a else 0.0
    return bool(window.nonfinite_b) and (
        not usual or binomial_tail(window.nonfinite_b, window.rows_b, usual) < EVIDENCE
    )


def _differs(limit: float, window: Window) -> bool | None:
    if not window.pairs:
        return None
    return binomial_tail(window.differing, window.pairs, limit) < EVIDENCE


def _slow_text(windows: list[Window], limits: Limits) -> str:
    slow = _share(windows, "slow_b", "answered_b")
    return f"{slow} of B's requests took longer than {limits.slo_p99_ms:g} ms (limit: 1 %)"


def _errors_text(windows: list[Window], limits: Limits) -> str:
    share, usual = _share(windows, "failed_b", "requests_b"), _share(windows, "failed_a", "requests_a")
    return f"{share} of B's requests failed, {usual} of A's (limit: {100 * (limits.max_error_rate or 0):g} % more)"


def _outputs_text(windows: list[Window], limits: Limits) -> str:
    what = "" if limits.allow_nan else "NaN or infinite"
    if limits.output_range is not None:
        low, high = limits.output_range
        what += f"{' or ' if what else ''}outside {low:g} to {high:g}"
    return f"{_share(windows, 'nonfinite_b', 'rows_b')} of B's rows were {what}"


def _disagreement_text(windows: list[Window], limits: Limits) -> str:
    share = _share(windows, "differing", "pairs")
    return f"B disagrees with A on {share} of the rows, {100 * (limits.max_disagreement or 0):g} % may differ"


def _share(windows: list[Window], part_name: str, whole_name: str) -> str:
    """The share of one count in another, over all windows: `3 of 200 (1.5 %)`."""
    part, whole = (sum(getattr(window, name) for window in windows) for name in (part_name, whole_name))
    return f"{part} of {whole} ({100 * part / whole:.3g} %)" if whole else "0 of 0"
