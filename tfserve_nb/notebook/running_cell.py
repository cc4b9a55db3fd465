"""The cell that is running now: its text as the user wrote it, its number, and its id in the notebook.

Thread: the kernel's main thread; from another thread it is whichever cell runs.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any  # IPython's shell and kernel

from ..export.provenance import Code


def running_cell(shell: Any = None) -> Code | None:
    """The running cell; None outside IPython, and for cells that are kept out of the history.

    IPython stores the text of cell N as `_iN` before it runs it. The id is what the front end sent with the request
    (`cellId` in its metadata; JupyterLab and Notebook do, terminals do not).

    Args:
        shell: IPython's shell; the current one by default.
    """
    shell = shell or _current_shell()
    if shell is None:
        return None
    count = shell.execution_count
    source = shell.user_ns.get(f"_i{count}")
    return cell_code(source, shell) if isinstance(source, str) and source.strip() else None


def cell_code(source: str, shell: Any = None) -> Code:
    """A cell's text with what the shell knows about it."""
    if shell is None:
        return Code(source)
    return Code(source, cell_id=_cell_id(shell), execution_count=shell.execution_count)


def _current_shell() -> Any:
    """None while nobody imported IPython: asking must not import it."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _cell_id(shell: Any) -> str:
    with contextlib.suppress(AttributeError, LookupError, TypeError):  # no kernel, or no request in this thread
        found = shell.kernel.get_parent()["metadata"].get("cellId")
        return found if isinstance(found, str) else ""
    return ""
