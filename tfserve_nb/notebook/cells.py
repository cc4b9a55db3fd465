"""The user's cells: run the body of a cell magic as IPython runs a cell, and record when cells run.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any  # the value of the user's last expression, IPython's events

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from ..dashboards.cells import CELL_RUNS

MAX_TITLE_CHARS = 80
_recorded: list[InteractiveShell] = []


@dataclass(frozen=True, slots=True)
class BodyResult:
    """The result of a body.

    Attributes:
        value: the value of its last expression; None when it does not end with one.
        name: the variable that the last expression is, such as `model`; None when it is something else.
    """

    value: Any
    name: str | None


def run_body(shell: InteractiveShell, source: str, namespace: dict[str, Any]) -> BodyResult:
    """Execute a cell body; an exception in it is the cell's own.

    Args:
        shell: where it runs.
        source: the text below the magic's line, which may use `%magics` and `!commands`.
        namespace: its variables; functions that it defines see each other, and stay defined there.

    Raises:
        UsageError: for `await` outside a function.
        BaseException: what the body raises.
    """
    transformed = shell.transform_cell(source)
    # Cached under a name of its own, so that tracebacks show the lines.
    file_name = shell.compile.cache(transformed, shell.execution_count, raw_code=source)
    tree = shell.transform_ast(shell.compile.ast_parse(transformed, filename=file_name))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    try:
        body = shell.compile(tree, file_name, "exec")
        wrapped: Any = None if last is None else ast.Expression(last.value)  # IPython's annotation knows text only
        expression = None if wrapped is None else shell.compile(wrapped, file_name, "eval")
    except SyntaxError as error:
        if "await" in str(error):
            raise UsageError(
                "await at the top level does not work below a cell magic; await in a cell before"
            ) from None
        raise
    exec(body, namespace)  # noqa: S102 - running the user's cell is what this is for
    value = None if expression is None else eval(expression, namespace)  # noqa: S307
    return BodyResult(value, last.value.id if last is not None and isinstance(last.value, ast.Name) else None)


def record_cells(shell: InteractiveShell) -> None:
    """Record from now on which cells run, so that charts can show what else kept the kernel busy. Idempotent."""
    if shell not in _recorded:
        _recorded.append(shell)
        shell.events.register("pre_run_cell", _begin_run)
        shell.events.register("post_run_cell", _end_run)


def stop_recording(shell: InteractiveShell) -> None:
    """The inverse of `record_cells`."""
    if shell in _recorded:
        _recorded.remove(shell)
        shell.events.unregister("pre_run_cell", _begin_run)
        shell.events.unregister("post_run_cell", _end_run)


def _begin_run(info: Any) -> None:
    lines = [line.strip() for line in str(info.raw_cell or "").splitlines()]
    CELL_RUNS.start(next((line for line in lines if line), "a cell")[:MAX_TITLE_CHARS])


def _end_run(_: Any) -> None:
    CELL_RUNS.end()
