"""A JSON parser that takes what TensorFlow Serving's takes, and reports errors in its words, at its offsets.

It is the slow way, for texts that the fast parsers refuse: `Inf` and `-NaN`, lists nested without limit, bytes after
the value, text that is no UTF-8. Of members with the same name the first one counts. Without recursion.

Thread: any; pure functions.

Reference: rapidjson 1.1.0's reader.h with the flags of tensorflow_serving/util/json_tensor.cc: iterative, NaN and Inf,
stop when done.
"""

from __future__ import annotations

import math
import re
from typing import Any  # JSON values

_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_INTEGER = re.compile(rb"0|[1-9][0-9]*")
_DIGITS = re.compile(rb"[0-9]+")
_HEX = re.compile(rb"[0-9a-fA-F]{4}")
_ESCAPES = {
    b'"': '"',
    b"\\": "\\",
    b"/": "/",
    b"b": "\b",
    b"f": "\f",
    b"n": "\n",
    b"r": "\r",
    b"t": "\t",
}
_WORDS = {b"t": (b"true", True), b"f": (b"false", False), b"n": (b"null", None)}

EMPTY = "The document is empty."
INVALID = "Invalid value."
NO_NAME = "Missing a name for object member."
NO_COLON = "Missing a colon after a name of object member."
NO_COMMA_IN_OBJECT = "Missing a comma or '}' after an object member."
NO_COMMA_IN_ARRAY = "Missing a comma or ']' after an array element."
BAD_HEX = r"Incorrect hex digit after \u escape in string."
BAD_SURROGATE = "The surrogate pair in string is invalid."
BAD_ESCAPE = "Invalid escape character in string."
NO_QUOTE = "Missing a closing quotation mark in string."
TOO_BIG = "Number too big to be stored in double."
NO_FRACTION = "Miss fraction part in number."
NO_EXPONENT = "Miss exponent in number."

_CLOSED = object()
"""What is read in place of a child when a list or an object ends."""


