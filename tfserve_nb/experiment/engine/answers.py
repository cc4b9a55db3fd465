"""Answers that somebody may judge later, when the right label is known.

Bounded: the newest `MAX_ANSWERS` requests with an id, `MAX_ROWS` rows of them, and of each only what was decided, never
its inputs.

Thread: any; one lock.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple  # labels

import numpy as np

from ...agreement.decisions import Decisions, decisions_of
from ...agreement.kinds import AgreementOptions
from ...agreement.rows import num_rows
from ...agreement.summary import Evidences
from ...errors import InvalidRequest
from ...serving.telemetry.observer import Observer
from ...serving.telemetry.records import RequestRecord, RequestTensors

MAX_ANSWERS = 20_000
MAX_ROWS = 500_000
"""Of all remembered requests together."""


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
    rows: int
    decisions: Mapping[str, Decisions]


class Answers(Observer):
    """Remembers what was decided for requests with an id, while experiments go on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[str, frozenset[int]] = {}
        self._rules: dict[str, tuple[AgreementOptions, Evidences]] = {}
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._num_rows = 0

    @property
    def is_on(self) -> bool:
        """Whether answers of any model are remembered."""
        return bool(self._versions)

    def begin(
        self,
        name: str,
        versions: frozenset[int],
        options: AgreementOptions | None = None,
        evidence: Evidences | None = None,
    ) -> None:
        """Remember the answers of an experiment's versions from now on, and forget those of before.

        Args:
            name: the model.
            versions: those that are compared.
            options: what the user says about the outputs.
            evidence: what the versions' provenance says about them.
        """
        with self._lock:
            self._rules = {**self._rules, name: (options or AgreementOptions(), evidence or {})}
            self._versions = {**self._versions, name: versions}
            for key in [key for key in self._kept if key[0] == name]:
                self._forget(key)

    def end(self, name: str) -> None:
        """Remember no new answers of a model; what was kept can still be judged."""
        with self._lock:
            self._versions = {other: versions for other, versions in self._versions.items() if other != name}

    def wants_tensors(self, model: str) -> bool:
        """Whether answers of a model are remembered."""
        return model in self._versions

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        """Remember a finished request, if it was answered by one of the experiment's versions."""
        if not record.request_id or tensors is None or not tensors.outputs or record.version is None:
            return
        if record.version not in self._versions.get(record.model, ()):
            return
        options, evidence = self._rules[record.model]
        rows = num_rows(tensors.outputs)
        decisions = decisions_of(tensors.outputs, rows, options, evidence)
        kept = _Kept(record.version, record.key or record.request_id, rows, decisions)
        with self._lock:
            self._forget((record.model, record.request_id))
            self._kept[record.model, record.request_id] = kept
            self._num_rows += kept.rows
            while len(self._kept) > MAX_ANSWERS or (self._num_rows > MAX_ROWS and len(self._kept) > 1):
                self._forget(next(iter(self._kept)))

    def _forget(self, key: tuple[str, str]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._num_rows -= kept.rows

    def judge(self, name: str, request_id: str, label: Any) -> list[Judged] | None:
        """Compare an answer with its label, once.

        Args:
            name: the model.
            request_id: of the request.
            label: the right class, number or text; for a request of several rows one for each; or output name -> such
                labels. Without names it is about the first output. A number is right within the plan's tolerance.

        Returns:
            One for each row; None when the request is not known, or was judged before.

        Raises:
            InvalidRequest: if there is not one label for each row.
        """
        with self._lock:
            kept = self._kept.get((name, request_id))
        if kept is None:
            return None
        given = label if isinstance(label, Mapping) else {next(iter(kept.decisions), ""): label}
        right = [_is_right(kept, request_id, output, labels) for output, labels in given.items()]
        with self._lock:
            if self._kept.get((name, request_id)) is not kept:
                return None
            self._forget((name, request_id))
        confidences = kept.decisions[next(iter(given))].confidences
        scores = [None] * kept.rows if confidences is None else [float(score) for score in confidences]
        return [
            Judged(kept.version, kept.key, bool(is_right), score)
            for is_right, score in zip(np.logical_and.reduce(right), scores, strict=True)
        ]


def _is_right(kept: _Kept, request_id: str, output: str, label: Any) -> np.ndarray:
    """Whether an output is right, bool `(n,)`: the label's class, or a number within the tolerance of the label."""
    decided = kept.decisions.get(output)
    if decided is None:
        known = ", ".join(kept.decisions) or "none with rows of its own"
        raise InvalidRequest(f"request {request_id} has no output {output!r}; it has {known}", hint="label={'NAME': 1}")
    labels = _labels(label)
    values = decided.values
    is_class = labels.dtype.kind in "iubf" and bool((labels == np.round(labels)).all())
    if decided.classes is not None and (is_class or labels.shape != values.shape):
        values = decided.classes
    if values.ndim == 2 and labels.size == values.size:  # the targets of a single row
        labels = labels.reshape(values.shape)
    if labels.shape != values.shape:
        shape = "one label" if labels.shape == (1,) else f"labels of shape {labels.shape}"
        raise InvalidRequest(
            f"request {request_id} had {kept.rows} rows, and {shape} came; it wants one label for each row",
            hint="in the order of the rows: a class, a number or a text each, no list of zeros and a one",
        )
    if labels.dtype.kind in "US" and values.dtype.kind not in "USO":
        raise InvalidRequest(
            f"label {label!r} is text, and the answer to request {request_id} was a number",
            hint=f"the number of the right class, such as label={values[0]}",
        )
    if values is decided.values and decided.tolerance and labels.dtype.kind in "iuf":
        close = np.isclose(values, labels, rtol=decided.tolerance, atol=0.0)
        return np.asarray(close.reshape(kept.rows, close.size // max(1, kept.rows)).all(axis=1))
    if values.ndim == 2:
        return np.asarray((values == labels).all(axis=1))
    return np.array([bool(_told(value) == told) for value, told in zip(values, labels, strict=True)], dtype=bool)


def _labels(label: Any) -> np.ndarray:
    """Labels by row; of shape `(n,)`, unless they are something else."""
    try:
        labels = np.atleast_1d(np.asarray(label))
    except ValueError as error:
        raise InvalidRequest(f"the labels are no regular array: {error}", hint="one label for each row") from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return np.array([_told(one) for one in labels], dtype=object) if labels.dtype.kind in "SO" else labels


def _told(value: Any) -> Any:
    """Text as text: models answer with bytes, people give labels as `str`."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
