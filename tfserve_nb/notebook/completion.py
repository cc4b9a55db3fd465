"""Tab completion for the magics: options, models in the namespace, served names, versions and labels.

IPython completes magics' names but not what follows; its hook for commands does.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any  # the user's namespace

from IPython.core.interactiveshell import InteractiveShell

from ..api.connect import deployment, deployments
from .magics import DeployMagics

COMMANDS = ("deploy", "serving", "rollback", "promote", "undeploy", "dashboard", "benchmark", "abtest", "replay")
_OPTIONS_WITH_VARIABLES = ("--warmup", "--check", "--data", "--values")
_OPTIONS_WITH_VERSIONS = ("--to", "--version", "--onto", "--against", "--diff")


def register(shell: InteractiveShell) -> None:
    """Complete what follows the magics' names."""

    def complete(_: object, event: Any) -> list[str]:
        return complete_line(shell.user_ns, event.text_until_cursor, event.symbol)

    for command in COMMANDS:
        shell.set_hook("complete_command", complete, str_key=f"%{command}")
        shell.set_hook("complete_command", complete, str_key=f"%%{command}")


def unregister(shell: InteractiveShell) -> None:
    """The inverse of `register`."""
    dispatcher = shell.strdispatchers.get("complete_command")
    if dispatcher is not None:
        for command in COMMANDS:
            for key in (f"%{command}", f"%%{command}"):
                dispatcher.strs.pop(key, None)


def complete_line(namespace: Mapping[str, Any], line: str, word: str) -> list[str]:
    """What may stand where the cursor is.

    Args:
        namespace: the user's.
        line: the text up to the cursor, such as `%deploy net --la`.
        word: the word being typed, may be empty.

    Returns:
        Whole words that begin with `word`.
    """
    words = line.split()
    command = words[0].lstrip("%") if words else ""
    if command not in COMMANDS:
        return []
    done = words[1:] if line.endswith(" ") or not word else words[1:-1]
    return [candidate for candidate in _candidates(namespace, command, done) if candidate.startswith(word)]


def _candidates(namespace: Mapping[str, Any], command: str, done: list[str]) -> list[str]:
    parser: argparse.ArgumentParser = getattr(DeployMagics, command).parser
    previous = "--diff" if "--diff" in done[-2:] else done[-1] if done else ""  # it takes two values
    options = parser._option_string_actions  # noqa: SLF001 - argparse has no public list of options
    action = options.get(previous)
    if action is not None and action.choices:
        return [str(choice) for choice in action.choices]
    if action is not None and action.nargs != 0:
        return _values(namespace, previous, done)
    positionals = [word for word in done if not word.startswith("-")]
    candidates = [option for option in options if option.startswith("--") and option not in done]
    if command == "deploy":
        return ([] if positionals else _models(namespace)) + candidates
    if not positionals:
        return [handle.name for handle in deployments()] + candidates
    return (_versions(positionals[0]) if command == "promote" else []) + candidates


def _values(namespace: Mapping[str, Any], option: str, done: list[str]) -> list[str]:
    positionals = [word for word in done if not word.startswith("-")]
    served = [handle.name for handle in deployments()]
    model = next((word for word in positionals if word in served), served[0] if served else None)
    variables = {word: value for word, value in namespace.items() if not word.startswith("_")}
    found: list[str] = []
    if option in _OPTIONS_WITH_VARIABLES:
        found = [word for word, value in variables.items() if hasattr(value, "shape")]
    elif option in ("--name", "-n"):
        found = served
    elif option == "--metrics":
        found = [word for word, value in variables.items() if isinstance(value, dict)]
    elif option in _OPTIONS_WITH_VERSIONS and model is not None:
        found = _versions(model)
    elif option in ("--a", "--b") and model is not None:
        found = [*_versions(model), *sorted(deployment(model).labels)]
    elif option == "--label":
        labels = {label for handle in deployments() for label in handle.labels}
        found = sorted(labels | {"stable", "canary"})
    return found


def _versions(name: str) -> list[str]:
    handles = {handle.name: handle for handle in deployments()}
    return [str(status.version) for status in handles[name].status().versions] if name in handles else []


def _models(namespace: Mapping[str, Any]) -> list[str]:
    """Names of Keras models; Keras is not imported for this, without it there are none."""
    keras = sys.modules.get("keras")
    if keras is None:
        return []
    return [name for name, value in namespace.items() if not name.startswith("_") and isinstance(value, keras.Model)]
