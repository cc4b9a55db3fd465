"""A ring of real requests with their arrival times, to be sent to another version later; off until it is asked for.

Bounded in requests, rows and bytes, see `CaptureSettings`; the oldest make room for the newest. Only answered requests
are kept. It lies in this process's memory, and is gone with it. Headers and tokens never get here; the client's key and
the request's id, which do, are not kept, not even hashed: nothing needs them.

Thread: any; one lock, taken only for models that are captured. Arrays are copied outside of it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Mapping

import numpy as np

from ...types import Tensors
from .captured import MIB, CapturedRequest, CapturedRequests, CaptureSettings
from .observer import Observer
from .records import RequestRecord, RequestTensors

_APIS = {"classify": "classify", "regress": "regress"}


class Captures(Observer):
    """The captured requests of a server's models."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rings: dict[str, _Ring] = {}
        self._settings: Mapping[str, CaptureSettings] = {}
        self._since_s: dict[str, float] = {}

    def configure(self, model: str, settings: CaptureSettings | None, *, clear: bool = False) -> None:
        """Begin or end capturing a model.

        Args:
            model: its name.
            settings: how much is kept from now on; None ends, what was kept stays.
            clear: whether what was kept is dropped.
        """
        with self._lock:
            others = {name: kept for name, kept in self._settings.items() if name != model}
            self._settings = others if settings is None else {**others, model: settings}
            ring = _Ring() if clear or model not in self._rings else self._rings[model]
            self._rings[model] = ring
            self._since_s[model] = time.perf_counter()
            if settings is not None:
                ring.shrink(settings)

    def forget(self, model: str) -> None:
        """Drop a model's requests and stop."""
        self.configure(model, None, clear=True)
        with self._lock:
            self._rings.pop(model, None)
            self._since_s.pop(model, None)

    @property
    def is_on(self) -> bool:
        """Whether any model is captured."""
        return bool(self._settings)

    def wants_tensors(self, model: str) -> bool:
        """Whether requests of a model are captured."""
        return model in self._settings

    def requests_of(self, model: str, limit: int | None = None) -> CapturedRequests:
        """What is held of a model: the newest `limit` requests, or all, in the order of arrival."""
        with self._lock:
            ring = self._rings.get(model, _Ring())
            kept = sorted(ring.requests, key=lambda request: request.arrived_s)
            newest = kept if limit is None else kept[len(kept) - min(limit, len(kept)) :]
            return CapturedRequests(
                model, tuple(newest), self._settings.get(model), len(kept), ring.num_bytes, ring.num_left_out,
                ring.problem,
            )  # fmt: skip

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        """Keep an answered request."""
        settings = self._settings.get(record.model)
        if settings is None or tensors is None or tensors.outputs is None:
            return
        if record.code != "OK" or record.version is None:
            return
        size = _bytes(tensors.inputs) + _bytes(tensors.outputs)
        problem = _too_large(settings, record.num_rows, size)
        inputs, problem = (None, problem) if problem else _redacted(settings, tensors.inputs)
        outputs = {} if inputs is None else {name: _copied(array) for name, array in tensors.outputs.items()}
        is_redacted = bool(settings.redact) and not _are_same(inputs or {}, tensors.inputs)
        age_s = time.perf_counter() - record.received_s
        with self._lock:
            ring = self._rings.get(record.model)
            if ring is None or record.received_s < self._since_s[record.model]:
                return  # dropped meanwhile, or from before capturing began
            if inputs is None:
                ring.num_left_out += 1
                ring.problem = problem
                return
            request = CapturedRequest(
                number=next(ring.numbers),
                at=time.time() - age_s,
                arrived_s=record.received_s,
                version=record.version,
                signature=record.signature,
                api=_APIS.get(record.api.lower(), "predict"),
                entrypoint=record.entrypoint,
                num_rows=record.num_rows,
                latency_ms=1e3 * record.latency_s,
                inputs=inputs,
                outputs=outputs,
                is_redacted=is_redacted,
            )
            ring.add(request, size)
            ring.shrink(settings)


