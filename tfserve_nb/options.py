"""Options, declared once: a command's options are the fields of frozen dataclasses.

A field that `option` makes carries the text of a magic's help, of a command line's help and of a row of the documents.
The field's name becomes `--its-name` and stays the keyword in Python; its type decides what may be written behind it.
Other fields are for Python only.

Thread: any.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import KW_ONLY, MISSING, dataclass
from typing import Any, Literal, TypeVar, cast  # values of options, of any type

from .errors import InvalidOption

Names = Literal[
    "", "array", "dict", "keras model", "model", "keras model or model", "version", "version or label", "label"
]
"""What the word behind an option names; tab completion offers such words."""

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_KEY = "tfserve_nb option"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command.

    A `bool` is a switch: `--name` makes it true, `--no-name` false. Numbers and tuples of numbers are read as such;
    everything else is text.

    Attributes:
        meaning: one line for help and documents, with `code` in backticks.
        field: the name of its field.
        type: the type of its field.
        default: the default of its field; `MISSING` for an argument that must be given.
        shown: the default in words, where the value itself does not show it.
        flags: how it is written, if not `--its-name`; the first one stands in documents, the others are aliases.
        is_positional: whether it is a word alone, without a flag.
        metavar: stands for its value.
        choices: all values; empty for any.
        parse: turns a word into a value, where the type does not determine it; raises `ValueError`.
        bare: its value when no word follows; None if one must.
        num_values: how many words follow.
        names: what its word names; arrays and dicts are variables of the user.
        is_python_only: whether it is a keyword in Python, and no option of a magic or command line.
    """

    meaning: str
    _: KW_ONLY
    field: str = ""
    type: Any = str
    default: Any = None
    shown: str = ""
    flags: tuple[str, ...] = ()
    is_positional: bool = False
    metavar: str | tuple[str, ...] = ""
    choices: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    bare: Any = None
    num_values: int = 1
    names: Names = ""
    is_python_only: bool = False

    @property
    def is_variable(self) -> bool:
        """Whether its word names a variable of the user."""
        return self.names in ("array", "dict")

    @property
    def is_switch(self) -> bool:
        """Whether it stands without a value."""
        return bool in _members(self.type)

    @property
    def written(self) -> tuple[str, ...]:
        """Its flags; empty for a positional argument."""
        return () if self.is_positional else self.flags or (f"--{self.field.replace('_', '-')}",)

    @property
    def usage(self) -> str:
        """How it is written in full, such as `--canary PERCENT`."""
        if self.is_switch:
            return self.written[0]
        word = "|".join(self.choices) or self.metavar or _reading(self.type)[1] or self.field.upper()
        words = " ".join([word] * self.num_values if isinstance(word, str) else word)
        return " ".join((*self.written[:1], words if self.bare is None else f"[{words}]"))

    @property
    def default_text(self) -> str:
        """What holds when it is not given, in words; empty when there is no default to show."""
        if self.is_switch:
            return "off"
        if self.shown or self.default in (MISSING, None, ()):
            return self.shown
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def for_argparse(self) -> tuple[tuple[str, ...], dict[str, Any]]:
        """What `ArgumentParser.add_argument` takes. An option that is not given sets nothing."""
        is_said = self.default_text not in ("", "off", "none")
        text = f"{self.meaning}; default: {self.default_text}" if is_said else self.meaning
        settings: dict[str, Any] = {"help": text.replace("`", "").replace("%", "%%"), "default": argparse.SUPPRESS}
        if not self.is_positional:
            settings["dest"] = self.field
        if self.is_switch:
            is_negative = self.written[0].startswith("--no-")
            return self.written, {**settings, "action": "store_const", "const": not is_negative}
        parse, metavar = _reading(self.type)
        settings["type"] = self.parse or parse
        if self.choices:
            settings["choices"] = self.choices
        else:
            settings["metavar"] = self.metavar or metavar or self.field.upper()
        if self.bare is not None:
            settings |= {"nargs": "?", "const": self.bare}
        elif self.num_values > 1:
            settings["nargs"] = self.num_values
        elif self.is_positional and self.default is not MISSING:
            settings["nargs"] = "?"
        return self.written or (self.field,), settings


def option(default: Any, meaning: str, **about: Any) -> Any:
    """A dataclass's field that is an option of a command.

    Args:
        default: its value when it is not given; `MISSING` for an argument that must be.
        meaning: one line, with `code` in backticks.
        **about: attributes of `Option`.
    """
    return dataclasses.field(default=default, metadata={_KEY: Option(meaning, default=default, **about)})


