"""The command line: `tfserve-nb serve`, `bench`, `bundle`, `parity` and `ray`, also `python -m tfserve_nb serve`."""

from __future__ import annotations

import sys
from importlib import import_module

from .._version import __version__
from .serve import serve

USAGE = """usage: tfserve-nb COMMAND [options]

commands:
  serve     serve SavedModels as tensorflow_model_server does (tfserve-nb serve --help)
  bench     load a model server and show what its clients would see (tfserve-nb bench --help)
  bundle    write what TensorFlow Serving, Kubernetes and others need to serve the same (tfserve-nb bundle --help)
  parity    compare two servers: do they answer the same? (tfserve-nb parity --help)
  ray       serve SavedModels by replicas on Ray, as many as the load needs (tfserve-nb ray --help)

  --version print the version
"""

COMMANDS = ("bench", "bundle", "parity", "ray")
"""Modules of this folder with a function of the same name, which are imported when they are needed."""


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
    if command in COMMANDS:
        run = getattr(import_module(f".{command}", __package__), command)
        return int(run(rest))
    if command == "--version":
        print(f"tfserve_nb {__version__}")
        return 0
    if command in ("--help", "-h"):
        print(USAGE, end="")
        return 0
    print(f"tfserve-nb: there is no command {command!r}\n{USAGE}", end="", file=sys.stderr)
    return 2
