"""Models that are being resumed, or are about to be: they are there, but cannot answer yet.

Thread: any; `names` is read without a lock.
"""

from __future__ import annotations

import threading

from ...errors import NotAvailable

RETRY_S = 2.0
"""When to ask again for a model that is being resumed."""


class ComingModels:
    """A set of names.

    Attributes:
        names: of the models.
    """

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def add(self, *names: str) -> None:
        """They are about to be resumed."""
        with self._lock:
            self.names |= frozenset(names)

    def remove(self, *names: str) -> None:
        """They are there, or never will be."""
        with self._lock:
            self.names -= frozenset(names)

    def check(self, name: str) -> None:
        """Raise `NotAvailable` for a model that is coming."""
        if name in self.names:
            raise NotAvailable(
                f"model {name} is being loaded again, as it was served before",
                hint="try again in some seconds",
                retry_after_s=RETRY_S,
            )
