"""Tab completion for the magics: options, models in the namespace, served names, versions and labels.

IPython completes magics' names but not what follows; its hook for commands does.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any  # the user's namespace

from IPython.core.interactiveshell import InteractiveShell

from ..api.connect import deployments
from ..api.deployment import Deployment
from ..options import Option
from .magics import DeployMagics

COMMANDS = ("deploy", "serving", "rollback", "promote", "undeploy", "dashboard", "benchmark", "abtest", "replay",
            "variants")  # fmt: skip


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
    declared: tuple[Option, ...] = getattr(DeployMagics, command).options
    flags = {flag: one for one in declared for flag in one.written}
    positionals, awaited, values_left = [], None, 0
    for word in done:
        if values_left:
            values_left -= 1
        elif word in flags:
            awaited, values_left = flags[word], 0 if flags[word].is_switch else flags[word].num_values
        elif not word.startswith("-"):
            positionals.append(word)
    served = {handle.name: handle for handle in deployments()}
    model = served.get(positionals[0]) if positionals else next(iter(served.values()), None)
    if awaited is not None and values_left:
        return list(awaited.choices) or _named(namespace, awaited, model)
    wanted = [one for one in declared if one.is_positional][len(positionals) :][:1]
    candidates = [word for one in wanted for word in _named(namespace, one, model)]
    return candidates + [flag for flag in flags if flag.startswith("--") and flag not in done]


def _named(namespace: Mapping[str, Any], option: Option, model: Deployment | None) -> list[str]:
    """What the word of an option can name.

    Args:
        namespace: the user's.
        option: the option.
        model: the model that the line is about, or None.
    """
    variables = {word: value for word, value in namespace.items() if not word.startswith("_")}
    keras = sys.modules.get("keras")  # not imported for this: without it there are no models
    found: list[str] = []
    match option.names:
        case "array":
            found = [word for word, value in variables.items() if hasattr(value, "shape")]
        case "dict":
            found = [word for word, value in variables.items() if isinstance(value, dict)]
        case "keras model" | "keras model or model" | "model":
            if option.names != "model" and keras is not None:
                found = [word for word, value in variables.items() if isinstance(value, keras.Model)]
            if option.names != "keras model":
                found += [handle.name for handle in deployments()]
        case "version" | "version or label" if model is not None:
            found = [str(status.version) for status in model.status().versions]
            found += [] if option.names == "version" else sorted(model.labels)
        case "label":
            found = sorted({label for handle in deployments() for label in handle.labels} | {"stable", "canary"})
    return found
