"""A model and what tests of any model need to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """A model, rows for its inputs in order, and the variables that Keras does not list for it."""

    model: Any
    rows: tuple[np.ndarray, ...]
    more: tuple[Any, ...] = ()

    @property
    def variables(self) -> list[Any]:
        """All that a version of it has to hold."""
        return [*getattr(self.model, "variables", ()), *self.more]
