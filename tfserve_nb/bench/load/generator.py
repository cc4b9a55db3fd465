"""The load generator: `python -m tfserve_nb.bench.load.generator`, a process of its own without TensorFlow.

In the kernel it would also measure the kernel's interpreter lock. It reads a job as one line of JSON from standard
input, and writes lines of JSON: every quarter of a second what became of the requests since the last line, and at the
end `{"end": true}`. After a kill everything but the last quarter of a second is known.

Thread: the main thread of that process.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import selectors
import sys
import time
from typing import Any

from .client_log import Client, Log, write_line
from .schedule import Load, due_times

REPORT_EVERY_S = 0.25
START_S = 0.1
AFTER_PAUSE_S = 0.005


async def run(load: Load, client: Client, log: Log) -> None:
    """Carry the load out."""
    await client.open(load.concurrency or min(load.connections, 16))
    start_s = time.perf_counter() + START_S
    log.start_s = start_s + load.warmup_s
    reporter = asyncio.create_task(_report(load, client, log))
    try:
        if load.rate is None:
            await _closed_loop(load, client, log, start_s)
        else:
            await _open_loop(load, client, start_s)
        await _all_done(load, client)
    finally:
        reporter.cancel()
        client.close()
    log.write()


async def _all_done(load: Load, client: Client) -> None:
    """Wait for what is open, as long as it may take; then nothing is."""
    until_s = time.perf_counter() + load.timeout_s
    while client.num_open and time.perf_counter() < until_s:  # noqa: ASYNC110 - an event would cost each request
        await asyncio.sleep(0.005)
    client.expire(float("inf"))


async def _open_loop(load: Load, client: Client, start_s: float) -> None:
    """Send every request when it is due, whatever became of the earlier ones."""
    pauses = frozenset(load.pauses)
    for number, offset_s in enumerate(due_times(load).tolist()):
        if number in pauses:
            await _all_done(load, client)
            start_s = max(start_s, time.perf_counter() + AFTER_PAUSE_S - offset_s)
        due_s = start_s + offset_s
        wait_s = due_s - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        elif number % 16 == 0:
            await asyncio.sleep(0)  # behind: responses must be read all the same
        client.send(due_s, time.perf_counter())


async def _closed_loop(load: Load, client: Client, log: Log, start_s: float) -> None:
    """Every client sends its next request after the response."""
    until_s = start_s + load.warmup_s + load.seconds

    def send() -> None:
        now_s = time.perf_counter()
        if now_s < until_s:
            client.send(now_s, now_s)

    await asyncio.sleep(max(0.0, start_s - time.perf_counter()))
    log.on_done = send
    for _ in range(load.concurrency or 1):
        send()
    await asyncio.sleep(max(0.0, until_s - time.perf_counter()))
    log.on_done = lambda: None


async def _report(load: Load, client: Client, log: Log) -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        client.expire(time.perf_counter() - load.timeout_s)
        log.write()


def new_loop(load: Load) -> asyncio.AbstractEventLoop:
    """For an open loop one whose timers know microseconds (epoll and uvloop wait milliseconds); else the fastest."""
    if not load.is_open:
        try:
            import uvloop
        except ImportError:
            pass
        else:
            return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def make_client(job: dict[str, Any], load: Load, log: Log) -> Client:
    """The client of the job's protocol."""
    bodies = [base64.b64decode(body) for body in job["bodies"]]
    if job["protocol"] == "grpc":
        from .grpc_client import GrpcClient

        return GrpcClient(job["url"], bodies, job["headers"], load, log)
    from .http_client import HttpClient

    return HttpClient(job["url"], bodies, job["headers"], load, log, job["paths"])


def main() -> int:
    """Do the job on standard input."""
    job = json.loads(sys.stdin.readline())
    load, log = Load(**job["load"]), Log()
    gc.disable()  # one run, and then the process ends
    with asyncio.Runner(loop_factory=lambda: new_loop(load)) as runner:
        runner.run(_main(job, load, log))
    write_line({"end": True})
    return 0


async def _main(job: dict[str, Any], load: Load, log: Log) -> None:
    await run(load, make_client(job, load, log), log)


if __name__ == "__main__":
    sys.exit(main())
