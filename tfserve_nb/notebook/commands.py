"""The options of the magics beside those that they share with Python and the command line.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from IPython.core.error import UsageError

from ..options import option, version_or_label
from ..serving.engines.kinds import NAMES


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
        "variable with the model, path of a SavedModel, or models:/NAME@ALIAS of MLflow",
        shown="the last expression of the cell",
        is_positional=True,
        metavar="MODEL",
        names="keras model",
    )
    name: str | None = option(
        None, "the name that clients use", shown="the variable's name", flags=("--name", "-n"), names="model"
    )


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """What `%variants` measures."""

    model: str | None = option(
        None,
        "variable with the model, name of a served model, or path of a SavedModel",
        shown="the model that is served",
        is_positional=True,
        metavar="MODEL_OR_NAME",
        names="keras model or model",
    )
    version: int | str | None = option(
        None,
        "of a served model: the version or label",
        metavar="VERSION",
        shown="the one that answers",
        parse=version_or_label,
        names="version or label",
    )


@dataclass(frozen=True, slots=True)
class Output:
    """Where a magic's result goes.

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
    base_path: str | None = option(None, "where the models lie", metavar="FOLDER", shown="`tfserve_models`")
    diff: tuple[int | str, int | str] | None = option(
        None, "what two versions differ in", metavar=("A", "B"), num_values=2, parse=version_or_label, names="version"
    )
    values: str | None = option(
        None, "with `--diff`: variable with rows to send to both versions", metavar="VAR", names="array"
    )
    capture: str | None = option(
        None, "keep requests for %replay; stop; drop them; show the state", choices=("on", "off", "clear", "?")
    )
    engine: str | None = option(
        None, "let another engine run it, while it goes on answering", choices=NAMES, shown="as it is"
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
    force: bool = option(False, "remove them although another process serves them")


@dataclass(frozen=True, slots=True)
class ReplayedRequests:
    """What `%replay` sends."""

    requests: int | None = option(None, "only the newest N", shown="all")
    source: str | None = option(None, "replay the requests of this file", flags=("--from",), metavar="FILE")
    save: str | None = option(None, "write the replayed requests as Parquet", metavar="FILE")


@dataclass(frozen=True, slots=True)
class TestedVersions:
    """The two versions of `%abtest`."""

    a: int | str | None = option(
        None,
        "the current version, a number or a label",
        metavar="VERSION",
        parse=version_or_label,
        names="version or label",
    )
    b: int | str | None = option(
        None, "the candidate", metavar="VERSION", parse=version_or_label, names="version or label"
    )


@dataclass(frozen=True, slots=True)
class AskOptions:
    """The requests that `%abtest` sends itself."""

    values: str | None = option(
        None, "variable with rows to send to the model until there is a verdict", metavar="VAR", names="array"
    )
    rate: float | None = option(None, "with rows: requests per second", metavar="PER_S", shown="8 clients in turn")
    seconds: float | None = option(None, "with rows: the longest time", metavar="S", shown="60")


@dataclass(frozen=True, slots=True)
class EndOptions:
    """How `%abtest` ends a running experiment.

    Raises:
        UsageError: if more than one way is given.
    """

    stop: bool = option(False, "end the running experiment, A gets all traffic")
    promote: bool = option(False, "end it, B gets all traffic")
    rollback: bool = option(False, "end it, A gets all traffic")

    def __post_init__(self) -> None:
        if len(self._ways) > 1:
            raise UsageError(f"--{self._ways[0]} and --{self._ways[1]} exclude each other")

    @property
    def how(self) -> str | None:
        """`stop`, `promote` or `rollback`; None when it goes on."""
        return self._ways[0] if self._ways else None

    @property
    def _ways(self) -> list[str]:
        return [how for how in ("stop", "promote", "rollback") if getattr(self, how)]
