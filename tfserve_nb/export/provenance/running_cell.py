"""The cell that is running now: its text as the user wrote it, its number, and its id in the notebook.

Thread: the kernel's main thread; from another thread it is whichever cell runs.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any  # IPython's shell and kernel

from .provenance import Code


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


def _current_shell() -> Any:
    """None while nobody imported IPython: asking must not import it."""
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
