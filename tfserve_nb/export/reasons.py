"""One line from an error of TensorFlow or Keras: the cause itself, without the pages around it.

Thread: any.
"""

from __future__ import annotations

import os
import re

MAX_LENGTH = 300
"""Characters of a reason; what is longer ends in an ellipsis."""

MAX_REPR = 60
"""Characters of a value that are shown in a message."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_KERAS_FRAME = re.compile(r"^Exception encountered when calling [^\n]*\n", re.MULTILINE)
_KERAS_ARGUMENTS = re.compile(r"\n\s*(?:Arguments|Call arguments) received by .*", re.DOTALL)
_TYPED_LINE = re.compile(r"^\s*(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Warning|Interrupt)\b.*?: ")
_NODE = "Node: "
_GRAPH_NOISE = re.compile(
    r"Graph execution error:|Detected at node|<stack traces unavailable>|Original stack trace"
    r"|Errors may have originated|Function call stack|Input Source operations|\d+ root error|File \"|\[\[\{\{node"
)
_ROOT_ERROR = re.compile(r"^\(\d+\) [A-Z_]+: +")
_OP_NOISE = re.compile(r"\{\{[^}]*\}\}\s*|\s*\[Op:[^\]]*\]")
_DISK = (
    "No space left on device",
    "File too large",
    "Disk quota exceeded",
    "Read-only file system",
    "Permission denied",
    "Input/output error",
    "Stale file handle",
)


def innermost(error: BaseException) -> str:
    """What went wrong, in one line, such as `ValueError: bad shape`.

    Keras wraps an error in the names and arguments of every layer that it passed through, and AutoGraph in a
    traceback of the user's code; both keep the text of the cause, which is what this looks for. The types of
    TensorFlow's own errors say nothing that the text does not.
    """
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    text = _ANSI.sub("", str(error))
    text = _KERAS_FRAME.sub("", _KERAS_ARGUMENTS.sub("", text))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    typed = [line for line in lines if _TYPED_LINE.match(line)]
    if typed and lines[0] == "in user code:":
        return shorten(typed[-1])
    cause = cause_in_graph(text)
    if cause and type(error).__module__.startswith("tensorflow."):
        return shorten(cause)
    return shorten(f"{type(error).__name__}: {cause}") if cause else type(error).__name__


def cause_in_graph(text: str) -> str:
    """The line of one of TensorFlow's error texts that says what went wrong; "" when there is none.

    An error in a graph comes with a heading, the place in the user's code, and the name of the node before it.
    """
    lines = [line.strip() for line in text.splitlines()]
    nodes = [number for number, line in enumerate(lines) if line.startswith(_NODE)]
    after = lines[nodes[0] + 1 if nodes else 0 :]
    for before, line in zip(["", *after], after, strict=False):
        is_code = before.startswith('File "')  # an empty line is between a place and a reason
        if line and not is_code and not _GRAPH_NOISE.match(line) and not line.startswith(_NODE):
            return shorten(_ROOT_ERROR.sub("", line))
    return ""


def disk_reason(error: BaseException) -> str | None:
    """The error of the disk, such as `No space left on device`; None when the error is not about files."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    text = str(error)
    return next((reason for reason in _DISK if reason in text), None)


def short_repr(value: object) -> str:
    """How a value shows itself, or "" when that takes more than `MAX_REPR` characters or one line."""
    text = repr(value)
    return text if len(text) <= MAX_REPR and "\n" not in text else ""


def shorten(text: str) -> str:
    """The text as one line of at most `MAX_LENGTH` characters, without TensorFlow's names of ops."""
    line = " ".join(_OP_NOISE.sub(" ", text).split())
    return line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH - 1]}…"
