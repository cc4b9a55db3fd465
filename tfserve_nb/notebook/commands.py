"""What the magics may be given, beside the options that they share with Python and the command line.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from IPython.core.error import UsageError

from ..options import option, version_or_label


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model that a magic is about."""

    name: str | None = option(
        None, "the model; may be left out when only one is served", is_positional=True, metavar="NAME", names="model"
    )


@dataclass(frozen=True, slots=True)
class DeployedModel:
    """What `%deploy` deploys."""

    model: str | None = option(
        None,
        "variable with the model, or path of a SavedModel",
        shown="the last expression of the cell",
        is_positional=True,
        metavar="MODEL",
    )
    name: str | None = option(
        None, "the name that clients use", shown="the variable's name", flags=("--name", "-n"), names="model"
    )


@dataclass(frozen=True, slots=True)
class Output:
    """What becomes of a magic's result.

    Raises:
        UsageError: if no variable can be called so.
    """

    out: str | None = option(None, "variable for the result", flags=("--out", "-o"), metavar="NAME", shown="none")
    quiet: bool = option(False, "show neither progress nor result", flags=("--quiet", "-q"))

    def __post_init__(self) -> None:
        if self.out is not None and not self.out.isidentifier():
            raise UsageError(f"--out {self.out!r} is no variable name")


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """What `%serving` shows, brings back or captures.

    Raises:
        UsageError: for options that do not go together.
    """

    resume: bool = option(False, "serve again what an earlier kernel served")
    isolate: bool = option(False, "with `--resume`: serve it in a process of its own")
    base_path: str | None = option(None, "where the models lie", metavar="FOLDER", shown="tfserve_models")
    diff: tuple[int | str, int | str] | None = option(
        None,
        "what two versions differ in",
        metavar=("A", "B"),
        num_values=2,
        parse=version_or_label,
        names="version",
    )
    values: str | None = option(
        None, "with `--diff`: variable with rows to ask both versions with", metavar="VAR", names="array"
    )
    capture: str | None = option(
        None,
        "keep requests for %replay; stop; drop them; how it is",
        choices=("on", "off", "clear", "?"),
    )
    redact: str | None = option(None, "with `--capture on`: inputs that are kept as zeros", metavar="INPUT,...")

    def __post_init__(self) -> None:
        if self.redact is not None and self.capture != "on":
            raise UsageError("--redact goes with --capture on")


@dataclass(frozen=True, slots=True)
class RollbackOptions:
    """Where `%rollback` goes."""

    to: int | None = option(None, "the version to go back to", metavar="VERSION", names="version")


@dataclass(frozen=True, slots=True)
class PromotedVersion:
    """What `%promote` gives all traffic to."""

    name: str = option(MISSING, "the model", is_positional=True, metavar="NAME", names="model")
    version: int = option(
        MISSING, "the version that gets all traffic", is_positional=True, metavar="VERSION", names="version"
    )


@dataclass(frozen=True, slots=True)
class UndeployOptions:
    """What `%undeploy` takes away."""

    version: int | None = option(None, "unload only this version", names="version")
    delete: bool = option(False, "remove the files too")
