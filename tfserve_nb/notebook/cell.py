"""Run the body of a cell magic as IPython runs a cell: in the user's namespace, with magics and good tracebacks.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any  # the value of the user's last expression

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell


@dataclass(frozen=True, slots=True)
class BodyResult:
    """What a body left behind.

    Attributes:
        value: the value of its last expression; None when it does not end with one.
        name: the variable that the last expression is, such as `model`; None when it is something else.
    """

    value: Any
    name: str | None


def run_body(shell: InteractiveShell, source: str) -> BodyResult:
    """Execute a cell body; an exception in it is the cell's own.

    Args:
        shell: where it runs; functions that it defines see each other and stay defined.
        source: the text below the magic's line, which may use `%magics` and `!commands`.

    Raises:
        UsageError: for `await` outside a function.
        BaseException: whatever the body raises.
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
    exec(body, shell.user_ns)  # noqa: S102 - running the user's cell is what this is for
    value = None if expression is None else eval(expression, shell.user_ns)  # noqa: S307
    return BodyResult(value, last.value.id if last is not None and isinstance(last.value, ast.Name) else None)
