"""What surrounds a training: the user's git commit, installed packages, the seed.

Thread: any.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..._version import __version__

GIT_S = 2.0
MAX_PACKAGES = 300
_FOLDER = re.compile(r"(?P<name>.+?)-(?P<version>\d[^-]*)(?:-py[\d.]+)?\.(?:dist|egg)-info")
_RECORDED = re.compile(r"^([A-Za-z]\w*)(?:/|(?:\.[\w-]+)*\.(?:py|so|pyd),)", re.MULTILINE)
MAX_RECORD_CHARS = 4_000_000


@dataclass(frozen=True, slots=True)
class GitState:
    """The state of a git working tree.

    Attributes:
        commit: full hash; "" before the first commit.
        branch: "" when none is checked out.
        is_dirty: whether tracked files differ from the commit; new files do not count.
    """

    commit: str
    branch: str
    is_dirty: bool

    def __str__(self) -> str:
        return f"{self.commit[:10] or 'no commit'} {self.branch}{' (dirty)' if self.is_dirty else ''}".strip()


def git_state(folder: Path | None = None) -> GitState | None:
    """The commit of a folder, the current one by default; None without git, outside a repository, or after 2 s.

    Reference: git-status(1), "Porcelain Format Version 2".
    """
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no"],  # noqa: S607
            cwd=folder, capture_output=True, text=True, errors="replace", timeout=GIT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if done.returncode != 0:
        return None
    lines = done.stdout.splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# ") and line.count(" ") > 1)
    commit, branch = heads.get("branch.oid", ""), heads.get("branch.head", "")
    return GitState(
        commit="" if commit == "(initial)" else commit,
        branch="" if branch == "(detached)" else branch,
        is_dirty=any(line and not line.startswith("#") for line in lines),
    )


def imported_packages() -> dict[str, str]:
    """Name -> version of the installed distributions of which this process has imported something, sorted.

    Their names are taken from the folders `NAME-VERSION.dist-info` on `sys.path`:
    `importlib.metadata.packages_distributions` takes as long as a whole deploy.
    """
    imported = {name.partition(".")[0] for name in tuple(sys.modules)} - sys.stdlib_module_names
    found: dict[str, str] = {}
    for folder in sys.path:
        for name, version, path in _installed(folder, _changed_ns(folder)):
            if name not in found and (name.replace("-", "_") in imported or imported & _modules_of(path)):
                found[name] = version
    found["tfserve_nb"] = __version__
    found.pop("tfserve-nb", None)
    return dict(sorted(found.items())[:MAX_PACKAGES])


def random_seed() -> int | None:
    """What `keras.utils.set_random_seed` was given, if Keras still holds it."""
    if "keras" not in sys.modules:
        return None
    with contextlib.suppress(ImportError, AttributeError, TypeError, ValueError):
        from keras.src.utils.rng_utils import get_random_seed

        seed = get_random_seed()
        return None if seed is None else int(seed)
    return None


def _changed_ns(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns if folder else 0  # noqa: PTH116 - entries of sys.path may be anything
    except (OSError, ValueError):
        return 0


@functools.lru_cache(maxsize=64)
def _installed(folder: str, changed_ns: int) -> tuple[tuple[str, str, str], ...]:
    """Name, version and path of each distribution in one folder of `sys.path`, as it was at that moment."""
    if not changed_ns:
        return ()
    try:
        matches = [(_FOLDER.fullmatch(entry), entry) for entry in sorted(os.listdir(folder))]  # noqa: PTH208
    except OSError:
        return ()
    return tuple(
        (re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"], str(Path(folder, entry)))
        for match, entry in matches
        if match is not None
    )


@functools.lru_cache(maxsize=2000)
def _modules_of(path: str) -> frozenset[str]:
    """The modules at the top of a distribution; they do not change while it is installed."""
    for file in ("top_level.txt", "RECORD"):
        try:
            text = Path(path, file).read_text(encoding="utf-8", errors="replace")[:MAX_RECORD_CHARS]
        except OSError:
            continue
        return frozenset(text.split() if file == "top_level.txt" else _RECORDED.findall(text))
    return frozenset()
