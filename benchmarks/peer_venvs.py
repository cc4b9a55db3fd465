"""The peers' virtual environments: existing ones, or created on the first run.

`BENCH_VENVS` names a folder with environments of the peers' names; without it they are made below `.bench/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = Path(__file__).parent / "peers"


class NoVenv(Exception):
    """A peer is not installed and cannot be."""


@dataclass(frozen=True)
class Peer:
    """A peer.

    Attributes:
        name: as its makers write it.
        package: as pip knows it.
        script: in peers/.
        environment: what its documentation sets for throughput.
        polls: whether its processes use a part of a core while nobody asks.
    """

    name: str
    package: str
    script: str
    environment: Mapping[str, str] = field(default_factory=dict)
    polls: bool = False


PEERS = {
    "pytriton": Peer("PyTriton", "nvidia-pytriton", "pytriton_server.py"),
    "mlserver": Peer("MLServer", "mlserver", "mlserver_model.py"),
    "litserve": Peer("LitServe", "litserve", "litserve_server.py", polls=True),
    "bentoml": Peer("BentoML", "bentoml", "bentoml_service.py"),
    "ray": Peer("Ray Serve", "ray", "ray_server.py",
                # Ray gives its processes a low priority unless told: on a machine that others use they would starve.
                {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_worker_niceness": "0"},
                polls=True),
}  # fmt: skip
INSTALLED = "installed.txt"
"""In an environment: the requirements that it was made from."""


def venv_python(key: str, *, makes: bool = True) -> Path:
    """The interpreter that has a peer installed.

    Args:
        key: of `PEERS`.
        makes: whether to install one that is not there, which takes minutes.

    Raises:
        NoVenv: if there is none and none could be made; the text says why.
    """
    given = os.environ.get("BENCH_VENVS")
    folder = (Path(given) if given else ROOT / ".bench") / key
    python = folder / "bin" / "python"
    requirements = REQUIREMENTS / f"requirements-{key}.txt"
    if given:
        if not _version(folder, PEERS[key].package):
            raise NoVenv(f"{PEERS[key].package} is not installed in {key} below BENCH_VENVS")
    elif not _is_current(folder, requirements):
        if not makes:
            raise NoVenv(f"not installed yet: python benchmarks/run.py --only servers --contender {PEERS[key].name!r}")
        _make(folder, requirements)
    return python


def versions() -> dict[str, str]:
    """Peer -> version, of those that are installed."""
    folder = Path(os.environ.get("BENCH_VENVS") or ROOT / ".bench")
    found = {peer.name: _version(folder / key, peer.package) for key, peer in PEERS.items()}
    return {name: version for name, version in found.items() if version}


def _version(folder: Path, package: str) -> str:
    pattern = f"lib/python*/site-packages/{package.replace('-', '_')}-*.dist-info"
    infos = sorted(folder.glob(pattern))
    return infos[0].name.removesuffix(".dist-info").rpartition("-")[2] if infos else ""


def _is_current(folder: Path, requirements: Path) -> bool:
    installed = folder / INSTALLED
    return installed.exists() and installed.read_text() == requirements.read_text()


def _make(folder: Path, requirements: Path) -> None:
    print(f"==> installing {folder.name} into {folder.relative_to(ROOT)} (some minutes, once)", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        subprocess.run(pip, check=True, stderr=subprocess.PIPE, text=True)
    except subprocess.CalledProcessError as error:
        errors = [line for line in (error.stderr or "").splitlines() if line.startswith("ERROR")]
        raise NoVenv(f"pip could not install it: {errors[-1] if errors else error}") from error
    shutil.copy(requirements, folder / INSTALLED)
