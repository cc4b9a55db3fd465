"""JSON text in and out, as tolerant as TensorFlow Serving's parser and as fast as orjson where the text allows it.

Thread: any; pure functions.

Reference: tensorflow_serving/util/json_tensor.cc parses with rapidjson's flags for NaN and Infinity and stops after the
first value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any  # JSON values

import orjson

from ..errors import InvalidRequest

MAX_DEBUG_CHARS = 256


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request body.

    Args:
        body: UTF-8 text.

    Raises:
        InvalidRequest: `JSON Parse error: ...`, or `JSON Value: ... Is not object`.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _parse_tolerantly(body)
    if not isinstance(value, dict):
        raise InvalidRequest(f"JSON Value: {debug_text(value)} Is not object")
    return value


def _parse_tolerantly(body: bytes) -> Any:
    """What rapidjson takes and orjson does not: NaN, Infinity, a byte order mark, bytes after the value."""
    if not body:
        raise InvalidRequest("JSON Parse error: The document is empty")
    text = body.decode("utf-8", "surrogateescape").removeprefix("\ufeff").lstrip(" \t\r\n")
    if not text:
        raise InvalidRequest(f"JSON Parse error: The document is empty. at offset: {len(body)}")
    try:
        value, _ = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except RecursionError:
        raise InvalidRequest("JSON Parse error: the document is nested too deeply") from None
    except ValueError as error:  # an integer with thousands of digits
        raise InvalidRequest(f"JSON Parse error: {error}") from None
    return value


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise json.JSONDecodeError("Number too big to be stored in double.", text, 0)
    return value


_DECODER = json.JSONDecoder(parse_float=_float)


def dump(value: Any) -> bytes:
    """JSON text of plain values and numpy arrays of finite numbers.

    Numbers keep their type's shortest exact form (float32 as float32).
    """
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def dump_with_nan(value: Any) -> bytes:
    """JSON text with bare `NaN`, `Infinity` and `-Infinity`, as TensorFlow Serving writes them.

    Args:
        value: plain values only.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def error_body(message: str) -> bytes:
    """`{"error": "..."}` in TensorFlow Serving's layout."""
    return b'{\n    "error": ' + json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n}"


def pretty(value: Mapping[str, Any]) -> bytes:
    """Protobuf's JSON layout: one space of indent, a newline at the end."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def debug_text(value: Any) -> str:
    """A JSON value for an error message, cut off after about 256 characters."""
    text = json.dumps(_cut(value), ensure_ascii=False)
    return text if len(text) <= MAX_DEBUG_CHARS else text[:MAX_DEBUG_CHARS]


def _cut(value: Any, depth: int = 0) -> Any:
    """Enough of a value to print, without walking through all of a large one."""
    if isinstance(value, str):
        return value[:MAX_DEBUG_CHARS]
    if isinstance(value, list):
        return [] if depth > 20 else [_cut(item, depth + 1) for item in value[:64]]
    if isinstance(value, dict):
        keys = list(value)[:64]
        return {} if depth > 20 else {key[:MAX_DEBUG_CHARS]: _cut(value[key], depth + 1) for key in keys}
    return value
