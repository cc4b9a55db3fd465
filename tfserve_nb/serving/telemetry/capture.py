"""Captured requests: real requests with their arrival times, kept to be sent to another version later, or in a file.

Off until it is switched on. Bounded in requests, rows and bytes, see `CaptureSettings`; the oldest make room for the
newest. Only answered requests are kept, in this process's memory. Headers and tokens never get here; the client's key
and the request's id, which do, are not kept, not even hashed: nothing needs them.

`CapturedRequests.save` writes a Parquet file: one row for each request, with tensors as raw bytes beside their dtype
and shape.

Thread: any; one lock, taken only for models that are captured. Arrays are copied outside of it; results are immutable.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, overload  # DataFrames, pyarrow's tables, JSON

import numpy as np

from ...errors import InvalidOption
from ...temporary import replacing
from ...types import Tensors, numpy_dtype
from .observer import Observer
from .records import RequestRecord, RequestTensors, num_bytes, own_copy

MAX_REQUESTS = 1000
MAX_ROWS = 20_000
MAX_MIB = 64.0
MIB = 1 << 20

FORMAT = 1
_KEY = b"tfserve_nb"
_PLAIN = ("number", "at", "arrived_s", "version", "signature", "api", "entrypoint", "num_rows", "latency_ms",
          "is_redacted")  # fmt: skip
_APIS = {"classify": "classify", "regress": "regress"}

Redact: TypeAlias = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray] | None]
"""Gets the inputs of a request and returns what may be kept of them; None leaves the request out."""


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """How much of a model's requests is captured.

    Attributes:
        max_requests: requests that are kept, the newest.
        max_rows: rows of them altogether; a larger request is left out.
        max_mib: inputs and outputs of them altogether, in MiB; a larger request is left out.
        redact: names of inputs that are replaced by zeros (texts by empty ones) of the same shape, or a function.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    max_requests: int = MAX_REQUESTS
    max_rows: int = MAX_ROWS
    max_mib: float = MAX_MIB
    redact: tuple[str, ...] | Redact = ()

    def __post_init__(self) -> None:
        for name, lowest in (("max_requests", 1), ("max_rows", 1), ("max_mib", 0.001)):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not lowest <= value < float("inf"):
                raise InvalidOption(
                    f"{name}={value!r} must be a number of at least {lowest}", hint="d.capture(max_requests=1000)"
                )
        if callable(self.redact):
            return
        names = (self.redact,) if isinstance(self.redact, str) else tuple(self.redact)
        if not all(isinstance(name, str) and name for name in names):
            raise InvalidOption(
                f"redact={self.redact!r} must be names of inputs, or a function", hint='redact=["name"]'
            )
        object.__setattr__(self, "redact", names)

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that are replaced; none for a function."""
        return () if callable(self.redact) else self.redact

    def check_names(self, model: str, known: Collection[str]) -> None:
        """Refuse names of inputs that a model does not have.

        Args:
            model: the model's name.
            known: the inputs of its loaded versions; without any, no name is refused.

        Raises:
            InvalidOption: naming the first of them.
        """
        unknown = sorted(set(self.names) - set(known))
        if known and unknown:
            raise InvalidOption(
                f"redact={unknown[0]!r} is no input of {model}; it has {', '.join(sorted(known))}",
                hint=f"redact=[{min(known)!r}]",
            )

    def to_json(self) -> dict[str, Any]:
        """The limits and the names; a function is left out."""
        limits = {name: getattr(self, name) for name in ("max_requests", "max_rows", "max_mib")}
        return {**limits, "redact": list(self.names)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CaptureSettings:
        """The inverse of `to_json`; missing limits get their defaults."""
        return cls(**{**value, "redact": tuple(value["redact"])})

    def __str__(self) -> str:
        redacted = "inputs go through a function" if callable(self.redact) else ", ".join(self.redact)
        what = f"at most {self.max_requests:,} requests, {self.max_rows:,} rows, {self.max_mib:g} MiB"
        return f"{what}; redacted: {redacted}" if redacted else what


@dataclass(frozen=True, slots=True)
class CapturedRequest:
    """One answered request. Its headers, its client's key and its request id are not kept.

    Attributes:
        number: counts the captured requests of a model.
        at: when it arrived, seconds since the epoch.
        arrived_s: the same on the server's `perf_counter`: what gaps between requests are measured by.
        version: the version that answered.
        signature: the signature's name.
        api: `predict`, `classify` or `regress`.
        entrypoint: `REST`, `GRPC` or `KERNEL`.
        num_rows: its rows.
        latency_ms: from its head to its response, as measured by the server.
        inputs: name -> array.
        outputs: name -> array, as the client got them.
        is_redacted: whether the inputs were changed, so that the outputs do not belong to them.
    """

    number: int
    at: float
    arrived_s: float
    version: int
    signature: str
    api: str
    entrypoint: str
    num_rows: int
    latency_ms: float
    inputs: Tensors
    outputs: Tensors
    is_redacted: bool = False


@dataclass(frozen=True, slots=True)
class CapturedRequests:
    """What was captured of a model, in the order of arrival.

    Attributes:
        model: the model's name.
        requests: the requests; fewer than `num_kept` when only some were asked for.
        settings: how it is captured now; None while it is not.
        num_kept: requests that are held.
        num_bytes: inputs and outputs of them.
        num_left_out: requests that were too large, or that could not be redacted.
        problem: why the last one was left out, or "".
    """

    model: str
    requests: tuple[CapturedRequest, ...]
    settings: CaptureSettings | None = None
    num_kept: int = 0
    num_bytes: int = 0
    num_left_out: int = 0
    problem: str = field(default="")

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[CapturedRequest]:
        return iter(self.requests)

    @overload
    def __getitem__(self, place: int) -> CapturedRequest: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[CapturedRequest, ...]: ...
    def __getitem__(self, place: int | slice) -> CapturedRequest | tuple[CapturedRequest, ...]:
        return self.requests[place]

    @property
    def is_on(self) -> bool:
        """Whether requests are captured now."""
        return self.settings is not None

    @property
    def seconds(self) -> float:
        """From the first arrival to the last."""
        return self.requests[-1].arrived_s - self.requests[0].arrived_s if self.requests else 0.0

    def newest(self, limit: int | None) -> CapturedRequests:
        """The newest `limit` of them; all for None."""
        return self if limit is None else replace(self, requests=self.requests[-limit:] if limit > 0 else ())

    def to_dataframe(self) -> Any:
        """Every row of every request as a row of a pandas DataFrame.

        Returns:
            Columns `request` (its number), `row`, `at` (UTC), `version`, `signature`, `latency_ms`, and one for each
            input and output (`inputs.x`, `outputs.y`), whose cells are numbers, bytes or arrays of one row.

        Raises:
            InvalidOption: without pandas.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise InvalidOption("to_dataframe() needs pandas", hint="pip install pandas, or use a loop") from error
        table = pd.DataFrame([row for request in self.requests for row in _rows(request)])
        if len(table):
            table["at"] = pd.to_datetime(table["at"], unit="s", utc=True)
        return table

    def save(self, path: str | Path) -> Path:
        """Write all of them into a Parquet file, which `load_captured` reads.

        Raises:
            InvalidOption: without pyarrow, or when the file cannot be written.
        """
        return save_captured(self, Path(path))

    def save_warmup(self, version_dir: str | Path) -> Path:
        """Write the newest, at most 1000, as the warm-up file of a version; TensorFlow Serving reads it too.

        Args:
            version_dir: the version's folder.

        Returns:
            `assets.extra/tf_serving_warmup_requests` below it.

        Raises:
            InvalidOption: if nothing was captured, or the folder holds no SavedModel.
        """
        from ...export.prediction_log import LoggedCall
        from ...export.warmup_requests import MAX_WARMUP_RECORDS, write_warmup_calls

        if not self.requests:
            raise InvalidOption(f"no request of {self.model} was captured", hint=f"%serving {self.model} --capture on")
        calls = [
            LoggedCall(call.api, self.model, call.version, call.signature, call.inputs, call.outputs, call.at, 1.0)
            for call in self.requests[-MAX_WARMUP_RECORDS:]
        ]
        return write_warmup_calls(Path(version_dir), calls)

    def __repr__(self) -> str:
        state = f"on, {self.settings}" if self.settings is not None else "off"
        kept = f"{self.num_kept:,} request{'s' if self.num_kept != 1 else ''} kept, {self.num_bytes / MIB:.3g} MiB"
        left_out = f"; {self.num_left_out:,} left out ({self.problem})" if self.num_left_out else ""
        return f"<CapturedRequests of {self.model}: {kept}{left_out}; capture is {state}>"


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
        """Drop a model's requests and stop capturing it."""
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

    def inputs_of(self, model: str, signature: str) -> list[Tensors]:
        """The inputs of a model's captured requests for one signature, the newest first."""
        captured = self.requests_of(model).requests
        return [request.inputs for request in reversed(captured) if request.signature == signature]

    def on_request(self, record: RequestRecord, tensors: RequestTensors | None) -> None:
        """Keep an answered request."""
        settings = self._settings.get(record.model)
        if settings is None or tensors is None or tensors.outputs is None:
            return
        if record.code != "OK" or record.version is None:
            return
        size = num_bytes(tensors.inputs) + num_bytes(tensors.outputs)
        problem = _too_large(settings, record.num_rows, size)
        inputs, problem = (None, problem) if problem else _redacted(settings, tensors.inputs)
        outputs = {} if inputs is None else {name: own_copy(array) for name, array in tensors.outputs.items()}
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
        """Append a request of `size` bytes."""
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


