"""Bytes to requests, with the limits of one server.

llhttp parses, strictly. `Message`s come out as soon as their heads are complete, and get their bodies as these arrive.

Thread: the server's loop.

Reference: RFC 9112; llhttp's callbacks through httptools.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ..budget import ByteBudget
from ..settings import ServerSettings
from .message import Message, Refused, RequestHead, has_token

CHUNK_LINE_BYTES = 64
"""What the line before a chunk may cost beside its data, on average; Tornado allows as much for each."""

LINE_BYTES = 4
"""Of a header field beside its name and value."""


class RequestReader:
    """Parses what one client sends.

    Args:
        limits: what it may send.
        budget: counts large bodies.
        on_message: gets each request when its head is complete.

    Attributes:
        incoming: the request whose body is arriving, or None.
        num_unfinished: bytes that came since the last request was complete, about.
    """

    __slots__ = (
        "_budget",
        "_fields",
        "_head_bytes",
        "_last_head",
        "_last_parts",
        "_limits",
        "_num_chunks",
        "_on_message",
        "_parser",
        "_pieces",
        "_read_s",
        "_target",
        "incoming",
        "num_unfinished",
    )

    def __init__(self, limits: ServerSettings, budget: ByteBudget, on_message: Callable[[Message], None]) -> None:
        self._limits = limits
        self._budget = budget
        self._on_message = on_message
        self._read_s = 0.0
        self.incoming: Message | None = None
        self.num_unfinished = 0
        self._last_parts: tuple[object, ...] = ()
        self._last_head: RequestHead
        self.on_message_begin()
        self._parser = HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Parse what came.

        Raises:
            Refused: what is wrong; nothing more can be read from this client.
            Exception: what the callback for messages raised; the same holds.
        """
        self._read_s = time.perf_counter()
        self.num_unfinished += len(data)
        try:
            self._feed(data)
        except HttpParserError as error:
            raise error.__context__ or Refused(400, str(error)) from None
        self._pass_on()
        self._check_overhead()

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            else:
                return

    def _without_upgrade(self) -> bytes:
        """The head of a request that asks for another protocol, without that wish.

        llhttp takes what follows such a head for the other protocol; a new parser reads on from this one.
        """
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        if method == b"CONNECT":
            raise Refused(405, "CONNECT")
        lines = [b"%s %s HTTP/%s" % (method, self._target, version)]
        for name, value in self._fields:
            if name == b"connection":
                tokens = [token for token in value.split(b",") if token.strip().lower() != b"upgrade"]
                lines.append(b"connection: " + b",".join(tokens))
            elif name != b"upgrade":
                lines.append(b"%s: %s" % (name, value))
        self._parser = HttpRequestParser(self)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _check_overhead(self) -> None:
        """Bound what a head may have, and what chunked framing may cost."""
        incoming, most = self.incoming, self._limits.max_header_bytes
        if incoming is None:
            if self.num_unfinished > most:
                raise Refused(431, "the head is too large")
        elif self.num_unfinished - incoming.num_bytes > 2 * most + CHUNK_LINE_BYTES * self._num_chunks:
            raise Refused(400, "too much beside the body's data")

    # --- called by the parser -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._num_chunks = 0
        self._pieces: list[bytes] = []

    def on_url(self, part: bytes) -> None:
        """The request target, maybe in parts."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or one of a trailer, which is dropped."""
        if self.incoming is None:
            self._head_bytes += len(name) + len(value) + LINE_BYTES
            self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is complete: hand the request over."""
        parser = self._parser
        if parser.should_upgrade():
            return  # see `_without_upgrade`
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Refused(505, f"HTTP/{version}")
        if self._head_bytes + len(self._target) > self._limits.max_header_bytes:
            raise Refused(431, "the head is too large")
        head = self._head(parser.get_method(), version)
        message = self.incoming = Message(head, self._read_s, self._limits.max_body_bytes, self._budget)
        self._on_message(message)

    def _head(self, method: bytes, version: str) -> RequestHead:
        """The head that was parsed. Clients repeat themselves: the last one does again when nothing differs."""
        parts = (method, self._target, version, self._fields)
        if parts != self._last_parts:
            head = RequestHead(
                method.decode(),
                self._target.decode("latin-1"),
                version == "1.1",
                self._fields,
                dict(self._fields),
                self._parser.should_keep_alive(),
            )
            if not head.is_http11 and head.keeps_alive and has_token(head.get("connection"), "close"):
                head = head._replace(keeps_alive=False)  # llhttp knows keep-alive only
            head.check()
            self._last_parts, self._last_head = parts, head
        return self._last_head

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._num_chunks += 1

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._pieces.append(data)

    def _pass_on(self) -> None:
        """Hand over the parts that came at once in one piece: tiny chunks would cost many times their size."""
        pieces = self._pieces
        if pieces and self.incoming is not None:
            self._pieces = []
            self.incoming.receive(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def on_message_complete(self) -> None:
        """The body is complete."""
        self._pass_on()
        message, self.incoming = self.incoming, None
        if message is not None:
            self.num_unfinished = 0
            message.end()