class _Ring:
    """The requests of one model, in the order in which they were answered."""

    __slots__ = ("_sizes", "num_bytes", "num_left_out", "num_rows", "numbers", "problem", "requests")

    def __init__(self) -> None:
        self.requests: deque[CapturedRequest] = deque()
        self._sizes: deque[int] = deque()
        self.numbers = itertools.count(1)
        self.num_rows = self.num_bytes = self.num_left_out = 0
        self.problem = ""

    def add(self, request: CapturedRequest, size: int) -> None:
        """Take one in."""
        self.requests.append(request)
        self._sizes.append(size)
        self.num_rows += request.num_rows
        self.num_bytes += size

    def shrink(self, settings: CaptureSettings) -> None:
        """Drop the oldest until all limits are kept."""
        while self.requests and (
            len(self.requests) > settings.max_requests
            or self.num_rows > settings.max_rows
            or self.num_bytes > settings.max_mib * MIB
        ):
            self.num_rows -= self.requests.popleft().num_rows
            self.num_bytes -= self._sizes.popleft()


def _too_large(settings: CaptureSettings, num_rows: int, num_bytes: int) -> str:
    if num_rows > settings.max_rows:
        return f"{num_rows:,} rows are more than {settings.max_rows:,}"
    if num_bytes > settings.max_mib * MIB:
        return f"{num_bytes / MIB:.3g} MiB are more than {settings.max_mib:g}"
    return ""


def _redacted(settings: CaptureSettings, inputs: Tensors) -> tuple[Tensors | None, str]:
    """Own copies of what may be kept; or None and why nothing may."""
    if not callable(settings.redact):
        return {
            name: _zeros(array) if name in settings.redact else _copied(array) for name, array in inputs.items()
        }, ""
    try:
        kept = settings.redact({name: array.copy() for name, array in inputs.items()})
        if kept is None:
            return None, "redact left it out"
        arrays = {name: np.asarray(array) for name, array in kept.items()}
    except Exception as error:  # noqa: BLE001 - the user's function; nothing is kept of what it cannot redact
        return None, f"redact raised {type(error).__name__}: {error}"
    wrong = _mismatch(arrays, inputs)
    return (None, f"redact gave {wrong}") if wrong else ({name: _copied(array) for name, array in arrays.items()}, "")


def _mismatch(kept: Tensors, inputs: Tensors) -> str:
    """Why redacted inputs could not be sent, or ""."""
    if kept.keys() != inputs.keys():
        return f"inputs {', '.join(sorted(kept)) or 'none'} for {', '.join(sorted(inputs))}"
    for name, array in inputs.items():
        if kept[name].dtype != array.dtype or kept[name].shape != array.shape:
            return f"{name} as {kept[name].dtype}{list(kept[name].shape)} for {array.dtype}{list(array.shape)}"
    return ""


def _zeros(array: np.ndarray) -> np.ndarray:
    found = np.full(array.shape, b"", dtype=object) if array.dtype == object else np.zeros_like(array, order="C")
    found.flags.writeable = False
    return found


def _copied(array: np.ndarray) -> np.ndarray:
    found = np.array(array, order="C", copy=True)
    found.flags.writeable = False
    return found


def _are_same(kept: Tensors, given: Tensors) -> bool:
    return all(
        np.array_equal(array, given[name], equal_nan=given[name].dtype.kind in "fc") for name, array in kept.items()
    )


def _bytes(tensors: Tensors) -> int:
    """What arrays take; texts are counted with what Python adds to each."""
    return sum(
        int(array.nbytes)
        if array.dtype != object
        else sum(56 + len(item) for item in array.reshape(-1).tolist() if isinstance(item, bytes | str))
        for array in tensors.values()
    )