def _too_large(settings: CaptureSettings, num_rows: int, size: int) -> str:
    if num_rows > settings.max_rows:
        return f"{num_rows:,} rows are more than {settings.max_rows:,}"
    if size > settings.max_mib * MIB:
        return f"{size / MIB:.3g} MiB are more than {settings.max_mib:g}"
    return ""


def _redacted(settings: CaptureSettings, inputs: Tensors) -> tuple[Tensors | None, str]:
    """Own copies of what may be kept; or None and why nothing may."""
    if not callable(settings.redact):
        return {
            name: _zeros(array) if name in settings.redact else own_copy(array) for name, array in inputs.items()
        }, ""
    try:
        kept = settings.redact({name: array.copy() for name, array in inputs.items()})
        if kept is None:
            return None, "redact left it out"
        arrays = {name: np.asarray(array) for name, array in kept.items()}
    except Exception as error:  # noqa: BLE001 - the user's function; nothing is kept of what it cannot redact
        return None, f"redact raised {type(error).__name__}: {error}"
    wrong = _mismatch(arrays, inputs)
    return (None, f"redact gave {wrong}") if wrong else ({name: own_copy(array) for name, array in arrays.items()}, "")


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


def _are_same(kept: Tensors, given: Tensors) -> bool:
    return all(
        np.array_equal(array, given[name], equal_nan=given[name].dtype.kind in "fc") for name, array in kept.items()
    )


