"""Open-loop load: requests leave at random times of a fixed rate, whether or not earlier ones were answered.

Usage: python benchmarks/open_loop.py HOST PORT RATE SECONDS SEED CONNECTIONS < REQUEST

A closed loop waits for a slow server and so hides how long users would have waited. Here arrivals are a Poisson stream,
and a latency is measured from the time at which its request was due, so it includes the wait for a free connection.
REQUEST is the raw text of one HTTP request. This is a process of its own without TensorFlow, on a loop whose timers are
more exact than a millisecond. It measures how late it was itself; a run in which it was too late is not valid.
"""

from __future__ import annotations

import asyncio
import collections
import json
import random
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from server_process import Target

MAX_LAG_MS = 2.0
"""How late the generator may be itself for 1 % of the requests."""
CONNECTIONS = 128


@dataclass(frozen=True)
class OpenLoad:
    """The results of an open loop.

    Attributes:
        sent: requests.
        failed: answers other than 200, and connections that were closed.
        rate: answers per second.
        p50_ms: median latency from the scheduled moment.
        p99_ms: latency that 1 % exceeded.
        lag_p99_ms: how late the generator was itself.
    """

    sent: int
    failed: int
    rate: float
    p50_ms: float
    p99_ms: float
    lag_p99_ms: float

    @property
    def is_valid(self) -> bool:
        """Whether the generator kept up, and all was answered with success."""
        return self.lag_p99_ms <= MAX_LAG_MS and not self.failed


def run(target: Target, rate: float, seconds: float, seed: int) -> OpenLoad:
    """Load a server from another process."""
    parts = urlsplit(target.url)
    fields = {"Host": f"{parts.hostname}:{parts.port}", **target.headers, "Content-Length": len(target.request.body)}
    head = (
        f"POST {parts.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    )
    numbers = (str(parts.port), str(rate), str(seconds), str(seed), str(CONNECTIONS))
    done = subprocess.run(
        [sys.executable, __file__, str(parts.hostname), *numbers], input=head.encode() + target.request.body,
        capture_output=True, check=True, timeout=seconds + 90,
    )  # fmt: skip
    return OpenLoad(**json.loads(done.stdout))


class Generator:
    """Sends requests when they are due and notes when their answers came."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.free: list[Client] = []
        self.waiting: collections.deque[float] = collections.deque()
        self.latencies_s: list[float] = []
        self.lags_s: list[float] = []
        self.num_failed = 0

    async def send_all(self, rate: float, seconds: float, seed: int) -> None:
        """Send for some seconds, then wait for the last answers."""
        random_numbers = random.Random(seed)  # noqa: S311 - arrival times are no secret
        due_s = start_s = time.perf_counter() + 0.05
        while True:
            due_s += random_numbers.expovariate(rate)
            if due_s - start_s > seconds:
                break
            wait_s = due_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            elif len(self.lags_s) % 16 == 0:
                await asyncio.sleep(0)  # behind: answers are to be read all the same
            self.lags_s.append(time.perf_counter() - due_s)
            self.send(due_s)
        until_s = time.perf_counter() + 30
        while self.num_answers < len(self.lags_s) and time.perf_counter() < until_s:
            await asyncio.sleep(0.01)

    @property
    def num_answers(self) -> int:
        """Successful and failed ones."""
        return len(self.latencies_s) + self.num_failed

    def send(self, due_s: float) -> None:
        """Over a free connection, or over the next that becomes free."""
        if self.free:
            self.free.pop().send(due_s)
        else:
            self.waiting.append(due_s)

    def answered(self, client: Client, due_s: float, *, is_good: bool) -> None:
        """An answer is complete."""
        if is_good:
            self.latencies_s.append(time.perf_counter() - due_s)
        else:
            self.num_failed += 1
        if self.waiting:
            client.send(self.waiting.popleft())
        else:
            self.free.append(client)


class Client(asyncio.Protocol):
    """One connection; it supports only HTTP responses with a content length."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._due_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Free to send."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what TCP gives
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport
        self._generator.free.append(self)

    def send(self, due_s: float) -> None:
        """Send the request that was due then."""
        self._due_s = due_s
        if self._transport is not None:
            self._transport.write(self._generator.request)

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        _, _, rest = head.partition(b"content-length:")
        if not rest:
            if self._buffer.endswith(b"0\r\n\r\n"):  # chunked, and complete
                self._done(is_good=head.startswith(b"http/1.1 200"))
            return
        if len(self._buffer) >= end + 4 + int(rest.partition(b"\r\n")[0]):
            self._done(is_good=head.startswith(b"http/1.1 200"))

    def _done(self, *, is_good: bool) -> None:
        self._buffer = b""
        self._generator.answered(self, self._due_s, is_good=is_good)

    def connection_lost(self, error: Exception | None) -> None:
        """A connection must not be closed during a run."""
        del error
        if self in self._generator.free:
            self._generator.free.remove(self)
        else:
            self._generator.num_failed += 1


async def generate(host: str, port: int, rate: float, seconds: float, seed: int, connections: int) -> OpenLoad:
    """Connect, send, and sum up."""
    generator = Generator(sys.stdin.buffer.read())
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Client(generator), host, port)
    await generator.send_all(rate, seconds, seed)
    unanswered = len(generator.lags_s) - generator.num_answers
    took, lags = sorted(generator.latencies_s), sorted(generator.lags_s)
    return OpenLoad(
        sent=len(lags),
        failed=generator.num_failed + unanswered,
        rate=len(took) / seconds,
        p50_ms=1e3 * percentile(took, 0.5),
        p99_ms=1e3 * percentile(took, 0.99),
        lag_p99_ms=1e3 * percentile(lags, 0.99),
    )


def percentile(ordered: list[float], share: float) -> float:
    """Of sorted values; NaN for none."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def main() -> int:
    """Run the client process."""
    host, port, rate, seconds, seed, connections = sys.argv[1:]
    # uvloop and epoll wait whole milliseconds; select waits microseconds.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        load = runner.run(generate(host, int(port), float(rate), float(seconds), int(seed), int(connections)))
    print(json.dumps(vars(load)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
