"""The options of the magics: parsing, and turning words into the user's objects.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar  # IPython's decorators and the user's namespace are untyped

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, magic_arguments

F = TypeVar("F", bound=Callable[..., Any])

_NUMBERS = re.compile(r"-[\d.][\d.eE+-]*(,[\d.eE+-]+)+")
_BARE_OPTION = re.compile(r"--[a-z0-9-]+")


def sizes(text: str) -> tuple[int, ...]:
    """`1,8,64` as a tuple of integers."""
    return tuple(int(part) for part in text.split(",") if part.strip())


GATE_OPTIONS = (
    argument("--check-replay", action="store_true", help="replay captured requests first; deploy only if it keeps up"),
    argument(
        "--max-disagreement", type=float, metavar="SHARE", help="rows that it may answer differently; default: 0.01"
    ),
    argument("--max-slowdown", type=float, metavar="SHARE", help="how much slower it may be; default: 0.25 (25 %%)"),
)

DEPLOY_OPTIONS = (
    argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="variable with the model, or path of a SavedModel; default: the last expression of the cell",
    ),
    argument("--name", "-n", help="name to serve it under; default: the variable's"),
    argument("--version", type=int, help="version number; default: the next free one"),
    argument("--label", help="point this label, such as stable, to the new version"),
    argument("--stage", action="store_true", help="load it, but give it no traffic"),
    argument("--canary", type=float, metavar="PERCENT", help="give it this share of the traffic; the rest stays"),
    argument(
        "--shadow",
        type=float,
        nargs="?",
        const=100.0,
        metavar="PERCENT",
        help="give it no traffic, but copies of this share of the requests; default: of all",
    ),
    argument("--base-path", metavar="FOLDER", help="where NAME/VERSION is written; default: tfserve_models"),
    argument("--port", type=int, help="TCP port when the server starts; default: a free one"),
    argument("--grpc-port", type=int, help="TCP port for gRPC, 0 for a free one; default: no gRPC"),
    argument(
        "--workers",
        "--frontends",
        type=int,
        metavar="N",
        help="processes that take HTTP, gRPC and decoding off the server's hands; default: 0",
    ),
    argument("--isolate", action="store_true", help="serve it in a process of its own, for kernels that are busy"),
    argument("--max-batch-size", type=int, metavar="ROWS", help="most rows of one run; default: 64"),
    argument("--batch-timeout-micros", type=int, metavar="MICROS", help="let a request wait for company; default: 0"),
    argument(
        "--max-enqueued-batches", type=int, metavar="N", help="batches that may wait; more is rejected; default: 100"
    ),
    argument(
        "--allowed-batch-sizes", type=sizes, metavar="N,N,...", help="sizes to pad batches to; default: powers of two"
    ),
    argument("--device", help="TensorFlow device, such as /CPU:0"),
    argument("--optimize", metavar="HOW", help="xla: compile the graph, for each size of a batch"),
    argument("--warmup", metavar="VAR", help="variable with rows to warm up with"),
    argument("--check", metavar="VAR", help="variable with rows to compare the exported with the live model on"),
    argument("--keep", type=int, metavar="N", help="versions that stay loaded for rollback; default: 2"),
    *GATE_OPTIONS,
    argument("--data", metavar="VAR", help="variable with the training data; a fingerprint of it is stored"),
    argument("--metrics", metavar="VAR", help="variable with a dict of numbers; default: the last epoch's of fit"),
    argument("--seed", type=int, help="seed of the training; default: that of keras.utils.set_random_seed"),
    argument("--no-provenance", action="store_true", help="store no cell text, commit and versions with the model"),
    argument(
        "--slo-p99-ms", type=float, metavar="MS", help="go back by itself when more than 1 %% of the answers are slower"
    ),
    argument("--out", "-o", metavar="NAME", help="variable to bind the handle to"),
    argument("--no-auth", action="store_true", help="start the server without a token"),
    argument("--quiet", "-q", action="store_true", help="show no progress"),
)


def with_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """IPython's `@magic_arguments()` and a list of `@argument`s in one decorator, typed."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        decorated: F = magic_arguments()(function)
        return decorated

    return decorate


def parse(magic: Any, line: str) -> argparse.Namespace | None:
    """Parse the line of a magic, with shell quoting and `# comments`.

    Args:
        magic: the decorated method.
        line: what stands behind the magic's name.

    Returns:
        The options; None when help was asked for and shown.

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
    options: argparse.Namespace = magic.parser.parse_args(_with_negative_numbers(words))
    return options


def _with_negative_numbers(words: list[str]) -> list[str]:
    """`--range -1,1` as `--range=-1,1`: argparse takes several numbers that begin with a minus for an option."""
    joined: list[str] = []
    for word in words:
        if _NUMBERS.fullmatch(word) and joined and _BARE_OPTION.fullmatch(joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def variable(word: str) -> str:
    """The name after `--out`.

    Raises:
        UsageError: if no variable can be called so.
    """
    if not word.isidentifier():
        raise UsageError(f"--out {word!r} is no variable name")
    return word


def look_up(namespace: Mapping[str, Any], word: str, what: str) -> Any:
    """The object that a word names: a variable, or an attribute of one, such as `trainer.model`. Never evaluated.

    Raises:
        UsageError: naming the word and close matches.
    """
    first, *attributes = word.split(".")
    if first not in namespace:
        raise UsageError(f"{what} {word!r}: there is no variable {first!r}{_close(first, namespace)}")
    value = namespace[first]
    for attribute in attributes:
        if not hasattr(value, attribute):
            raise UsageError(f"{what} {word!r}: {type(value).__name__} has no attribute {attribute!r}")
        value = getattr(value, attribute)
    return value


def look_up_model(namespace: Mapping[str, Any], word: str) -> Any:
    """The model that a word names: a variable, or else the path of a SavedModel."""
    if word.split(".", maxsplit=1)[0] in namespace:
        return look_up(namespace, word, "MODEL")
    if Path(word).expanduser().exists():
        return Path(word).expanduser()
    return look_up(namespace, word, "MODEL")


def _close(word: str, namespace: Mapping[str, Any]) -> str:
    import difflib

    names = [name for name in namespace if not name.startswith("_")]
    close = difflib.get_close_matches(word, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
