"""One request on a connection: its head, the rules that decide where its body ends, and the sink that gets the body.

A server and a proxy before it must agree where a body ends, or a request can be smuggled past the proxy: whatever is
ambiguous is refused. llhttp refuses most of it; what it lets pass is refused here.

Thread: the server's loop; heads are immutable.

Reference: RFC 9112, sections 3.2 (Host), 6 (message body) and 11.2 (request smuggling).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, Protocol

from tornado.httputil import HTTPHeaders, RequestStartLine

from ..budget import FREE_BYTES, ByteBudget

_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+;=:\[\]]|%[0-9A-Fa-f]{2})*")
_ONCE = (b"host", b"content-length", b"transfer-encoding")


class Refused(Exception):
    """A request that is answered with an error, after which the connection is closed.

    Attributes:
        status: HTTP status.
        is_explained: whether the client gets the reason: it sent a good request that met a limit.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.is_explained = status in (413, 503)


def has_token(value: str | None, token: str) -> bool:
    """Whether a list of words has this one."""
    return token in [word.strip().lower() for word in (value or "").split(",")]


class Fields(Protocol):
    """Header fields by name, without regard to case: Tornado's `HTTPHeaders`, or a `RequestHead`."""

    def get(self, name: str, /) -> str | None:
        """The value of a field, or None."""


@lru_cache(maxsize=64)
def _key(name: str) -> bytes:
    return name.lower().encode("latin-1")


class RequestHead(NamedTuple):
    """Request line and header fields. A tuple, because a frozen dataclass costs a microsecond more to make.

    Attributes:
        method: such as `POST`.
        target: as received, latin-1.
        is_http11: HTTP/1.1 and not 1.0.
        lines: (lower-case name, value) in order of arrival.
        fields: the same by name; of several equal names the last.
        keeps_alive: whether the client wants the connection to stay open.
    """

    method: str
    target: str
    is_http11: bool
    lines: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    keeps_alive: bool

    def get(self, name: str, /) -> str | None:
        """One header field, or None; several of one name are joined by commas."""
        key = _key(name)
        value = self.fields.get(key)
        if value is None:
            return None
        if len(self.fields) < len(self.lines):
            value = b",".join([value for name, value in self.lines if name == key])
        return value.decode("latin-1")

    @property
    def content_length(self) -> int | None:
        """The announced size of the body in bytes."""
        length = self.fields.get(b"content-length")
        return None if length is None else int(length)

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return self.is_http11 and self.fields.get(b"expect", b"").lower() == b"100-continue"

    def check(self) -> None:
        """Refuse what is ambiguous.

        Raises:
            Refused: with the status to answer.
        """
        fields = self.fields
        if len(fields) < len(self.lines):
            names = [name for name, _ in self.lines]
            for name in _ONCE:
                if names.count(name) > 1:
                    raise Refused(400, f"more than one {name.decode()}")
        host = fields.get(b"host")
        if (host is None and self.is_http11) or (host is not None and not _HOST.fullmatch(host)):
            raise Refused(400, "Host is missing or malformed")
        encoding = fields.get(b"transfer-encoding")
        length = fields.get(b"content-length")
        if encoding is not None:
            if not self.is_http11 or length is not None:
                raise Refused(400, "Transfer-Encoding beside Content-Length, or in HTTP/1.0")
            if encoding.lower() != b"chunked":
                raise Refused(501, f"Transfer-Encoding: {encoding[:40]!r}")
        elif length is not None and (not length.isdigit() or len(length) > 19):
            # int() would take signs, underscores and foreign digits.
            raise Refused(400, f"Content-Length: {length[:40]!r}")

    def for_tornado(self) -> tuple[RequestStartLine, HTTPHeaders]:
        """The head in Tornado's words.

        Raises:
            tornado.httputil.HTTPInputError: for fields that Tornado does not take.
        """
        headers = HTTPHeaders()
        for name, value in self.lines:
            headers.add(name.decode("latin-1"), value.decode("latin-1"))
        return RequestStartLine(self.method, self.target, "HTTP/1.1" if self.is_http11 else "HTTP/1.0"), headers