class SyntaxProblem(ValueError):
    """What is wrong, and where.

    Args:
        message: in rapidjson's words.
        offset: in bytes.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"{message} at offset: {offset}")


def parse(text: bytes) -> Any:
    """The first JSON value of a text.

    Args:
        text: UTF-8, perhaps with a byte order mark; bytes that are none become lone surrogates.

    Returns:
        dicts, lists, str, int, float, bool, None.

    Raises:
        SyntaxProblem: if there is none.
    """
    start = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    return _Reader(text, start).value()


class _Reader:
    """Walks over one text; `at` is the next byte."""

    def __init__(self, text: bytes, at: int) -> None:
        self.text = text
        self.at = at

    def value(self) -> Any:
        mark = self._next()
        if not mark or mark in b",:]}":
            raise SyntaxProblem(EMPTY, self.at)
        root = self._begin(mark)
        open_ones = [root] if isinstance(root, list | dict) else []
        while open_ones:
            inner = open_ones[-1]
            child = self._member(inner) if isinstance(inner, dict) else self._element(inner)
            if child is _CLOSED:
                open_ones.pop()
            elif isinstance(child, list | dict):
                open_ones.append(child)
        return root

    def _begin(self, mark: bytes) -> Any:
        """Read a scalar, or open a list or an object: it is empty then."""
        if mark in (b"[", b"{"):
            self.at += 1
            return [] if mark == b"[" else {}
        if mark == b'"':
            return self._string()
        return self._word(*_WORDS[mark]) if mark in _WORDS else self._number()

    def _element(self, inner: list[Any]) -> Any:
        """Read the next element of a list, or its end."""
        mark = self._next()
        if mark == b"]":
            self.at += 1
            return _CLOSED
        if inner:
            mark = self._comma(mark, NO_COMMA_IN_ARRAY)
        if not mark or mark in b",:]}":
            raise SyntaxProblem(INVALID, self.at)
        value = self._begin(mark)
        inner.append(value)
        return value

    def _member(self, inner: dict[str, Any]) -> Any:
        """Read the next member of an object, or its end."""
        mark = self._next()
        if mark == b"}":
            self.at += 1
            return _CLOSED
        if inner:
            mark = self._comma(mark, NO_COMMA_IN_OBJECT)
        if mark != b'"':
            raise SyntaxProblem(NO_NAME, self.at)
        name = self._string()
        if self._next() != b":":
            raise SyntaxProblem(NO_COLON, self.at)
        self.at += 1
        mark = self._next()
        if not mark or mark in b",:]}":
            raise SyntaxProblem(INVALID, self.at)
        value = self._begin(mark)
        inner.setdefault(name, value)
        return value

    def _comma(self, mark: bytes, problem: str) -> bytes:
        if mark != b",":
            raise SyntaxProblem(problem, self.at)
        self.at += 1
        return self._next()

    def _next(self) -> bytes:
        """The next byte that is no white space; b"" at the end and at a zero byte, which ends a text too."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        mark = self.text[self.at : self.at + 1]
        return b"" if mark == b"\0" else mark

    def _word(self, word: bytes, value: bool | None) -> bool | None:
        for expected in word:
            if self.text[self.at : self.at + 1] != bytes((expected,)):
                raise SyntaxProblem(INVALID, self.at)
            self.at += 1
        return value

    def _string(self) -> str:
        self.at += 1
        parts: list[str] = []
        while True:
            match = _PLAIN.match(self.text, self.at)
            end = match.end() if match else self.at
            parts.append(self.text[self.at : end].decode("utf-8", "surrogateescape"))
            self.at = end
            mark = self.text[end : end + 1]
            if mark == b'"':
                self.at += 1
                return "".join(parts)
            if mark == b"\\":
                parts.append(self._escape())
            else:
                raise SyntaxProblem(NO_QUOTE if mark in (b"", b"\0") else BAD_ESCAPE, self.at)

    def _escape(self) -> str:
        start = self.at
        kind = self.text[start + 1 : start + 2]
        self.at += 2
        if kind in _ESCAPES:
            return _ESCAPES[kind]
        if kind != b"u":
            raise SyntaxProblem(BAD_ESCAPE, start)
        high = self._hex(start)
        if not 0xD800 <= high <= 0xDBFF:
            return chr(high)
        if self.text[self.at : self.at + 2] != b"\\u":
            raise SyntaxProblem(BAD_SURROGATE, start)
        self.at += 2
        low = self._hex(start)
        if not 0xDC00 <= low <= 0xDFFF:
            raise SyntaxProblem(BAD_SURROGATE, start)
        return chr(((high - 0xD800) << 10 | (low - 0xDC00)) + 0x10000)

    def _hex(self, start: int) -> int:
        match = _HEX.match(self.text, self.at)
        if match is None:
            raise SyntaxProblem(BAD_HEX, start)
        self.at = match.end()
        return int(match[0], 16)

    def _number(self) -> int | float:
        start = self.at
        if self.text[self.at : self.at + 1] == b"-":
            self.at += 1
        sign = -1 if self.at > start else 1
        special = self._special()
        if special is not None:
            return sign * special
        if (match := _INTEGER.match(self.text, self.at)) is None:
            raise SyntaxProblem(INVALID, self.at)
        self.at = match.end()
        is_integer = True
        if self.text[self.at : self.at + 1] == b".":
            is_integer = False
            self.at += 1
            self._digits(NO_FRACTION)
        if self.text[self.at : self.at + 1] in (b"e", b"E"):
            is_integer = False
            self.at += 2 if self.text[self.at + 1 : self.at + 2] in (b"+", b"-") else 1
            self._digits(NO_EXPONENT)
        text = self.text[start : self.at]
        number = float(text)
        if math.isinf(number):
            raise SyntaxProblem(TOO_BIG, start)
        if is_integer and -(2**63) <= number <= 2**64:
            exact = int(text)
            if -(2**63) <= exact < 2**64:
                return exact
        return number

    def _special(self) -> float | None:
        """NaN and Inf."""
        for word, value in ((b"NaN", math.nan), (b"Infinity", math.inf), (b"Inf", math.inf)):
            if self.text.startswith(word, self.at):
                self.at += len(word)
                if word == b"Inf" and self.text[self.at : self.at + 1] == b"i":
                    raise SyntaxProblem(INVALID, self.at)
                return value
        return None

    def _digits(self, problem: str) -> None:
        match = _DIGITS.match(self.text, self.at)
        if match is None:
            raise SyntaxProblem(problem, self.at)
        self.at = match.end()
