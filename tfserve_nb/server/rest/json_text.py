"""JSON text in and out, as tolerant as TensorFlow Serving's parser and as fast as orjson where the text allows it.

Thread: any; pure functions.

Reference: tensorflow_serving/util/json_tensor.cc parses with rapidjson's flags for NaN and Infinity and stops after the
first value; `JsonValueToDebugString` and rapidjson 1.1.0's prettywriter.h lay out values in error texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any  # JSON values

import orjson

from ...errors import InvalidRequest
from ..event_loop import is_on_loop
from . import tolerant_json


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request body.

    Args:
        body: UTF-8 text.

    Raises:
        InvalidRequest: `JSON Parse error: ...`, or `JSON Value: ... Is not object`.
        TakesLong: on the loop, for a text that needs another thread.
    """
    try:
        value = orjson.loads(body)
        # A key that is given twice is in the value; what is not there is not searched for.
        if isinstance(value, dict) and any(key in value and body.count(quoted) > 1 for key, quoted in _KEYS.items()):
            value = _parse_tolerantly(body)
    except orjson.JSONDecodeError:
        value = _parse_tolerantly(body)
    if not isinstance(value, dict):
        raise InvalidRequest(f"JSON Value: {debug_text(value)} Is not object")
    return value


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a body that has no form of TensorFlow Serving's: of the V2 and the admin API.

    Raises:
        InvalidRequest: if it is none: what is wrong, and at which line and column.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not any(word in body for word in _NOT_FINITE):
            raise InvalidRequest(f"JSON parse error: {error}") from None
        value = _with_not_finite(body)
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body must be a JSON object, and is {debug_text(value)}")
    return value


def signature_name(value: dict[str, Any]) -> str:
    """The signature that a request names; "" when it names none.

    Raises:
        InvalidRequest: if it is no text.
    """
    name = value.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidRequest(
            f"JSON Value: {debug_text(value)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


_KEYS = {key: f'"{key}"'.encode() for key in ("instances", "inputs", "signature_name", "examples", "context")}
"""Of these the first one counts; orjson keeps the last."""

_NOT_FINITE = (b"NaN", b"Infinity")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

MAX_DEBUG_CHARS = 256
_MAX_DEBUG_DEPTH = 200

TOLERANT_BYTES = 4 * 1024 * 1024
"""Longer texts are not given to the slow parser: all other requests would wait for it."""

LOOP_BYTES = 16 * 1024
"""Longer texts are not parsed tolerantly on the loop: the slow parser takes more than a second for each MB."""


class TakesLong(Exception):
    """A text is to be parsed beside the loop."""


def _with_not_finite(body: bytes) -> Any:
    """JSON with the bare words that responses have too; orjson refuses them."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"JSON parse error: {error}") from None


def _parse_tolerantly(body: bytes) -> Any:
    """What rapidjson takes and orjson does not."""
    if not body:
        raise InvalidRequest("JSON Parse error: The document is empty")
    if len(body) > LOOP_BYTES and is_on_loop():
        raise TakesLong
    try:
        if _SURROGATE.search(body):
            # The standard library takes half a pair for a character.
            raise ValueError(f"{TOLERANT_BYTES >> 20} MiB at most may have escaped surrogates: send them as UTF-8")
        # It takes NaN and Infinity, at a tenth of the slow parser's cost.
        value, _ = _DECODER.raw_decode(body.decode())
    except (ValueError, RecursionError) as error:
        if len(body) > TOLERANT_BYTES:
            raise InvalidRequest(f"JSON Parse error: {error}") from None
    else:
        return value
    try:
        return tolerant_json.parse(body)
    except tolerant_json.SyntaxProblem as problem:
        raise InvalidRequest(f"JSON Parse error: {problem}") from None


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        members.clear()
        for name, value in pairs:
            members.setdefault(name, value)
    return members


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{tolerant_json.TOO_BIG} It is {text:.40}")
    return value


def _integer(text: str) -> int | float:
    value = int(text)
    return value if -(2**63) <= value < 2**64 else _float(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_first_wins, parse_float=_float, parse_int=_integer)


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


def json_type(value: Any) -> str:
    """The type of a JSON value in rapidjson's words."""
    if isinstance(value, bool):
        return "True" if value else "False"
    return {type(None): "Null", dict: "Object", list: "Array", str: "String"}.get(type(value), "Number")


def debug_text(value: Any) -> str:
    """A JSON value for an error message, in the layout of TensorFlow Serving's messages.

    Objects have a member a line, indented by four spaces for each object and list around it; lists stand in one line.
    After about 256 characters nothing more is written, not even closing brackets, and the rest is not read.
    """
    text = ""
    for token in _debug_tokens(value, 0):
        text += token
        if len(text) >= MAX_DEBUG_CHARS:
            break
    return text


def _debug_tokens(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, dict) and value:
        indent = "\n" + "    " * (depth + 1)
        for number, (name, item) in enumerate(value.items()):
            yield f"{',' if number else '{'}{indent}{_debug_scalar(name)}: "
            yield from _debug_tokens(item, depth + 1)
        yield "\n" + "    " * depth + "}"
    elif isinstance(value, list) and value and depth < _MAX_DEBUG_DEPTH:
        for number, item in enumerate(value):
            yield ", " if number else "["
            yield from _debug_tokens(item, depth + 1)
        yield "]"
    else:
        yield _debug_scalar(value)


def _debug_scalar(value: Any) -> str:
    if isinstance(value, list | dict):
        return "[]" if isinstance(value, list) else "{}"
    if isinstance(value, str):
        value = value[:MAX_DEBUG_CHARS]
    return json.dumps(value, ensure_ascii=False)
