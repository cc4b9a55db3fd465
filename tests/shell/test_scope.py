"""Which variables the words of a magic name: those that Python itself would find where the magic stands."""

from __future__ import annotations

from typing import Any

import pytest

from tfserve_nb.notebook.scope import visible_variables

CODE = """
net = "global"
def function(net):
    %look
    return 1

def outer(net):
    def inner():
        %look
    inner()

def loop(net):
    return [get_ipython().run_line_magic("look", "") for _ in range(1)]

def with_loop_variable():
    for net in ["local"]:
        %look

def called_as_text(net):
    get_ipython().run_cell_magic("look", "", "pass")

class Trainer:
    def __init__(self, net):
        self.net = net
        %look

def other():
    unrelated = 1
    %look

def calls_other(net):
    other()

async def coroutine(net):
    %look
"""


@pytest.fixture
def looking(plain_shell: Any) -> Any:
    """A shell with `%look`, which notes what `net` is."""
    plain_shell.seen = []

    def look(line: str, cell: str | None = None) -> None:
        plain_shell.seen.append(visible_variables(plain_shell)["net"])

    plain_shell.register_magic_function(look, "line_cell")
    plain_shell.run(CODE)
    return plain_shell


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%look", "global"),
        ("if True:\n    %look", "global"),
        ("%%look\npass", "global"),
        ("%%time\n%look", "global"),
        ("function('local')", "local"),
        ("outer('local')", "local"),
        ("loop('local')", "local"),
        ("with_loop_variable()", "local"),
        ("called_as_text('local')", "local"),
        ("Trainer('local')", "local"),
        ("other()", "global"),
        ("calls_other('local')", "global"),  # Python's scopes are those of the text, not of the calls
        ("import asyncio\nasyncio.run(coroutine('local'))", "local"),
    ],
)
def test_names_are_found_as_python_finds_them(looking: Any, cell: str, expected: str) -> None:
    looking.run(cell)

    assert looking.seen == [expected]


def test_a_cell_sees_the_namespace_itself(looking: Any) -> None:
    found = []
    looking.register_magic_function(lambda _: found.append(visible_variables(looking)), "line", "keep")
    looking.run("%keep")

    assert found[0] is looking.user_ns
