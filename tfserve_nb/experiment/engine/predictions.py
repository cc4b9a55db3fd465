"""Predictions of requests with an id, kept until their right labels are known.

Bounded: the newest `MAX_PREDICTIONS` requests with an id, `MAX_ROWS` rows of them, and of each only the
decisions, never the inputs.

Thread: any; one lock.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple  # labels

import numpy as np

from ...agreement.decisions import Decisions, are_right, decisions_of
from ...agreement.kinds import AgreementOptions
from ...agreement.rows import num_rows
from ...agreement.summary import Evidences
from ...serving.telemetry.observer import Observer
from ...serving.telemetry.records import RequestRecord, RequestTensors

MAX_PREDICTIONS = 20_000
MAX_ROWS = 500_000
"""Of all remembered requests together."""


class LabelledRow(NamedTuple):
    """A row with a label, and whether its prediction was right.

    Attributes:
        version: the version that predicted it.
        key: the client's key, or the request's id when it had none: rows of one request are no independent clients.
        is_right: whether the decision equals the label.
        confidence: the highest score of the row, or None for outputs that are no scores.
    """

    version: int
    key: str
    is_right: bool
    confidence: float | None


class _Prediction(NamedTuple):
    version: int
    key: str
    rows: int
    decisions: Mapping[str, Decisions]


class Predictions(Observer):
    """Keeps the decisions of requests with an id while experiments run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[str, frozenset[int]] = {}
        self._rules: dict[str, tuple[AgreementOptions, Evidences]] = {}
        self._kept: OrderedDict[tuple[str, str], _Prediction] = OrderedDict()
        self._num_rows = 0

    @property
    def is_on(self) -> bool:
        """Whether predictions of any model are kept."""
        return bool(self._versions)

    def begin(
        self,
        name: str,
        versions: frozenset[int],
        options: AgreementOptions | None = None,
        evidence: Evidences | None = None,
    ) -> None:
        """Keep the predictions of an experiment's versions from now on, and forget earlier ones.

        Args:
            name: the model.
            versions: those that are compared.
            options: the user's options for the outputs.
            evidence: loss and activation of the outputs, from the versions' provenance.
        """
        with self._lock:
            self._rules = {**self._rules, name: (options or AgreementOptions(), evidence or {})}
            self._versions = {**self._versions, name: versions}
            for key in [key for key in self._kept if key[0] == name]:
                self._forget(key)

    def end(self, name: str) -> None:
        """Keep no new predictions of a model; those that are kept can still get labels."""
        with self._lock:
            self._versions = {other: versions for other, versions in self._versions.items() if other != name}

    def wants_tensors(self, model: str) -> bool:
        """Whether predictions of a model are kept."""
        return model in self._versions

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        """Keep the decisions of a request that one of the experiment's versions answered."""
        if not record.request_id or tensors is None or not tensors.outputs or record.version is None:
            return
        if record.version not in self._versions.get(record.model, ()):
            return
        options, evidence = self._rules[record.model]
        rows = num_rows(tensors.outputs)
        decisions = decisions_of(tensors.outputs, rows, options, evidence)
        kept = _Prediction(record.version, record.key or record.request_id, rows, decisions)
        with self._lock:
            self._forget((record.model, record.request_id))
            self._kept[record.model, record.request_id] = kept
            self._num_rows += kept.rows
            while len(self._kept) > MAX_PREDICTIONS or (self._num_rows > MAX_ROWS and len(self._kept) > 1):
                self._forget(next(iter(self._kept)))

    def _forget(self, key: tuple[str, str]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._num_rows -= kept.rows

    def judge(self, name: str, request_id: str, label: Any) -> list[LabelledRow] | None:
        """Compare a prediction with its label, once.

        Args:
            name: the model.
            request_id: of the request.
            label: the right class, number or text; for a request of several rows one for each; or output name -> such
                labels. Without names it is about the first output. A number is right within the plan's tolerance.

        Returns:
            A value for each row; None when the request is not known, or was judged before.

        Raises:
            InvalidRequest: if there is not one label for each row.
        """
        with self._lock:
            kept = self._kept.get((name, request_id))
        if kept is None:
            return None
        given = label if isinstance(label, Mapping) else {next(iter(kept.decisions), ""): label}
        what = f"request {request_id}"
        right = [are_right(kept.decisions, output, labels, kept.rows, what) for output, labels in given.items()]
        with self._lock:
            if self._kept.get((name, request_id)) is not kept:
                return None
            self._forget((name, request_id))
        confidences = kept.decisions[next(iter(given))].confidences
        scores = [None] * kept.rows if confidences is None else [float(score) for score in confidences]
        return [
            LabelledRow(kept.version, kept.key, bool(is_right), score)
            for is_right, score in zip(np.logical_and.reduce(right), scores, strict=True)
        ]
