"""A stream of messages between the core and one worker: everything of one turn of the loop in one frame.

The socket was made in pairs and inherited; no other process can write to it.

Thread: one loop on each side.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from .frames import PREFIX, from_frame, to_frame
from .messages import Message


class Link(asyncio.Protocol):
    """One end.

    Args:
        on_messages: gets the messages of each frame.
        on_lost: called once when the other end is gone.
    """

    def __init__(self, on_messages: Callable[[list[Message]], None], on_lost: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._outbox: list[Message] = []
        self._is_flushing = False
        self._parts: list[bytes] = []
        self._num_bytes = 0
        self._num_wanted = PREFIX.size
        self.is_congested = False

    async def open(self, one_end: socket.socket) -> None:
        """Use a connected socket, which belongs to this link from now on."""
        one_end.setblocking(False)
        await self._loop.create_unix_connection(lambda: self, sock=one_end)

    def send(self, message: Message) -> None:
        """Send with everything else of this turn of the loop; does nothing once the other end is gone."""
        self._outbox.append(message)
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what waits now."""
        self._is_flushing = False
        outbox, self._outbox = self._outbox, []
        if outbox and self._transport is not None and not self._transport.is_closing():
            self._transport.write(to_frame(outbox))

    def close(self) -> None:
        """Close this end once everything is sent."""
        if self._transport is not None:
            self.flush()
            self._transport.close()

    # --- called by the loop -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ready."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=1024 * 1024)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end is gone."""
        del exc
        self._transport = None
        self._on_lost()

    def pause_writing(self) -> None:
        """The other end reads more slowly than we write."""
        self.is_congested = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self.is_congested = False
        self._on_messages([])

    def data_received(self, data: bytes) -> None:
        """Bytes came: any part of a frame, or several."""
        self._parts.append(data)
        self._num_bytes += len(data)
        while self._num_bytes >= self._num_wanted:
            whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            if self._num_wanted == PREFIX.size:
                self._num_wanted += PREFIX.unpack_from(whole)[0]
                self._parts = [whole]
                continue
            frame, rest = memoryview(whole)[: self._num_wanted], whole[self._num_wanted :]
            self._parts, self._num_bytes, self._num_wanted = [rest], len(rest), PREFIX.size
            self._on_messages(from_frame(frame))