def _rows(request: CapturedRequest) -> Iterator[dict[str, Any]]:
    """The DataFrame's rows, one for each row of the request; an array without rows stands in all of them."""
    named = {f"inputs.{name}": array for name, array in request.inputs.items()}
    named |= {f"outputs.{name}": array for name, array in request.outputs.items()}
    for row in range(request.num_rows):
        yield {
            "request": request.number,
            "row": row,
            "at": request.at,
            "version": request.version,
            "signature": request.signature,
            "latency_ms": request.latency_ms,
            **{
                name: array[row] if array.ndim and len(array) == request.num_rows else array
                for name, array in named.items()
            },
        }


def save_captured(captured: CapturedRequests, path: Path) -> Path:
    """Write requests; see `CapturedRequests.save`.

    Raises:
        InvalidOption: without pyarrow, or when the file cannot be written.
    """
    pa, parquet = _pyarrow()
    schema = _schema(pa).with_metadata({_KEY: json.dumps({"format": FORMAT, "model": captured.model})})
    rows = [
        {
            **{name: getattr(request, name) for name in _PLAIN},
            "inputs": _to_list(request.inputs),
            "outputs": _to_list(request.outputs),
        }
        for request in captured
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:  # what was saved there before is worth more than half of this
            parquet.write_table(pa.Table.from_pylist(rows, schema=schema), partial)
    except OSError as error:
        raise InvalidOption(f"{path} cannot be written: {error}", hint="another path") from error
    return path


def load_captured(path: str | Path) -> CapturedRequests:
    """Read what `CapturedRequests.save` wrote.

    Raises:
        InvalidOption: without pyarrow, or if the file was not written by it.
    """
    pa, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
        head = json.loads((table.schema.metadata or {})[_KEY])
        if head["format"] != FORMAT:
            raise InvalidOption(
                f"{path} has the format {head['format']}, and this version knows {FORMAT}", hint="capture anew"
            )
        requests = tuple(_request(row) for row in table.to_pylist())
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise InvalidOption(
            f"{path} holds no captured requests: {type(error).__name__}: {error}", hint="a file of d.captured().save()"
        ) from error
    size = sum(num_bytes(request.inputs) + num_bytes(request.outputs) for request in requests)
    return CapturedRequests(str(head["model"]), requests, None, len(requests), size)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise InvalidOption(
            "Parquet files need pyarrow", hint="pip install 'pyarrow>=18', or 'tfserve_nb[parquet]'"
        ) from error
    return pa, pyarrow.parquet


def _schema(pa: Any) -> Any:
    tensor = pa.struct(
        [
            ("name", pa.string()),
            ("dtype", pa.string()),
            ("shape", pa.list_(pa.int64())),
            ("data", pa.binary()),
            ("texts", pa.list_(pa.binary())),
        ]
    )
    kinds = {"number": pa.int64(), "at": pa.float64(), "arrived_s": pa.float64(), "version": pa.int64(),
             "num_rows": pa.int64(), "latency_ms": pa.float64(), "is_redacted": pa.bool_()}  # fmt: skip
    fields = [(name, kinds.get(name, pa.string())) for name in _PLAIN]
    return pa.schema([*fields, ("inputs", pa.list_(tensor)), ("outputs", pa.list_(tensor))])


def _to_list(tensors: Tensors) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "data": None if array.dtype == object else np.ascontiguousarray(array).tobytes(),
            "texts": _texts(array) if array.dtype == object else None,
        }
        for name, array in tensors.items()
    ]


def _texts(array: np.ndarray) -> list[bytes]:
    return [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1)]


def _request(row: Mapping[str, Any]) -> CapturedRequest:
    plain = {name: row[name] for name in _PLAIN}
    return CapturedRequest(**plain, inputs=_from_list(row["inputs"]), outputs=_from_list(row["outputs"]))


def _from_list(tensors: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    found = {}
    for tensor in tensors:
        if tensor["dtype"] == "object":
            array = np.empty(len(tensor["texts"]), dtype=object)
            array[:] = tensor["texts"]
        else:
            array = np.frombuffer(tensor["data"], dtype=numpy_dtype(tensor["dtype"]))
        found[tensor["name"]] = array.reshape(tensor["shape"])
    return found
