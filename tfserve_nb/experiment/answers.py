"""Answers that somebody may judge later, when the right label is known.

Bounded: the newest `MAX_ANSWERS` requests with an id, and of each only what was decided, never its inputs.

Thread: any; one lock.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, NamedTuple  # labels

import numpy as np

from ..errors import InvalidRequest
from ..serving.metrics import RequestRecord
from ..serving.request_samples import Seen
from .decisions import Decisions, decisions_of

MAX_ANSWERS = 20_000


class Judged(NamedTuple):
    """One row that an arm answered, and whether it was right.

    Attributes:
        version: who answered.
        key: the client's key, or the request's id when it had none: rows of one request are no independent clients.
        is_right: whether the decision equals the label.
        confidence: the highest score of the row, or None for outputs that are no scores.
    """

    version: int
    key: str
    is_right: bool
    confidence: float | None


class _Kept(NamedTuple):
    version: int
    key: str
    decisions: Decisions


class Answers:
    """A tap that remembers what was decided for requests with an id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[str, frozenset[int]] = {}
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    def begin(self, name: str, versions: frozenset[int]) -> None:
        """Remember the answers of these versions of a model from now on, and forget those of before."""
        with self._lock:
            self._versions = {**self._versions, name: versions}
            for key in [key for key in self._kept if key[0] == name]:
                del self._kept[key]

    def end(self, name: str) -> None:
        """Remember no new answers of a model; what was kept can still be judged."""
        with self._lock:
            self._versions = {other: versions for other, versions in self._versions.items() if other != name}

    def wants(self, model: str) -> bool:
        """Whether answers of a model are remembered."""
        return model in self._versions

    def add(self, record: RequestRecord, seen: Seen) -> None:
        """Remember a finished request, if it has an id and an answer."""
        versions = self._versions.get(record.model, frozenset())
        if not record.request_id or not seen.outputs or record.version not in versions:
            return
        kept = _Kept(record.version, record.key or record.request_id, decisions_of(seen.outputs))
        with self._lock:
            self._kept[record.model, record.request_id] = kept
            while len(self._kept) > MAX_ANSWERS:
                self._kept.popitem(last=False)

    def judge(self, name: str, request_id: str, label: Any) -> list[Judged] | None:
        """Compare an answer with its label, once.

        Args:
            name: the model.
            request_id: of the request.
            label: the right class, number or text; for a request of several rows one for each.

        Returns:
            One for each row; None when the request is not known, or was judged before.

        Raises:
            InvalidRequest: if there are not as many labels as rows.
        """
        with self._lock:
            kept = self._kept.get((name, request_id))
        if kept is None:
            return None
        labels = np.atleast_1d(np.asarray(label))
        decided, confidences = kept.decisions
        if len(labels) != len(decided):
            raise InvalidRequest(
                f"request {request_id} had {len(decided)} rows, and {len(labels)} labels were given",
                hint="one label for each row, in their order",
            )
        with self._lock:
            if self._kept.pop((name, request_id), None) is None:
                return None
        scores = [None] * len(decided) if confidences is None else [float(score) for score in confidences]
        return [
            Judged(kept.version, kept.key, bool(one == right), score)
            for one, right, score in zip(decided, labels, scores, strict=True)
        ]
