"""A small server whose pace a test decides."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

METADATA = (
    b'{"model_spec": {"name": "net", "signature_name": "", "version": "3"}, "metadata": {"signature_def": {'
    b'"signature_def": {"serving_default": {"inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": ['
    b'{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": false}, "name": "x:0"}}, "outputs": '
    b'{"y": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": false}, '
    b'"name": "y:0"}}, "method_name": "tensorflow/serving/predict"}}}}}'
)


class PacedServer:
    """Answers after `pause_s(number)` seconds with `status(number)`; one after the other if `is_single`."""

    def __init__(self) -> None:
        self.pause_s: Callable[[int], float] = lambda _: 0.0
        self.status: Callable[[int], int] = lambda _: 200
        self.is_single = False
        self.needs_token = ""
        self.num_requests = 0
        self.heads: list[bytes] = []
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="paced-server", daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/models/net"

    async def _main(self) -> None:
        self._loop, self._stop, self._turn = asyncio.get_running_loop(), asyncio.Event(), asyncio.Lock()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                await self._answer(head, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        self.heads.append(head)
        if self.needs_token and f"Bearer {self.needs_token}".encode() not in head:
            status, body = 401, b'{"error": "A token is needed"}'
        elif head.startswith(b"GET"):
            status, body = 200, METADATA
        else:
            number, self.num_requests = self.num_requests, self.num_requests + 1
            status, body = self.status(number), b'{"predictions": [1.0]}'
            if status != 200:
                body = b'{"error": "too much"}'
            if self.is_single:
                async with self._turn:
                    await asyncio.sleep(self.pause_s(number))
            else:
                await asyncio.sleep(self.pause_s(number))
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()


@pytest.fixture
def server() -> Iterator[PacedServer]:
    """A running `PacedServer`."""
    one = PacedServer()
    one.start()
    yield one
    one.stop()
