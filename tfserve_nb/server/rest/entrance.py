"""Who is let in: requests are refused when their heads have arrived, and their bodies are not kept.

Thread: the server's loop.

Reference: RFC 9110, section 10.1.1 (a client that waits for `100 Continue` gets the final status instead).
"""

from __future__ import annotations

from ..calls import Calls, RequestContext
from ..http.connection import Connection
from ..http.message import Message, Sink
from ..http.server import FastPath
from ..paths import is_inference
from ..security import Gate, Refusal
from ..settings import ServerSettings
from .fast_path import field_lines, first_line
from .json_text import error_body

DROPPED_BYTES = 64 * 1024
"""Bodies up to this size are read and dropped, so that the connection goes on; above it is closed."""


def guarded(fast_path: FastPath, calls: Calls, settings: ServerSettings) -> FastPath:
    """Lets requests in or refuses them, and passes on to the fast path those that are let in.

    Args:
        fast_path: takes requests that are let in.
        calls: counts refused requests for a model.
        settings: the server's token and checks.
    """
    gate = Gate(settings)

    def front_door(connection: Connection, message: Message) -> Sink | None:
        refused = gate.refusal(message)
        if refused is not None:
            return RefusedSink(connection, message, refused, calls, settings)
        return fast_path(connection, message)

    return front_door


class RefusedSink:
    """Answers a refused request: at once, or when its small body has gone by.

    Args:
        connection: the client's.
        message: the request.
        refused: why.
        calls: counts it, if it was for a model.
        settings: which headers responses carry.
    """

    def __init__(
        self, connection: Connection, message: Message, refused: Refusal, calls: Calls, settings: ServerSettings
    ) -> None:
        self._connection = connection
        self._message = message
        self._refused = refused
        self._calls = calls
        self._settings = settings
        head = message.head
        is_small = (head.content_length or 0) <= DROPPED_BYTES and b"transfer-encoding" not in head.fields
        self._is_answered = False
        if not is_small or head.expects_continue:
            self._answer()

    def receive(self, chunk: bytes) -> None:
        """A part of the body came: it is dropped."""

    def end(self) -> None:
        """The body has gone by."""
        if not self._is_answered:
            self._answer()

    def abandon(self) -> None:
        """The client left."""

    def _answer(self) -> None:
        self._is_answered = True
        head, refused, settings = self._message.head, self._refused, self._settings
        challenge = (("WWW-Authenticate", "Bearer"),) if refused.status == 401 else ()
        lines = field_lines(challenge, settings.has_cors, settings.token is not None)
        self._connection.respond(self._message, first_line(refused.status), lines, error_body(refused.message))
        if is_inference(head.target):
            notes = RequestContext(self._message.received_s)
            notes.code = "UNAUTHENTICATED" if refused.status == 401 else "PERMISSION_DENIED"
            self._calls.record(notes)
