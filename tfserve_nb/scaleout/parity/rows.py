"""The rows that are sent to both servers: the user's, captured ones, those of a warm-up file, or made up.

Thread: any.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # rows of the user, JSON

import numpy as np

from ...bench.load.targets import generated_rows
from ...errors import InvalidOption, InvalidRequest
from ...export.arrays import read_rows
from ...export.layout import version_dir
from ...export.signatures import main_signature
from ...export.warmup_requests import WARMUP_FILE, read_request_file
from ...server.admin.predict_body import decoded
from ...server.rest.example_json import parse_examples
from ...serving.telemetry.capture import load_captured
from ...types import SignatureSpec, Tensors
from .side import Side
from .told import Version

ROWS_OF_REQUEST = 32
MADE_UP_ROWS = 16


@dataclass(frozen=True, slots=True)
class GivenRequest:
    """Inputs as the user gave them, or as a client sent them.

    Attributes:
        value: as `d.predict` takes them; for serialized `tf.Example`s a dict with the one name "".
        signature: the signature's name; "" for the main one.
        is_whole: whether it was a request, which is not cut.
    """

    value: Any
    signature: str = ""
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class GivenRows:
    """Where rows come from, in words, and the rows."""

    origin: str
    requests: tuple[GivenRequest, ...]


MADE_UP = GivenRows("made up; --rows FILE sends others", ())


@dataclass(frozen=True, slots=True)
class SentRows:
    """The requests for one signature.

    Attributes:
        pieces: inputs of each request.
        are_made_up: whether nobody gave rows for it.
    """

    pieces: tuple[Tensors, ...]
    are_made_up: bool


def given_rows(rows: Any) -> GivenRows:
    """The rows of the option `rows`.

    Args:
        rows: as `ParityOptions.rows`: a path, or rows as `d.predict` takes them.

    Raises:
        InvalidOption: if the file cannot be read, or is of no kind that is known.
        ServingError: naming the record of a request log that is damaged.
    """
    if not isinstance(rows, str | Path):
        return GivenRows("what was given as rows", (GivenRequest(rows),))
    path = Path(rows)
    try:
        given = GivenRows(str(path), tuple(_read(path)))
    except (OSError, ValueError, KeyError, TypeError, InvalidRequest) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidOption(
            f"rows={str(path)!r} cannot be read: {reason}",
            hint="a .npy, .npz, .json or .parquet file, a warm-up file, or a version's folder",
        ) from error
    if not given.requests:
        raise InvalidOption(f"{path} holds no rows", hint="leave --rows out to send made-up ones")
    return given


def check_signatures(given: GivenRows, name: str, versions: Iterable[Version]) -> None:
    """Refuse rows of the user for a signature that the model has not.

    Raises:
        InvalidRequest: naming it.
    """
    known = {signature for version in versions for signature in version.signatures}
    strange = sorted({one.signature for one in given.requests if one.signature} - known)
    if strange:
        raise InvalidRequest(
            f"{given.origin} has requests for signature {strange[0]!r}, which {name} has not on both servers",
            hint=f"one of {', '.join(sorted(known)) or 'none'}",
        )


def told_rows(side: Side, name: str, version: int, limit: int) -> GivenRows:
    """The requests that a server captured, or those of its warm-up file where that is on this machine; else none.

    Args:
        side: the server.
        name: the model.
        version: whose file.
        limit: most requests.
    """
    admin = side.admin
    if admin is None:
        return MADE_UP
    captured = admin.captured(name, limit)
    if len(captured):
        requests = tuple(GivenRequest(dict(one.inputs), one.signature, is_whole=True) for one in captured)
        return GivenRows(f"{len(requests)} requests that {side.letter} captured", requests)
    base_path = admin.base_path(name)
    file = None if base_path is None else version_dir(base_path, name, version) / WARMUP_FILE
    if file is None or not file.is_file():
        return MADE_UP
    return GivenRows(str(file), tuple(_warmup(file)))


def rows_for(
    signature: SignatureSpec, signatures: Mapping[str, SignatureSpec], given: GivenRows, max_rows: int
) -> SentRows:
    """The requests for a signature: those that were given for it, or else made-up rows.

    Args:
        signature: what the version takes.
        signatures: all of the version's.
        given: rows.
        max_rows: most rows.

    Raises:
        InvalidRequest: if rows do not fit.
        InvalidOption: if there are none.
    """
    main = main_signature(signatures).name
    pieces: list[Tensors] = []
    num_rows = 0
    for request in given.requests:
        if (request.signature or main) != signature.name or num_rows >= max_rows:
            continue
        inputs = read_rows(signature, _named(request.value, signature))
        if not count_rows(signature, inputs) and not request.is_whole:
            raise InvalidOption(f"{given.origin} holds no rows", hint="leave --rows out to send made-up ones")
        found = [inputs] if request.is_whole else list(cut(signature, inputs, max_rows - num_rows))
        pieces += found
        num_rows += sum(count_rows(signature, piece) for piece in found)
    if pieces:
        return SentRows(tuple(pieces), are_made_up=False)
    return SentRows(tuple(cut(signature, generated_rows(signature), MADE_UP_ROWS)), are_made_up=True)


def cut(signature: SignatureSpec, inputs: Tensors, most: int) -> Iterator[Tensors]:
    """Requests of one row, then of several: a row alone is to be answered as it is among others."""
    batched = _batched(signature, inputs)
    if not batched or any(not spec.is_batched and spec.shape for spec in signature.inputs.values()):
        yield inputs
        return
    num = min(most, *(len(inputs[name]) for name in batched))
    starts = [0, *range(1, num, ROWS_OF_REQUEST)]
    for start, end in zip(starts, [*starts[1:], num], strict=True):
        yield {name: array[start:end] if name in batched else array for name, array in inputs.items()}


def count_rows(signature: SignatureSpec, inputs: Tensors) -> int:
    """The rows of a request; 1 where nothing counts them."""
    sizes = [len(inputs[name]) for name in _batched(signature, inputs)]
    return sizes[0] if sizes else 1


def _batched(signature: SignatureSpec, inputs: Tensors) -> list[str]:
    """The inputs whose dimension 0 counts rows, of those that are given."""
    return [name for name, array in inputs.items() if signature.inputs[name].is_batched and array.ndim]


def _named(value: Any, signature: SignatureSpec) -> Any:
    """Serialized examples under the name of the one input that takes them."""
    if isinstance(value, Mapping) and value.keys() == {""}:
        if len(signature.inputs) != 1:
            raise InvalidRequest(f"signature {signature.name!r} takes more than serialized examples")
        return dict(zip(signature.inputs, value.values(), strict=True))
    return value


def _read(path: Path) -> Iterable[GivenRequest]:
    if path.is_dir():
        return _warmup(path / WARMUP_FILE)
    if path.suffix == ".npy":
        return [GivenRequest(np.load(path, allow_pickle=False))]
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return [GivenRequest(dict(arrays))]
    if path.suffix == ".json":
        return [_from_json(path.read_bytes())]
    if path.suffix == ".parquet":
        return [GivenRequest(dict(one.inputs), one.signature, is_whole=True) for one in load_captured(path)]
    return _warmup(path)


def _warmup(path: Path) -> Iterator[GivenRequest]:
    for request in read_request_file(path):
        yield GivenRequest(dict(request.inputs), request.signature, is_whole=True)


def _from_json(body: bytes) -> GivenRequest:
    """A predict request in row or columnar format, a classify or regress request, or a list of rows."""
    value = json.loads(body)
    if isinstance(value, list):
        value = {"instances": value}
    if not isinstance(value, dict) or len({"instances", "inputs", "examples"} & value.keys()) != 1:
        raise ValueError('it is neither a list of rows nor an object with "instances", "inputs" or "examples"')
    signature = str(value.get("signature_name", ""))
    if "examples" in value:
        return GivenRequest({"": parse_examples(body).examples}, signature)
    if "inputs" in value:
        inputs = value["inputs"]
        named = isinstance(inputs, dict) and inputs.keys() != {"b64"}
        return GivenRequest({k: decoded(v) for k, v in inputs.items()} if named else decoded(inputs), signature)
    rows = value["instances"]
    if rows and all(isinstance(row, dict) and row.keys() != {"b64"} for row in rows):
        return GivenRequest({name: decoded([row[name] for row in rows]) for name in rows[0]}, signature)
    return GivenRequest(decoded(rows), signature)
