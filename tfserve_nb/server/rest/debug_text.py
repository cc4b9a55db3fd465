"""A JSON value for an error message, in the layout of TensorFlow Serving's messages.

Objects have a member a line, indented by four spaces for each object and list around it; lists stand in one line. After
about 256 characters nothing more is written, not even closing brackets.

Thread: any; pure functions.

Reference: tensorflow_serving/util/json_tensor.cc (`JsonValueToDebugString`) and rapidjson 1.1.0's prettywriter.h.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any  # JSON values

MAX_CHARS = 256
_MAX_DEPTH = 200


def debug_text(value: Any) -> str:
    """The text of a value, cut off after about 256 characters; the rest of the value is not looked at."""
    text = ""
    for token in _tokens(value, 0):
        text += token
        if len(text) >= MAX_CHARS:
            break
    return text


def _tokens(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, dict) and value:
        indent = "\n" + "    " * (depth + 1)
        for number, (name, item) in enumerate(value.items()):
            yield f"{',' if number else '{'}{indent}{_scalar(name)}: "
            yield from _tokens(item, depth + 1)
        yield "\n" + "    " * depth + "}"
    elif isinstance(value, list) and value and depth < _MAX_DEPTH:
        for number, item in enumerate(value):
            yield ", " if number else "["
            yield from _tokens(item, depth + 1)
        yield "]"
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, list | dict):
        return "[]" if isinstance(value, list) else "{}"
    if isinstance(value, str):
        value = value[:MAX_CHARS]
    return json.dumps(value, ensure_ascii=False)
