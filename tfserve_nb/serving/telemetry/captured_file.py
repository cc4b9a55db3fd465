"""Captured requests as a Parquet file: one row for each request, tensors as raw bytes with dtype and shape.

Thread: any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any  # pyarrow's tables, JSON

import numpy as np

from ...errors import InvalidOption
from ...types import Tensors
from .captured import CapturedRequest, CapturedRequests

FORMAT = 1
_KEY = b"tfserve_nb"
_PLAIN = ("number", "at", "arrived_s", "version", "signature", "api", "entrypoint", "num_rows", "latency_ms",
          "is_redacted")  # fmt: skip


def save_captured(captured: CapturedRequests, path: Path) -> Path:
    """Write requests; see `CapturedRequests.save`.

    Raises:
        InvalidOption: without pyarrow, or when the file cannot be written.
    """
    pa, parquet = _pyarrow()
    schema = _schema(pa).with_metadata({_KEY: json.dumps({"format": FORMAT, "model": captured.model})})
    rows = [
        {
            **{name: getattr(one, name) for name in _PLAIN},
            "inputs": _to_list(one.inputs),
            "outputs": _to_list(one.outputs),
        }
        for one in captured
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
    num_bytes = sum(array.nbytes for one in requests for array in (*one.inputs.values(), *one.outputs.values()))
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
    for one in tensors:
        if one["dtype"] == "object":
            array = np.empty(len(one["texts"]), dtype=object)
            array[:] = one["texts"]
        else:
            array = np.frombuffer(one["data"], dtype=np.dtype(one["dtype"]))
        found[one["name"]] = array.reshape(one["shape"])
    return found
