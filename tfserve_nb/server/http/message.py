"""One request on a connection, from its head to the end of its body, and the sink that gets it.

Thread: the server's loop.
"""

from __future__ import annotations

from typing import Protocol

from .head import Refused, RequestHead


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

    Attributes:
        head: request line and fields.
        received_s: `perf_counter` when the head had arrived.
        max_bytes: most bytes that its body may have; the sink may change it before `check_size`.
        num_bytes: bytes of the body so far.
        is_complete: the body has arrived.
        is_answered: a part of the response was written.
        keeps_alive: the connection stays open after the response.
    """

    __slots__ = (
        "_chunks",
        "_is_limited",
        "_sink",
        "head",
        "is_answered",
        "is_complete",
        "keeps_alive",
        "max_bytes",
        "num_bytes",
        "received_s",
    )

    def __init__(self, head: RequestHead, received_s: float, max_bytes: int) -> None:
        self.head = head
        self.received_s = received_s
        self.max_bytes = max_bytes
        self.keeps_alive = head.keeps_alive
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
            Refused: 413 when it has become too large.
        """
        self.num_bytes += len(chunk)
        if self._is_limited and self.num_bytes > self.max_bytes:
            raise Refused(413, f"the body is larger than {self.max_bytes} bytes")
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
        if self._sink is not None:
            self._sink.abandon()

    def answered(self) -> None:
        """The response is written: drop the sink, so that no cycle is left for the collector."""
        self._sink = None
