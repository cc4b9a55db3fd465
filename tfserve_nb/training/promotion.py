"""When an epoch's version gets the traffic.

Thread: any; pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import InvalidOption

Logs: TypeAlias = Mapping[str, float]
"""Name -> number, as Keras gives them at the end of an epoch."""

Rule: TypeAlias = Callable[[Logs, Logs | None], bool]
"""Decides from the logs of this epoch and of the epoch that was promoted last (None: none was)."""

_SMALLER = re.compile(
    r"loss|error|(?:^|_)(?:mse|ma[p]?e|msle|rmse|logcosh|perplexity|wer|cer|entropy|divergence)(?:_|$)"
)
"""Metrics of which less is better."""


@dataclass(frozen=True, slots=True)
class Improvement:
    """Promotes an epoch whose metric is better than that of the epoch that was promoted last.

    Attributes:
        metric: the name in the logs; for losses and errors smaller is better, for everything else larger.
    """

    metric: str

    @property
    def is_smaller_better(self) -> bool:
        """Whether the name is that of a loss or an error."""
        return _SMALLER.search(self.metric.lower()) is not None

    def __call__(self, logs: Logs, best_logs: Logs | None) -> bool:
        """Whether this epoch is better; a metric that is no number is never.

        Raises:
            InvalidOption: if the epoch has no such metric.
        """
        if self.metric not in logs:
            raise InvalidOption(
                f"promote_if={self.metric!r} is not among the metrics of this epoch: {', '.join(logs) or 'none'}",
                hint="val_... needs model.fit(..., validation_data=...)",
            )
        value = logs[self.metric]
        best = math.nan if best_logs is None else best_logs.get(self.metric, math.nan)
        if math.isnan(value):
            return False
        return math.isnan(best) or (value < best if self.is_smaller_better else value > best)


def rule_of(promote_if: str | Rule | None) -> Rule | None:
    """The rule that `promote_if` stands for.

    Raises:
        InvalidOption: if it is neither a name nor a function.
    """
    if promote_if is None:
        return None
    if isinstance(promote_if, str) and promote_if:
        return Improvement(promote_if)
    if callable(promote_if):
        return promote_if
    raise InvalidOption(
        f"promote_if={promote_if!r} must be a metric's name or a function of (logs, best_logs)",
        hint="promote_if='val_accuracy'",
    )
