"""The command line: `tfserve-nb serve`, `bench`, `parity` and `ray`, also `python -m tfserve_nb serve`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from .._version import __version__
from .serve import serve

USAGE = """usage: tfserve-nb COMMAND [options]

commands:
  serve     serve SavedModels as tensorflow_model_server does (tfserve-nb serve --help)
  bench     load a model server and show what its clients would see (tfserve-nb bench --help)
  ray       serve SavedModels by replicas on Ray, as many as the load needs (tfserve-nb ray --help)
  parity    compare two servers: do they answer the same? (tfserve-nb parity --help)

  --version print the version
"""

LAZY = ("bench", "parity", "ray")
"""Commands that are the function of their name in the module of their name, imported when they are run."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: without the program's name; the process's own by default.

    Returns:
        The process's exit code.
    """
    given = sys.argv[1:] if arguments is None else arguments
    command, *rest = given or ["--help"]
    if command == "serve":
        return serve(rest)
    if command in LAZY:
        run: Callable[[list[str]], int] = getattr(importlib.import_module(f".{command}", __package__), command)
        return run(rest)
    if command == "--version":
        print(f"tfserve_nb {__version__}")
        return 0
    if command in ("--help", "-h"):
        print(USAGE, end="")
        return 0
    print(f"tfserve-nb: there is no command {command!r}\n{USAGE}", end="", file=sys.stderr)
    return 2