class Sink(Protocol):
    """Takes the body of a request and answers it."""

    def receive(self, chunk: bytes) -> None:
        """A part of the body came."""

    def end(self) -> None:
        """The body is complete."""

    def abandon(self) -> None:
        """The client left before it was answered."""


class Message:
    """A request.

    Args:
        head: see below.
        received_s: see below.
        max_bytes: see below.
        budget: counts its body, if that is large, until it is answered or given up.

    Attributes:
        head: request line and fields.
        received_s: `perf_counter` when the head had arrived.
        max_bytes: most bytes that its body may have; the sink may change it before `check_size`.
        num_bytes: bytes of the body so far.
        is_complete: the body has arrived.
        is_answered: a part of the response was written.
        keeps_alive: the connection stays open after the response.
        keeps_place: its connection stays open while others need the place, although the body has not arrived.
    """

    __slots__ = (
        "_budget",
        "_chunks",
        "_is_limited",
        "_num_held",
        "_sink",
        "head",
        "is_answered",
        "is_complete",
        "keeps_alive",
        "keeps_place",
        "max_bytes",
        "num_bytes",
        "received_s",
    )

    def __init__(self, head: RequestHead, received_s: float, max_bytes: int, budget: ByteBudget) -> None:
        self._budget: ByteBudget | None = budget
        self._num_held = 0
        self.head = head
        self.received_s = received_s
        self.max_bytes = max_bytes
        self.keeps_alive = head.keeps_alive
        self.keeps_place = True
        self.num_bytes = 0
        self.is_complete = False
        self.is_answered = False
        self._is_limited = False
        self._sink: Sink | None = None
        self._chunks: list[bytes] = []

    def check_size(self) -> None:
        """Refuse a body that is or becomes too large, from now on.

        A sink calls this as soon as the limit is known. Until then bodies are bounded by what is read at once.

        Raises:
            Refused: 413.
        """
        self._is_limited = True
        if max(self.head.content_length or 0, self.num_bytes) > self.max_bytes:
            raise Refused(413, f"the body is larger than {self.max_bytes} bytes")

    def start(self, sink: Sink) -> None:
        """Hand over what came so far."""
        self._sink = sink
        chunks, self._chunks = self._chunks, []
        for chunk in chunks:
            sink.receive(chunk)
        if self.is_complete:
            sink.end()

    def receive(self, chunk: bytes) -> None:
        """A part of the body came.

        Raises:
            Refused: 413 when it has become too large, 503 when all requests together have.
        """
        self.num_bytes += len(chunk)
        if self._is_limited and self.num_bytes > self.max_bytes:
            raise Refused(413, f"the body is larger than {self.max_bytes} bytes")
        if self._budget is None:
            return  # it is answered or given up already
        if self.num_bytes > FREE_BYTES:
            if not self._budget.take(self.num_bytes - self._num_held):
                raise Refused(503, self._budget.refusal)
            self._num_held = self.num_bytes
        if self._sink is None:
            self._chunks.append(chunk)
        else:
            self._sink.receive(chunk)

    def end(self) -> None:
        """The body is complete."""
        self.is_complete = True
        if self._sink is not None:
            self._sink.end()

    def abandon(self) -> None:
        """The client left."""
        self._give_back()
        # What it holds goes now: its connection is part of a cycle that waits for the collector.
        sink, self._sink, self._chunks = self._sink, None, []
        if sink is not None:
            sink.abandon()

    def answered(self) -> None:
        """The response is written: drop the sink, so that no cycle is left for the collector."""
        self._sink, self._chunks = None, []
        self._give_back()

    def _give_back(self) -> None:
        """What still comes of the body is dropped, and does not count."""
        if self._num_held and self._budget is not None:
            self._budget.give_back(self._num_held)
        self._budget = None
