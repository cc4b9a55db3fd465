"""The options of a deploy, in groups; each is a keyword of `deploy` and an option of `%deploy`.

Thread: any; immutable.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any  # arrays of the user

from ..agreement.kinds import ASKED_KINDS, AgreementOptions
from ..errors import InvalidOption
from ..experiment.plan import Limits
from ..export.variants.variants import VARIANTS, check_possible, check_variant
from ..options import option, read
from ..replay.result import ReplayLimits
from ..serving.batching.options import BatchingOptions
from ..serving.engines.engine import AUTO, TENSORFLOW
from ..serving.engines.kinds import NAMES, check_engine, check_installed
from ..serving.models.placement import Placement
from .servers import ListenOptions

DERIVED = AgreementOptions()
"""How outputs are compared when nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What is written, and where.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    version: int | None = option(None, "the version's number", shown="one more than the newest on disk")
    base_path: str | Path | None = option(
        None, "where models are exported to, as `FOLDER/NAME/VERSION`", metavar="FOLDER", shown="`tfserve_models`"
    )
    optimize: str | None = option(
        None,
        "a smaller or faster form of the version, which is deployed only if it answers as the model does; `auto` takes "
        "the best of those that agree on every row of `--check`",
        choices=(*VARIANTS, AUTO),
        shown="`float32`, as it is",
    )
    check: Any = option(
        None,
        "rows on which the export is compared with the live model",
        metavar="VAR",
        shown="those of `--warmup`, or made from the signature",
        names="array",
    )
    warmup: Any = option(
        None,
        "rows to warm up with; stored with the version, where TensorFlow Serving reads them too",
        metavar="VAR",
        shown="made from the signature",
        names="array",
    )
    labels: Any = option(
        None,
        "with `--optimize`: the right answer for each row of `--check`, to compare accuracies",
        metavar="VAR",
        shown="none",
        names="array",
    )

    @property
    def example(self) -> Any:
        """The rows that show what the model takes, and on which the export is compared; None without any."""
        return self.warmup if self.check is None else self.check

    @property
    def example_option(self) -> str:
        """The option that gave them."""
        return "warmup" if self.check is None and self.warmup is not None else "check"

    def __post_init__(self) -> None:
        if self.optimize not in (None, AUTO):
            check_possible(check_variant(self.optimize))
        if self.labels is not None and (self.optimize is None or self.check is None):
            raise InvalidOption(
                "labels are compared with what a variant answers to the rows of check",
                hint="--optimize int8 --check x_test --labels y_test",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What runs the version, and what it must keep.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    device: str | None = option(None, "TensorFlow device, such as `/CPU:0`", shown="TensorFlow's choice")
    engine: str = option(
        TENSORFLOW,
        "what runs it: `auto` takes the fastest engine that agrees with TensorFlow on this machine",
        choices=NAMES,
        shown="`tensorflow`",
    )
    isolate: bool = option(False, "serve it in a process of its own, which a busy kernel cannot slow down")
    slo_p99_ms: float | None = option(
        None,
        "go back by itself when over 1 % of its requests are slower, requests fail, or outputs hold NaN",
        metavar="MS",
        shown="off",
    )
    check_replay: bool | ReplayLimits = option(
        False, "replay captured requests first; deploy only if it agrees and keeps up"
    )
    kind: str | None = option(
        None,
        "with `--check-replay` and `--optimize`: what the outputs are",
        choices=ASKED_KINDS,
        shown="found out from the model",
    )
    tolerance: float | None = option(
        None,
        "with `--check-replay` and `--optimize`: by how much numbers of a regression may differ, relative",
        shown="0.001",
    )

    force: bool = option(
        False, "give it requests although no row that was tried could be run, or the number of a deleted version"
    )

    def __post_init__(self) -> None:
        limits_of(self.check_replay)
        AgreementOptions(self.kind, self.tolerance)
        check_installed(check_engine(self.engine))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceOptions:
    """What is stored in a version about where it comes from."""

    provenance: bool = option(
        True, "store no cell text, commit, packages and layers with the version", flags=("--no-provenance",)
    )
    data: Any = option(
        None,
        "the training data; its fingerprint is stored with the version",
        metavar="VAR",
        shown="none",
        names="array",
    )
    seed: int | None = option(
        None, "the seed that is stored with the version", shown="that of `keras.utils.set_random_seed`"
    )
    metrics: Any = option(
        None,
        "a dict of numbers that is stored with the version",
        metavar="VAR",
        shown="the last epoch of `fit`",
        names="dict",
    )


def limits_of(check_replay: bool | ReplayLimits, compared: AgreementOptions = DERIVED) -> ReplayLimits | None:
    """What `deploy(check_replay=...)` asks for; None for nothing.

    Args:
        check_replay: whether, or with which limits.
        compared: replaces kind and tolerance of the limits.

    Raises:
        InvalidOption: for something else.
    """
    if isinstance(check_replay, bool | ReplayLimits):
        limits = check_replay if isinstance(check_replay, ReplayLimits) else ReplayLimits() if check_replay else None
        return None if limits is None else replace(limits, **_given(compared))
    raise InvalidOption(
        f"check_replay={check_replay!r} must be True or ReplayLimits", hint="ReplayLimits(max_disagreement=0.05)"
    )


def compared_as(export: ExportOptions, serve: ServeOptions) -> AgreementOptions:
    """How outputs are compared, in a replay and with those of a variant.

    Raises:
        InvalidOption: for a kind or a tolerance, if nothing is compared by them.
    """
    compared = AgreementOptions(serve.kind, serve.tolerance)
    if _given(compared) and serve.check_replay is False and export.optimize is None:
        raise InvalidOption(
            f"{' and '.join(_given(compared))} set how outputs are compared, and nothing is replayed or optimized",
            hint="check_replay=True (--check-replay)",
        )
    return compared


def _given(compared: AgreementOptions) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in asdict(compared).items() if value is not None}


def guard_of(slo_p99_ms: float | None, placement: Placement) -> Limits | None:
    """The limits that `deploy(slo_p99_ms=...)` asks for; None for nothing.

    Raises:
        InvalidOption: if the value is not allowed, or the version gets no requests that could be watched.
    """
    if slo_p99_ms is None:
        return None
    if placement.stage or placement.shadow is not None:
        raise InvalidOption(
            f"slo_p99_ms={slo_p99_ms!r} watches requests, and a staged version gets none",
            hint="leave --stage and --shadow out, or use --canary 10",
        )
    return Limits(slo_p99_ms=slo_p99_ms)


def check_options(keywords: Mapping[str, Any]) -> None:
    """Refuse values that `deploy` would refuse, before there is a model.

    Args:
        keywords: of `deploy`; those that are no options of a group are ignored.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """
    parsed = Namespace(**keywords)
    for group in GROUPS:
        read(group, parsed)
    compared_as(read(ExportOptions, parsed), read(ServeOptions, parsed))
    guard_of(keywords.get("slo_p99_ms"), read(Placement, parsed))


GROUPS: tuple[type[Any], ...] = (
    ExportOptions,
    Placement,
    ServeOptions,
    ListenOptions,
    BatchingOptions,
    ProvenanceOptions,
)
"""Their options together are the keywords of `deploy`, beside `code` and `progress`."""
