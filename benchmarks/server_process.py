"""A contender's server as a process: start it, wait until it answers, check the answer, stop all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import psutil
from contenders import Contender
from saved_models import BenchModel, make_onnx
from wire_formats import Request, WireFormat

START_S = 180
STOP_S = 10
WAKE_S = 0.5
TOLERANCE = 1e-4
"""Batches of different sizes are summed up in different orders."""


class NoServer(Exception):
    """A contender does not start, or its predictions are not the model's."""


@dataclass(frozen=True)
class Target:
    """Where to send which request.

    Attributes:
        url: the whole address.
        request: what to post.
        token: for a server that requires one.
    """

    url: str
    request: Request
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """All header fields that a client adds."""
        extra = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {**self.request.headers, **extra}


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        contender: what it is.
        model: what it serves.
        port: where it listens.
        process: its first process.
        info: what the process wrote about itself: `token`, `pid` of the kernel.
    """

    contender: Contender
    model: BenchModel
    port: int
    process: subprocess.Popen[str]
    info: Mapping[str, object]

    def target(self, num_rows: int = 1, wire: WireFormat | None = None) -> Target:
        """Requests of some rows of the model's example."""
        wire = wire or self.contender.wire
        url = f"http://127.0.0.1:{self.port}{self.contender.paths[wire.name]}"
        return Target(url, wire.make(self.model.inputs(num_rows)), str(self.info.get("token") or ""))

    def tell(self, command: str) -> None:
        """Have a kernel do something beside serving; see kernel_server.py."""
        stdin, stdout = _pipes(self.process)
        stdin.write(command + "\n")
        stdin.flush()
        answer = stdout.readline().strip()
        if answer != "ok":
            raise NoServer(f"the kernel could not {command}: {answer}")

    def processor_s(self) -> float:
        """Seconds of processor time that its processes have used so far; those that ended do not count."""
        return sum(one.cpu_times().user + one.cpu_times().system for one in self._processes())

    def memory_mib(self) -> float:
        """Memory of its processes; what they share with others counts in parts."""
        return sum(float(one.memory_full_info().pss) for one in self._processes()) / 2**20

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """While it is measured: a server that polls stands still before and after; see `asleep`."""
        if self.contender.polls:
            self._signal(signal.SIGCONT)
            time.sleep(WAKE_S)
        try:
            yield
        finally:
            self.asleep()

    def asleep(self) -> None:
        """Stop the processes of a server that polls, so that it takes nothing from the others."""
        if self.contender.polls:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for one in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def _processes(self) -> list[psutil.Process]:
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def check(self, num_rows: int = 1, wire: WireFormat | None = None) -> None:
        """Compare an answer with the model's own.

        Raises:
            NoServer: if they differ.
        """
        wire = wire or self.contender.wire
        try:
            content, headers = post(self.target(num_rows, wire))
            answer = wire.read(content, headers)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoServer(f"no answer to {wire.name}: {_text(error)}") from error
        wanted = self.model.answers[:num_rows]
        if answer.size != wanted.size or not np.allclose(answer.reshape(wanted.shape), wanted, atol=TOLERANCE):
            raise NoServer(f"answers {wire.name} differently from the model: {answer.reshape(-1)[:4]}")


@contextlib.contextmanager
def started(contender: Contender, model: BenchModel, num_rows: int = 1) -> Iterator[Server]:
    """A server whose prediction was checked; stopped at the end.

    Raises:
        NoServer: if it does not start or answers wrongly; the text says why.
    """
    problem = contender.problem or (make_onnx(model) if contender.needs_onnx else "")
    if problem:
        raise NoServer(problem)
    with tempfile.TemporaryDirectory(prefix="bench-server-") as folder:
        info, log = Path(folder) / "info.json", Path(folder) / "log.txt"
        port = free_port()
        values = {"port": port, "grpc_port": port + 1, "model": model.version, "base": model.base, "info": info}
        command = [part.format_map(values) for part in contender.command]
        environment = {**os.environ, **contender.environment, "BENCH_MODEL": str(model.version)}
        environment.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
        if contender.needs_onnx:
            environment["BENCH_ONNX"] = str(model.onnx)
        # A pipe that is not read would fill up with the peer's log, and block it.
        with log.open("w") as output, subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if contender.tells else output, stderr=output, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                yield _ready(Server(contender, model, port, process, {}), info, log, num_rows)
            finally:
                resume(process)
                stop(process)


def _ready(server: Server, info: Path, log: Path, num_rows: int) -> Server:
    """Wait until a request is answered, then check the response."""
    until_s = time.perf_counter() + START_S
    reason: object = ""
    while time.perf_counter() < until_s:
        if server.process.poll() is not None:
            raise NoServer(f"ended with exit code {server.process.returncode}: {last_words(log)}")
        if not server.contender.tells or info.exists():
            told = json.loads(info.read_text()) if info.exists() else {}
            server = Server(server.contender, server.model, server.port, server.process, told)
            try:
                post(server.target(num_rows))
            except OSError as error:
                reason = _text(error)
            else:
                server.check(num_rows)
                return server
        time.sleep(0.02)
    raise NoServer(f"not ready within {START_S} s: {reason} {last_words(log)}")


def resume(process: subprocess.Popen[str]) -> None:
    """Let everything that it started run on: what stands still does not end when it is told to."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.resume()


def stop(process: subprocess.Popen[str]) -> None:
    """End a process with everything that it started."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def post(target: Target) -> tuple[bytes, Mapping[str, str]]:
    """One request over a connection of its own.

    Raises:
        OSError: if there is no answer, or none with success.
    """
    request = urllib.request.Request(target.url, target.request.body, target.headers)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return response.read(), {name.lower(): value for name, value in response.headers.items()}


def free_port() -> int:
    """A TCP port that is free together with the two after it, which some peers use as well."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
        if port < 65_000 and all(_is_free(port + offset) for offset in range(3)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    if process.stdin is None or process.stdout is None:
        raise NoServer("started without pipes")
    return process.stdin, process.stdout


def last_words(log: Path) -> str:
    """The last lines of a log, in one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-600:]


def _text(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error} {error.read(300).decode(errors='replace')}"
    return f"{type(error).__name__}: {error}"
