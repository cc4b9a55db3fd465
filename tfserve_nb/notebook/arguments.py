"""The options of the magics: parsing, and turning words into the user's objects.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import argparse
import functools
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any  # IPython's decorators and the user's namespace are untyped

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, magic_arguments

from ..export.single_file.source import SUFFIXES
from ..options import command_options, options_of

_NUMBERS = re.compile(r"-[\d.][\d.eE+-]*(,[\d.eE+-]+)+")
_BARE_OPTION = re.compile(r"--[a-z0-9-]+")


def with_options(*kinds: type[Any]) -> Callable[[Any], Any]:
    """Give a magic the options that dataclasses declare, its help included.

    The magic gets the parsed line in place of the text, which is its attribute `line`. With `--help` it is not called.
    """

    def decorate(function: Any) -> Any:
        declared = command_options(*kinds)
        for option in reversed(declared):
            names, settings = option.for_argparse()
            function = argument(*names, **settings)(function)
        described = magic_arguments()(function)

        @functools.wraps(described)
        def magic(self: Any, line: str, *cell: str) -> Any:
            parsed = parse(magic, line)
            return None if parsed is None else described(self, parsed, *cell)

        vars(magic)["options"] = declared
        return magic

    return decorate


def parse(magic: Any, line: str) -> argparse.Namespace | None:
    """Parse the line of a magic, with shell quoting and `# comments`.

    Args:
        magic: the decorated method.
        line: what stands behind the magic's name.

    Returns:
        The options, and the text itself as `line`; None when `--help` was shown.

    Raises:
        UsageError: for options that do not exist or do not fit.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"{line!r} cannot be read: {error}") from None
    if "--help" in words:
        print(magic.parser.format_help())
        return None
    parsed: argparse.Namespace
    parsed, unknown = magic.parser.parse_known_args(_with_negative_numbers(words), argparse.Namespace(line=line))
    if unknown:
        flags = [flag for one in magic.options for flag in one.written]
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}{_close(unknown[0], flags)}")
    return parsed


def _with_negative_numbers(words: list[str]) -> list[str]:
    """`--range -1,1` as `--range=-1,1`: argparse takes several numbers that begin with a minus for an option."""
    joined: list[str] = []
    for word in words:
        if _NUMBERS.fullmatch(word) and joined and _BARE_OPTION.fullmatch(joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def look_up_variables(namespace: Mapping[str, Any], kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The objects that the words of a dataclass's options name, by field.

    Args:
        namespace: the user's.
        kind: the dataclass.
        values: words, by field.

    Raises:
        UsageError: naming the option, the word and close matches.
    """
    return {
        option.field: look_up(namespace, values[option.field], option.written[0])
        for option in options_of(kind)
        if option.is_variable and values.get(option.field) is not None
    }


def look_up(namespace: Mapping[str, Any], word: str, what: str) -> Any:
    """The object that a word names: a variable, or an attribute of one, such as `trainer.model`. Never evaluated.

    Raises:
        UsageError: naming the word and close matches.
    """
    first, *attributes = word.split(".")
    if first not in namespace:
        names = (name for name in namespace if not name.startswith("_"))
        raise UsageError(f"{what} {word!r}: there is no variable {first!r}{_close(first, names)}")
    value = namespace[first]
    for attribute in attributes:
        if not hasattr(value, attribute):
            raise UsageError(f"{what} {word!r}: {type(value).__name__} has no attribute {attribute!r}")
        value = getattr(value, attribute)
    return value


def look_up_model(namespace: Mapping[str, Any], word: str) -> Any:
    """The model that a word names: one of MLflow, a variable, or else the path of a SavedModel or a file.

    `model.onnx` is a file where there is one, unless the variable `model` has an attribute of that name.
    """
    from ..scaleout.mlflow.uris import is_uri

    if is_uri(word):
        return word
    path = Path(word).expanduser()
    try:
        return look_up(namespace, word, "MODEL")
    except UsageError as error:
        if path.exists():
            return path
        if path.suffix in SUFFIXES or "/" in word:
            raise UsageError(f"MODEL {word!r}: there is no such file; {error}") from None
        raise


def _close(word: str, names: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
