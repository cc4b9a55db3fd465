"""The servers that are compared: ours in its ways of running, and peers that serve the same SavedModel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from peer_venvs import PEERS, NoVenv, venv_python
from saved_models import COLUMNS
from wire_formats import BINARY, PLAIN_LIST, ROWS, V1, V2, WireFormat

HERE = Path(__file__).parent
V1_PATH = "/v1/models/bench:predict"
V2_PATH = "/v2/models/bench/infer"


@dataclass(frozen=True)
class Contender:
    """A server to measure.

    It is ready when it answers a prediction with 200; before it is measured, its answer must be the model's own.

    Attributes:
        name: for tables and pictures.
        command: what starts it; `{port}`, `{model}` (the version's folder), `{base}` (the folder above) and `{info}` (a
            file that it writes its token and process id to) are filled in.
        wire: the body format of the comparison.
        paths: body format -> URL path, for each format that it supports.
        is_ours: whether it is this project's server.
        tells: whether it writes `{info}`.
        environment: added to that of its process.
        needs_onnx: whether it runs the model's ONNX file.
        polls: whether it uses a part of a core while nobody asks: it is stopped while others are measured.
        problem: why it cannot run on this machine; empty when it can.
    """

    name: str
    command: tuple[str, ...]
    wire: WireFormat
    paths: Mapping[str, str]
    is_ours: bool = False
    tells: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    needs_onnx: bool = False
    polls: bool = False
    problem: str = ""


OUR_PATHS = {V1.name: V1_PATH, V2.name: V2_PATH, BINARY.name: V2_PATH}
KERNEL, KERNEL_AUTO, ISOLATED = "ours, in kernel", "ours, in kernel, auto", "ours, isolated"
SERVE, SERVE_AUTO, TWO_WORKERS = "ours, serve", "ours, serve, auto", "ours, serve, 2 workers"
ONNX = " with ONNX Runtime"


def ours() -> list[Contender]:
    """Our server: in a kernel, isolated, and as a command, as it starts and with two workers."""
    return [in_kernel(), in_kernel(is_isolated=True), serve(), serve(num_workers=2)]


def with_engines() -> list[Contender]:
    """Our server in a kernel and as a command, by TensorFlow's session and by the engine that it chooses."""
    return [in_kernel(), in_kernel(engine="auto"), serve(), serve(engine="auto")]


def in_kernel(*, is_isolated: bool = False, max_batch_size: int = 64, engine: str = "tensorflow") -> Contender:
    """Deployed from a cell of a real kernel, in the kernel or in its child process."""
    command = [sys.executable, str(HERE / "kernel_server.py"), "{port}", "{model}", "{info}"]
    command += [f"--max-batch-size={max_batch_size}", f"--engine={engine}"]
    if is_isolated:
        command.append("--isolate")
    name = _with_engine(ISOLATED if is_isolated else KERNEL, engine)
    return Contender(name, tuple(command), V1, OUR_PATHS, is_ours=True, tells=True)


def serve(*, num_workers: int = 0, engine: str = "tensorflow") -> Contender:
    """`tfserve-nb serve` as a user starts it: ports and model, and only the options that are named here."""
    command = [
        sys.executable, "-m", "tfserve_nb", "serve", "--port={grpc_port}", "--rest_api_port={port}",
        "--model_name=bench", "--model_base_path={base}",
    ]  # fmt: skip
    name = SERVE
    if num_workers:
        name += f", {num_workers} worker{'s' if num_workers > 1 else ''}"
        command.append(f"--workers={num_workers}")
    if engine != "tensorflow":
        command.append(f"--engine={engine}")
    return Contender(_with_engine(name, engine), tuple(command), V1, OUR_PATHS, is_ours=True)


def _with_engine(name: str, engine: str) -> str:
    return name if engine == "tensorflow" else f"{name}, {engine}"


def peers(*, makes_venvs: bool = True, engines: bool = False) -> list[Contender]:
    """The peers, whether or not they can run here; those that are not installed yet are installed if allowed.

    Args:
        makes_venvs: whether that is allowed.
        engines: PyTriton and MLServer with ONNX Runtime too.
    """
    wires: dict[str, tuple[WireFormat, Mapping[str, str]]] = {
        "pytriton": (V2, {V2.name: V2_PATH, BINARY.name: V2_PATH}),
        "mlserver": (V2, {V2.name: V2_PATH}),
        "litserve": (ROWS, {ROWS.name: "/predict"}),
        "bentoml": (PLAIN_LIST, {PLAIN_LIST.name: "/predict"}),
        "ray": (ROWS, {ROWS.name: "/"}),
    }
    found = []
    for key in PEERS:
        one = _peer(key, *wires[key], makes_venv=makes_venvs)
        found.append(one)
        if engines and key in ("pytriton", "mlserver"):
            found.append(replace(one, name=one.name + ONNX, needs_onnx=True))
    return found


def _peer(key: str, wire: WireFormat, paths: Mapping[str, str], *, makes_venv: bool) -> Contender:
    peer = PEERS[key]
    try:
        python = venv_python(key, makes=makes_venv)
    except NoVenv as error:
        return Contender(peer.name, (), wire, paths, problem=str(error))
    environment = {
        "PYTHONPATH": str(HERE / "peers"), "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "BENCH_COLUMNS": ",".join(COLUMNS), **peer.environment,
    }  # fmt: skip
    if key == "pytriton":
        environment["LD_LIBRARY_PATH"] = _library_folder(python)
    return Contender(peer.name, (str(python), str(HERE / "peers" / peer.script), "{port}"), wire, paths,
                     environment=environment, polls=peer.polls)  # fmt: skip


def _library_folder(python: Path) -> str:
    """Where libpython of an interpreter is: Triton's stub must load the one that the packages were installed for."""
    code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
