"""Requests that were captured: what was asked, what was answered, and when; and as a Parquet file.

The file has one row for each request, with tensors as raw bytes beside their dtype and shape.

Thread: any; immutable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, overload  # DataFrames, pyarrow's tables, JSON

import numpy as np

from ...errors import InvalidOption
from ...types import Tensors

MAX_REQUESTS = 1000
MAX_ROWS = 20_000
MAX_MIB = 64.0
MIB = 1 << 20

FORMAT = 1
_KEY = b"tfserve_nb"
_PLAIN = ("number", "at", "arrived_s", "version", "signature", "api", "entrypoint", "num_rows", "latency_ms",
          "is_redacted")  # fmt: skip

Redact: TypeAlias = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray] | None]
"""Gets the inputs of a request, and gives what may be kept of them; None leaves the request out."""


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

    def to_json(self) -> dict[str, Any]:
        """The limits and the names; a function that redacts stays where it is."""
        limits = {name: getattr(self, name) for name in ("max_requests", "max_rows", "max_mib")}
        return {**limits, "redact": list(self.names)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CaptureSettings:
        """The inverse of `to_json`; limits that are missing are the usual ones."""
        return cls(**{**value, "redact": tuple(value["redact"])})

    def __str__(self) -> str:
        redacted = "inputs go through a function" if callable(self.redact) else ", ".join(self.redact)
        what = f"at most {self.max_requests:,} requests, {self.max_rows:,} rows, {self.max_mib:g} MiB"
        return f"{what}; redacted: {redacted}" if redacted else what


@dataclass(frozen=True, slots=True)
class CapturedRequest:
    """One answered request. Neither its headers nor its client's key or request id are among it.

    Attributes:
        number: counts the captured requests of a model.
        at: when it arrived, seconds since the epoch.
        arrived_s: the same on the server's `perf_counter`: what gaps between requests are measured by.
        version: the version that answered.
        signature: the signature's name.
        api: `predict`, `classify` or `regress`.
        entrypoint: `REST`, `GRPC` or `KERNEL`.
        num_rows: its rows.
        latency_ms: from its head to its answer, as the server saw it.
        inputs: name -> array.
        outputs: name -> array, as it was answered.
        is_redacted: whether the inputs are not those that the answer belongs to.
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
            raise InvalidOption("to_dataframe() needs pandas", hint="pip install pandas, or go through it") from error
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


def _rows(request: CapturedRequest) -> Iterator[dict[str, Any]]:
    """One for each row; what has no rows of its own is in all of them."""
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
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    except OSError as error:
        raise InvalidOption(f"{path} cannot be written: {error}", hint="another path") from error
    return path


def load_captured(path: str | Path) -> CapturedRequests:
    """Read what `CapturedRequests.save` wrote.

    Raises:
        InvalidOption: without pyarrow, or if the file is none of ours.
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
    num_bytes = sum(array.nbytes for each in requests for array in (*each.inputs.values(), *each.outputs.values()))
    return CapturedRequests(str(head["model"]), requests, None, len(requests), num_bytes)


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
            array = np.frombuffer(tensor["data"], dtype=np.dtype(tensor["dtype"]))
        found[tensor["name"]] = array.reshape(tensor["shape"])
    return found
