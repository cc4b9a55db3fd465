"""Disturb servers while clients ask them, and count what became of every request.

Usage: python tools/chaos.py [--seconds S] [--homes kernel workers isolated serve] [--events switches slow ...]

Homes are where a model can be served: in this process, behind HTTP workers, in a child process, by `tfserve-nb serve`.
In each of them clients send requests over connections of their own, from another process, while something happens:

- switches: the two versions take the traffic in turn.
- slow: connections send a byte now and then, of a head or of a body.
- idle: more connections than the server may have open files.
- disk: no file can grow, as on a full disk, while requests are captured, labels set and versions switched.
- kill, stop: the child process or a worker gets SIGKILL or SIGSTOP.

A request is *answered* (rightly), *refused* (an error in words, or no connection), *wrong*, or *lost*: its connection
ended or was silent for 30 s. Nothing may ever be wrong; nothing may be lost but what a killed or stopped process held.
Linux only. The exit code is 1 if something was wrong, lost without need, or did not come back.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

NUM_CLIENTS = 6
SILENCE_S = 30.0
BACK_S = 120.0
NUM_IDLE = 2000
NUM_FILES = 1024
FILE_BYTES = 2048
HOMES = ("kernel", "workers", "isolated", "serve")
EVENTS = ("switches", "slow", "idle", "disk", "kill", "stop")
DEADLY = ("kill", "stop")
SERVERS = ("--managed", "tfserve_nb.server.workers")
"""Words in the command lines of processes that others bring back: isolated servers and HTTP workers."""


@dataclass(frozen=True)
class Home:
    """A served model `y = x + version` with versions 1 and 2.

    Attributes:
        handle: the deployment.
        pids: the processes that hold it, this one possibly among them.
        mortal: finds the processes that may be killed: others bring them back.
    """

    handle: Any
    pids: Callable[[], list[int]]
    mortal: Callable[[], list[int]]


# ------------------------------------------------------------------------------------------------------- the clients


def ask(url: str, token: str, stopped: Any, counts: Any) -> None:
    """What the clients' process does: ask until it is stopped, then give the counts."""
    total: Counter[str] = Counter()
    clients = [threading.Thread(target=_client, args=(url, token, stopped, total, seed)) for seed in range(NUM_CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    counts.put(dict(total))


def _client(url: str, token: str, stopped: Any, total: Counter[str], seed: int) -> None:
    number = seed
    while not stopped.is_set():
        number += NUM_CLIENTS
        total[_outcome(url, token, [[float(number)], [float(number + 1)]])] += 1  # the GIL keeps this whole


def _outcome(url: str, token: str, rows: list[list[float]]) -> str:
    """Send one request over a connection of its own."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=SILENCE_S)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Connection": "close"}
    try:
        connection.connect()
    except OSError:
        time.sleep(0.02)
        return "refused"
    try:
        connection.request("POST", f"{where.path}:predict", json.dumps({"instances": rows}), headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return "lost"
    finally:
        connection.close()
    if response.status != 200:
        return "refused" if b'"error"' in body else "wrong"
    found = json.loads(body)["predictions"]
    added = {answer[0] - row[0] for answer, row in zip(found, rows, strict=True)}
    return "answered" if added in ({1.0}, {2.0}) else "wrong"


@contextmanager
def clients_of(home: Home) -> Iterator[Callable[[], dict[str, int]]]:
    """Clients that ask as long as the block runs; yields what ends them and gives their counts."""
    context = multiprocessing.get_context("spawn")
    stopped, counts = context.Event(), context.Queue()
    process = context.Process(
        target=ask, args=(home.handle.rest_url, home.handle.token or "", stopped, counts), daemon=True
    )
    process.start()

    def ended() -> dict[str, int]:
        stopped.set()
        found: dict[str, int] = counts.get(timeout=2 * SILENCE_S)
        process.join(SILENCE_S)
        return found

    try:
        yield ended
    finally:
        stopped.set()
        process.join(1)
        process.kill()


# -------------------------------------------------------------------------------------------------------- the events


def switches(home: Home, seconds: float) -> str:
    """Promote the versions in turn."""
    until_s, num = time.perf_counter() + seconds, 0
    while time.perf_counter() < until_s:
        home.handle.promote(1 + num % 2)
        num += 1
    return f"{num} switches"


def slow(home: Home, seconds: float) -> str:
    """Connections that never come to an end of what they send."""
    where = urlsplit(home.handle.rest_url)
    head = f"POST {where.path}:predict HTTP/1.1\r\nHost: {where.netloc}\r\n"
    head += f"Authorization: Bearer {home.handle.token}\r\n"
    texts = [head.encode(), f"{head}Content-Length: 100000\r\n\r\n".encode()]
    with ExitStack() as at_end:
        open_ones = []
        for place in range(60):
            connection = at_end.enter_context(socket.create_connection((str(where.hostname), where.port or 80), 10))
            connection.sendall(texts[place % 2])
            open_ones.append(connection)
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            for connection in open_ones:
                with suppress(OSError):
                    connection.sendall(b"x")
            time.sleep(0.2)
    return f"{len(open_ones)} slow connections"


def idle(home: Home, seconds: float) -> str:
    """More connections than files that the server may open."""
    where = urlsplit(home.handle.rest_url)
    program = (
        "import resource, socket, sys, time\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))\n"
        "found = []\n"
        f"for _ in range({NUM_IDLE}):\n"
        "    try: found.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5))\n"
        "    except OSError: pass\n"
        "print(len(found), flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(where.hostname), str(where.port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        num = int(holder.stdout.readline()) if holder.stdout else 0
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            home.handle.promote(1)
            home.handle.promote(2)
            time.sleep(0.2)
    finally:
        holder.communicate()
    return f"{num} idle connections, {NUM_FILES} files"


def disk(home: Home, seconds: float) -> str:
    """No file may grow, while what is done wants to write."""
    errors: Counter[str] = Counter()
    steps: list[Callable[[], object]] = [
        home.handle.capture,
        lambda: home.handle.promote(1),
        lambda: home.handle.set_label("steady", 1),
        lambda: home.handle.promote(2),
    ]
    with limited(home, resource.RLIMIT_FSIZE, FILE_BYTES):
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            for step in steps:
                try:
                    step()
                except Exception as error:  # noqa: BLE001 - counted and shown
                    errors[f"{type(error).__name__}: {error}"[:100]] += 1
            time.sleep(0.2)
    home.handle.promote(2)
    return "; ".join(f"{num} × {text}" for text, num in errors.items()) or "everything was done"


def kill(home: Home, seconds: float) -> str:
    """SIGKILL."""
    return _strike(home, signal.SIGKILL, seconds)


def stop(home: Home, seconds: float) -> str:
    """SIGSTOP."""
    return _strike(home, signal.SIGSTOP, seconds)


def _strike(home: Home, number: signal.Signals, seconds: float) -> str:
    time.sleep(seconds / 3)
    before = home.mortal()
    struck = before[:1]
    for pid in struck:
        os.kill(pid, number)
    started_s = time.perf_counter()
    try:
        while set(home.mortal()) & set(struck) or len(home.mortal()) < len(before):
            if time.perf_counter() - started_s > BACK_S:
                raise RuntimeError(f"process {struck} was not replaced within {BACK_S:g} s of {number.name}")
            time.sleep(0.1)
        where = home.handle
        while _outcome(where.rest_url, where.token or "", [[1.0]]) != "answered":
            if time.perf_counter() - started_s > BACK_S:
                raise RuntimeError(f"no answer within {BACK_S:g} s of {number.name}")
            time.sleep(0.1)
    finally:
        for pid in struck:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    took_s = time.perf_counter() - started_s
    time.sleep(seconds / 3)
    return f"back after {took_s:.1f} s"


@contextmanager
def limited(home: Home, kind: int, limit: int) -> Iterator[None]:
    """Lower a soft limit of every process of a home."""
    before = {}
    for pid in home.pids():
        process = psutil.Process(pid)
        before[process] = process.rlimit(kind)
        process.rlimit(kind, (limit, before[process][1]))
    try:
        yield
    finally:
        for process, limits in before.items():
            with suppress(psutil.NoSuchProcess):
                process.rlimit(kind, limits)


ACTS: dict[str, Callable[[Home, float], str]] = {
    "switches": switches, "slow": slow, "idle": idle, "disk": disk, "kill": kill, "stop": stop,
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the homes


def _children(*words: str) -> list[int]:
    """Server processes below this one whose command line holds one of some words."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and any(word in line for word in words):
                found.append(process.pid)
    return found


@contextmanager
def home_of(name: str) -> Iterator[Home]:
    """Serve two versions."""
    import keras

    import tfserve_nb

    models = [keras.Sequential([keras.Input((1,)), keras.layers.Rescaling(1.0, offset=place)]) for place in (1.0, 2.0)]
    if name == "serve":
        with _command_line(models) as home:
            yield home
        return
    homes: dict[str, dict[str, Any]] = {"isolated": {"isolate": True}, "workers": {"workers": 2}}
    options = homes.get(name, {})
    try:
        for model in models:
            handle = tfserve_nb.deploy(model, "chaos", **options)
        own = [] if name == "isolated" else [os.getpid()]
        yield Home(handle, lambda: own + _children(*SERVERS), lambda: _children(*SERVERS))
    finally:
        tfserve_nb.shutdown()


@contextmanager
def _command_line(models: list[Any]) -> Iterator[Home]:
    """`tfserve-nb serve` with a worker, started as people start it."""
    import tfserve_nb

    folder = Path("models", "chaos").absolute()
    for place, model in enumerate(models):
        model.export(str(folder / str(place + 1)), verbose=False)
    config = Path("models.config").absolute()
    config.write_text(
        f'model_config_list {{ config {{ name: "chaos" base_path: "{folder}" model_platform: "tensorflow" '
        "model_version_policy { all {} } } }"
    )
    with socket.create_server(("127.0.0.1", 0)) as rest, socket.create_server(("127.0.0.1", 0)) as grpc:
        port, grpc_port = rest.getsockname()[1], grpc.getsockname()[1]
    log = Path("serve.log").absolute()
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tfserve_nb", "serve", f"--rest_api_port={port}", f"--port={grpc_port}",
             f"--model_config_file={config}", "--workers=1", "--dashboard"],
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        until_s = time.perf_counter() + BACK_S
        while "Entering the event loop" not in log.read_text():
            if process.poll() is not None or time.perf_counter() > until_s:
                raise RuntimeError(f"tfserve-nb serve did not start:\n{log.read_text()}")
            time.sleep(0.1)
        link = Path(log.read_text().partition("Open the link in ")[2].partition(",")[0])
        token = link.read_text().partition("#token=")[2].strip()
        handle = tfserve_nb.connect(f"http://127.0.0.1:{port}", token, name="chaos")
        yield Home(handle, lambda: [process.pid, *_children(*SERVERS)], lambda: _children(*SERVERS))
    finally:
        process.terminate()
        process.wait(30)


# ------------------------------------------------------------------------------------------------------------ the run


def run(names: list[str], events: list[str], seconds: float) -> bool:
    """Try every event in every home; whether all went as promised."""
    is_well = True
    print(f"{'home':9} {'event':9} {'answered':>8} {'refused':>7} {'wrong':>5} {'lost':>5}  what was seen", flush=True)
    for name in names:
        with home_of(name) as home:
            for event in events:
                if event in DEADLY and not home.mortal():
                    continue
                with clients_of(home) as end:
                    try:
                        seen, is_back = ACTS[event](home, seconds), True
                    except Exception as error:  # noqa: BLE001 - shown, and counted as a failure
                        seen, is_back = f"FAILED: {type(error).__name__}: {error}", False
                    counts = end()
                numbers = [counts.get(kind, 0) for kind in ("answered", "refused", "wrong", "lost")]
                is_kept = is_back and not numbers[2] and (event in DEADLY or not numbers[3]) and numbers[0] > 0
                is_well = is_well and is_kept
                print(
                    f"{name:9} {event:9} {numbers[0]:8} {numbers[1]:7} {numbers[2]:5} {numbers[3]:5}  "
                    f"{'' if is_kept else '✗ '}{seen}",
                    flush=True,
                )
    print("All as promised." if is_well else "✗ marks what is not as promised.")
    return is_well


def main() -> int:
    """Read the options, run in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each event takes")
    parser.add_argument("--homes", nargs="+", choices=HOMES, default=list(HOMES))
    parser.add_argument("--events", nargs="+", choices=EVENTS, default=list(EVENTS))
    given = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # What most systems give a notebook; processes of our own raise it for themselves.
    resource.setrlimit(resource.RLIMIT_NOFILE, (NUM_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="tfserve-chaos-") as folder:
        os.chdir(folder)
        try:
            return 0 if run(given.homes, given.events, given.seconds) else 1
        finally:
            os.chdir(before)


if __name__ == "__main__":
    sys.exit(main())
