"""The conditions of a measurement: the machine, the Python build, and the versions of all packages."""

from __future__ import annotations

import os
import platform
import subprocess
import sysconfig
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "tensorflow", "keras", "numpy", "tornado", "httptools", "uvloop", "pysimdjson", "orjson", "grpcio", "ipykernel",
    "tensorflow-serving-api",
)  # fmt: skip


def describe() -> dict[str, str]:
    """Names and values, in the order in which a report shows them."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_gib:.0f} GiB",
        "kernel": platform.release(),
        "load before": f"{os.getloadavg()[0]:.2f} runnable processes in the last minute",
        "Python": f"{platform.python_version()}, {python_build()}",
        "tfserve_nb": f"{_own_version()}, commit {_command('git', 'describe', '--always', '--dirty')}",
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "wrk": _command("wrk", "--version").split(" [")[0].removeprefix("wrk ") or "missing",
    }


def gpus() -> str:
    """Names, memory and driver of the GPUs, as NVIDIA's driver tells them; "" without one."""
    return _command("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


def python_build() -> str:
    """How the interpreter was compiled; without profile-guided optimisation it is a tenth to a third slower."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    flags = " ".join(str(sysconfig.get_config_var(name) or "") for name in ("PY_CFLAGS", "PY_CFLAGS_NODIST"))
    if "--enable-optimizations" in arguments or "-fprofile-use" in flags:
        return f"built with PGO{' and LTO' if '-flto' in flags or '--with-lto' in arguments else ''}"
    return "not a PGO build (our code runs slower than in a distribution's Python)"


def _own_version() -> str:
    text = (ROOT / "tfserve_nb" / "_version.py").read_text()
    return text.rpartition("=")[2].strip().strip("\"'")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _command(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return (done.stdout or done.stderr).partition("\n")[0].strip()
