"""The servers that are compared: ours in its ways of running, and peers that serve the same SavedModel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peer_venvs import PEERS, NoVenv, venv_python
from wire_formats import BINARY, PLAIN_LIST, V1, V2, WireFormat

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
        problem: why it cannot run on this machine; empty when it can.
    """

    name: str
    command: tuple[str, ...]
    wire: WireFormat
    paths: Mapping[str, str]
    is_ours: bool = False
    tells: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


OUR_PATHS = {V1.name: V1_PATH, V2.name: V2_PATH, BINARY.name: V2_PATH}


def ours() -> list[Contender]:
    """Our server: in a kernel, isolated, and as a command with one and two workers."""
    return [in_kernel(), in_kernel(is_isolated=True), serve(1), serve(2)]


def in_kernel(*, is_isolated: bool = False, max_batch_size: int = 64) -> Contender:
    """Deployed from a cell of a real kernel, in the kernel or in its child process."""
    command = [sys.executable, str(HERE / "kernel_server.py"), "{port}", "{model}", "{info}"]
    command.append(f"--max-batch-size={max_batch_size}")
    name = "ours, in kernel"
    if is_isolated:
        name = "ours, isolated"
        command.append("--isolate")
    return Contender(name, tuple(command), V1, OUR_PATHS, is_ours=True, tells=True)


def serve(num_workers: int) -> Contender:
    """`tfserve-nb serve` with some workers."""
    command = [
        sys.executable, "-m", "tfserve_nb", "serve", "--port={grpc_port}", "--rest_api_port={port}",
        "--model_name=bench",
        "--model_base_path={base}", "--enable_batching", "--host=127.0.0.1",
        f"--workers={num_workers}",
    ]  # fmt: skip
    name = f"ours, serve, {num_workers} worker{'s' if num_workers > 1 else ''}"
    return Contender(name, tuple(command), V1, OUR_PATHS, is_ours=True)


def peers(*, makes_venvs: bool = True) -> list[Contender]:
    """The peers, whether or not they can run here; those that are not installed yet are installed if allowed."""
    wires: dict[str, tuple[WireFormat, Mapping[str, str]]] = {
        "pytriton": (V2, {V2.name: V2_PATH, BINARY.name: V2_PATH}),
        "mlserver": (V2, {V2.name: V2_PATH}),
        "litserve": (V1, {V1.name: "/predict"}),
        "bentoml": (PLAIN_LIST, {PLAIN_LIST.name: "/predict"}),
        "ray": (V1, {V1.name: "/"}),
    }
    return [_peer(key, *wires[key], makes_venv=makes_venvs) for key in PEERS]


def _peer(key: str, wire: WireFormat, paths: Mapping[str, str], *, makes_venv: bool) -> Contender:
    peer = PEERS[key]
    try:
        python = venv_python(key, makes=makes_venv)
    except NoVenv as error:
        return Contender(peer.name, (), wire, paths, problem=str(error))
    environment = {"PYTHONPATH": str(HERE / "peers"), "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    if key == "pytriton":
        environment["LD_LIBRARY_PATH"] = _library_folder(python)
    return Contender(peer.name, (str(python), str(HERE / "peers" / peer.script), "{port}"), wire, paths,
                     environment=environment)  # fmt: skip


def _library_folder(python: Path) -> str:
    """Where libpython of an interpreter is: Triton's stub must load the one that the packages were installed for."""
    code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
