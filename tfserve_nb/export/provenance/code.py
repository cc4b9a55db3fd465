"""The code that deploys: the running cell, with its number and its id in the notebook, or the script.

Thread: the kernel's main thread; on another thread it is the cell that runs at that moment.
"""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any  # IPython's shell and kernel

from .redaction import redact


@dataclass(frozen=True, slots=True)
class Code:
    """The code that deployed a version.

    Attributes:
        source: its text, without the secrets that were found.
        kind: `cell` or `script`.
        cell_id: the id of the cell in its notebook; "" when the front end sends none.
        execution_count: the number in the cell's brackets; None when it has none.
        path: the script's file name; "" for a cell.
        num_redacted: secrets that were taken out.
        is_cut: whether the text was too long to be stored in full.
    """

    source: str
    kind: str = "cell"
    cell_id: str = ""
    execution_count: int | None = None
    path: str = ""
    num_redacted: int = 0
    is_cut: bool = False

    def redacted(self) -> Code:
        """The same without secrets."""
        found = redact(self.source)
        return replace(self, source=found.text, num_redacted=found.count, is_cut=self.is_cut or found.is_cut)


def running_cell(shell: Any = None) -> Code | None:
    """The running cell; None outside IPython.

    In a kernel it is the text of the request that runs, with the cell's id in its metadata (`cellId`, which JupyterLab
    sends). In a terminal it is the newest entry of the history, which IPython makes before it runs a cell.

    Args:
        shell: IPython's shell; the current one by default.
    """
    shell = shell or _current_shell()
    if shell is None:
        return None
    newest, count = _newest(shell)
    request = _request(shell)
    if request is None:
        return Code(newest, execution_count=count) if newest else None
    source, cell_id = request
    is_stored = newest.strip() == source.strip()
    return Code(source, cell_id=cell_id, execution_count=count if is_stored else None)


def running_script() -> Code | None:
    """The program that runs, if it is the user's and no launcher out of a package."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if path is None:
        return None
    file = Path(path).absolute()
    installed = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib", "scripts")]
    if any(file.is_relative_to(folder) for folder in installed if folder):
        return None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Code(file.read_text(encoding="utf-8"), "script", path=file.name)
    return None


def _current_shell() -> Any:
    """None while IPython is not imported: this must not import it."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _newest(shell: Any) -> tuple[str, int | None]:
    """Text and number of the newest cell in the history; ("", None) for an empty one."""
    history = getattr(shell.history_manager, "input_hist_raw", [])
    return (str(history[-1]), len(history) - 1) if len(history) > 1 else ("", None)


def _request(shell: Any) -> tuple[str, str] | None:
    """Text and cell id of the request that the kernel carries out; None without one."""
    with contextlib.suppress(AttributeError, LookupError, TypeError):  # no kernel, or nothing asked for in this thread
        parent = shell.kernel.get_parent()
        source, cell_id = parent["content"]["code"], parent["metadata"].get("cellId")
        return str(source), cell_id if isinstance(cell_id, str) else ""
    return None