def command_options(*kinds: type[Any]) -> tuple[Option, ...]:
    """The options that dataclasses declare for magics and command lines, in order."""
    return tuple(one for one in options_of(*kinds) if not one.is_python_only)


def options_of(*kinds: type[Any]) -> tuple[Option, ...]:
    """All options that dataclasses declare, in order."""
    return tuple(
        dataclasses.replace(field.metadata[_KEY], field=field.name, type=hints[field.name])
        for kind in kinds
        for hints in [typing.get_type_hints(kind)]
        for field in dataclasses.fields(kind)
        if _KEY in field.metadata
    )


def takes(*kinds: type[Any]) -> Callable[[F], F]:
    """Let a function that takes `**options` show those of dataclasses as its keywords, and take no others.

    Tab, Shift-Tab and `help` show them; another keyword raises `InvalidOption`, which names those that there are.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [known for known in signature.parameters.values() if known.kind is not inspect.Parameter.VAR_KEYWORD]
        keywords = [
            inspect.Parameter(
                declared.field, inspect.Parameter.KEYWORD_ONLY, default=declared.default, annotation=declared.type
            )
            for declared in options_of(*kinds)
        ]
        keyword_only = [one for one in (*keywords, *own) if one.kind is inspect.Parameter.KEYWORD_ONLY]
        listed = [one.name for one in keyword_only]
        taken = {*listed, *(one.name for one in own)}

        @functools.wraps(function)
        def checked(*args: Any, **options: Any) -> Any:
            unknown = next((name for name in options if name not in taken), None)
            if unknown is not None:
                close = difflib.get_close_matches(unknown, taken, n=1)
                raise InvalidOption(
                    f"{function.__name__} has no option {unknown!r}; it has {', '.join(listed)}",
                    hint=f"{close[0]}=..." if close else "",
                )
            return function(*args, **options)

        vars(checked)["__signature__"] = signature.replace(parameters=[*own, *keywords])
        return cast("F", checked)

    return decorate


def add_options(parser: argparse.ArgumentParser, *kinds: type[Any]) -> None:
    """Let a command line take the options that dataclasses declare; `read` reads them."""
    for declared in command_options(*kinds):
        names, settings = declared.for_argparse()
        parser.add_argument(*names, **settings)


def given(parsed: argparse.Namespace, *kinds: type[Any]) -> dict[str, Any]:
    """The values that a parsed line gives to the options of dataclasses, by field."""
    names = (field.name for kind in kinds for field in dataclasses.fields(kind) if _KEY in field.metadata)
    return {name: getattr(parsed, name) for name in names if hasattr(parsed, name)}


def read(kind: type[T], parsed: argparse.Namespace, **defaults: Any) -> T:
    """A dataclass from a parsed line.

    Args:
        kind: the dataclass.
        parsed: the line.
        **defaults: values for fields that the line does not give, instead of the dataclass's own.

    Raises:
        InvalidOption: as the dataclass does, for a value that is not allowed.
    """
    return kind(**{**defaults, **given(parsed, kind)})


def version_or_label(text: str) -> int | str:
    """`3` is a version, everything else a label."""
    return int(text) if text.isdecimal() else text


def number_or_auto(text: str) -> int | str:
    """`auto` as it is, everything else as a whole number.

    Raises:
        ArgumentTypeError: if it is neither.
    """
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number or auto") from None


def numbers(text: str) -> tuple[float, ...]:
    """`1,5,25` as a tuple.

    Raises:
        ArgumentTypeError: if a part is no number.
    """
    return _split(text, float, "numbers")


def whole_numbers(text: str) -> tuple[int, ...]:
    """`1,8,64` as a tuple.

    Raises:
        ArgumentTypeError: if a part is no whole number.
    """
    return _split(text, int, "whole numbers")


def _split(text: str, kind: Callable[[str], Any], what: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be {what} with commas between them") from None


def _members(hint: Any) -> tuple[Any, ...]:
    """The types that a type hint allows."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if is_union else (hint,)


def _reading(hint: Any) -> tuple[Callable[[str], Any], str]:
    """How a word becomes a value of this type, and what stands for it in help; "" where the type gives none."""
    for member in _members(hint):
        if member is int:
            return int, "N"
        if member is float:
            return float, "X"
        if typing.get_origin(member) is tuple:
            is_whole = typing.get_args(member)[0] is int
            return (whole_numbers, "N,N,...") if is_whole else (numbers, "X,X,...")
    return str, ""
