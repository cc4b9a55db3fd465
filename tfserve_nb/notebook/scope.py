"""The variables that a magic's words name: those of the code that calls it, as Python itself would look them up.

IPython gives a magic the locals of its caller (`needs_local_scope`). Functions around the caller are not among them,
though a name of theirs hides a global of the same name all the same; so the stack is read here.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any  # the user's objects

from IPython.core.interactiveshell import InteractiveShell

_MAGIC_CALLS = (InteractiveShell.run_line_magic.__code__, InteractiveShell.run_cell_magic.__code__)


def visible_variables(shell: InteractiveShell) -> dict[str, Any]:
    """The variables that the caller of the magic which runs now sees.

    Returns:
        In a cell, the shell's own namespace itself. In a function, a copy of it in which the variables of the function,
        and of the functions around it, hide globals of the same name.
    """
    found: dict[str, Any] = shell.user_ns
    for frame in reversed(list(_scopes(_caller()))):
        if frame.f_locals is not shell.user_ns:
            found = {**found, **frame.f_locals}
    return found


def _caller() -> FrameType | None:
    """The code that called the magic; None when no magic runs."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - IPython reads the caller's variables so
    while frame is not None and frame.f_code not in _MAGIC_CALLS:
        frame = frame.f_back
    own_file = _MAGIC_CALLS[0].co_filename
    while frame is not None and frame.f_code.co_filename == own_file:
        frame = frame.f_back
    return frame


def _scopes(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame, and those on the stack whose code its own is written in, innermost first."""
    if frame is None:
        return
    yield frame
    code = frame.f_code
    while (frame := frame.f_back) is not None:
        if any(constant is code for constant in frame.f_code.co_consts):
            yield frame
            code = frame.f_code
