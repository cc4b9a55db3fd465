"""A replay: its options and limits, and its result with the verdict.

Thread: any; immutable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, replace
from typing import Any  # JSON, DataFrames

import numpy as np

from ..agreement.kinds import AgreementOptions
from ..agreement.result import Agreement, Disagreement
from ..bench.comparison import Effect
from ..bench.statistics import Percentile, Summary
from ..errors import InvalidOption
from ..experiment.state import Verdict
from ..options import option
from ..serialization import to_json

PROTOCOLS = ("json", "binary", "grpc")
MAX_DISAGREEMENT = 0.01
MAX_SLOWDOWN = 0.25
MAX_ERRORS = 0.0
JUDGED = (0.5, 0.95)
"""The percentiles that a version is judged by; p99 is shown, but chance moves it too much."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How captured requests are replayed.

    Attributes:
        onto: the version that gets them.
        against: the version that gets them too, for comparison; None for the one that answered most of them, or else
            the one that answers now.
        speed: how much faster than they came; 2 halves all gaps.
        seconds: the newest requests that take at most that long, at `speed`; None for all.
        tolerance: as `AgreementOptions`.
        protocol: one of `PROTOCOLS`.
        timeout_s: how long a request may take.
        kind: as `AgreementOptions`.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    onto: int = option(
        MISSING,
        "the version that gets the captured requests; must be loaded (`--stage`)",
        metavar="VERSION",
        names="version",
    )
    against: int | None = option(
        None,
        "the version that gets them too, to compare with",
        metavar="VERSION",
        shown="the version that answered most of them",
        names="version",
    )
    speed: float = option(1.0, "how much faster than they came; 2 halves all gaps")
    seconds: float | None = option(
        None, "only the newest that take at most that long, at `--speed`", metavar="S", shown="all"
    )
    tolerance: float | None = None
    protocol: str = option("json", "how they are sent, whatever they came by", choices=PROTOCOLS)
    timeout_s: float = 10.0
    kind: str | None = None

    def __post_init__(self) -> None:
        for what, version in (("onto", self.onto), ("against", self.against)):
            if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
                raise InvalidOption(f"{what}={version!r} must be a version number", hint="--onto 4")
        for what in ("speed", "seconds", "timeout_s"):
            check_number(what, getattr(self, what), 0.001)
        self.agreement  # noqa: B018 - checks kind and tolerance
        if self.protocol not in PROTOCOLS:
            raise InvalidOption(f"protocol={self.protocol!r} must be one of {', '.join(PROTOCOLS)}")

    @property
    def agreement(self) -> AgreementOptions:
        """How outputs are compared."""
        return AgreementOptions(self.kind, self.tolerance)


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """The limits that a new version must keep in a replay before a deploy switches to it.

    Attributes:
        max_errors: share of the requests that may fail, beyond those that fail with the version that answers now.
        requests: the newest requests that are replayed.
        seconds: how long their replay may take; fewer requests otherwise.
        speed: as `ReplayOptions`.
        tolerance: as `AgreementOptions`.
        protocol: as `ReplayOptions`.
        kind: as `AgreementOptions`.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    max_disagreement: float = option(
        MAX_DISAGREEMENT, "with `--check-replay`: share of the rows on which it may disagree", metavar="SHARE"
    )
    max_slowdown: float = option(
        MAX_SLOWDOWN,
        "with `--check-replay`: how much longer p50 and p95 may take than with the version that answers now; 0.25 is "
        "25 %",
        metavar="SHARE",
    )
    max_errors: float = MAX_ERRORS
    requests: int = 1000
    seconds: float = 20.0
    speed: float = 1.0
    tolerance: float | None = None
    protocol: str = "json"
    kind: str | None = None

    def __post_init__(self) -> None:
        for what in ("max_disagreement", "max_slowdown", "max_errors"):
            check_number(what, getattr(self, what), 0.0)
        if isinstance(self.requests, bool) or not isinstance(self.requests, int) or self.requests < 1:
            raise InvalidOption(f"requests={self.requests!r} must be an integer of at least 1")
        self.options(0)  # checks the rest

    def options(self, onto: int, against: int | None = None) -> ReplayOptions:
        """The replay that these limits are about."""
        return ReplayOptions(onto, against, self.speed, self.seconds, self.tolerance, self.protocol, kind=self.kind)


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result of sending captured requests to a version.

    Attributes:
        name: the model.
        onto: the version that got them.
        against: the version that it is compared with, None when no other is loaded; `onto` itself, when it answered
            the requests.
        protocol: how they were sent.
        speed: how much faster than they came.
        num_requests: how many.
        num_rows: rows of them.
        seconds: the length of the schedule.
        num_shortened: gaps that were shortened, because no request came for longer than a second.
        agreement: output name -> how it compares with what was recorded; empty when nothing could be compared.
        failures: error message of the version -> how many requests got it.
        disagreements: the rows that differ most, the worst first.
        num_reasked: requests whose inputs were redacted, so that `against` ran them too.
        recorded: percentiles of the latencies that the server noted when the requests came.
        a: the load with `against`; None when there was none.
        b: the load with `onto`.
        effects: how the latencies of B relate to A's: `Effect`s of the percentiles with enough requests.
        environment: machine and versions.
        interrupted: whether it was interrupted; only complete rounds count then.
        at: when it began, seconds since the epoch.
        run: its number in the history, or None when it was not stored.
        requests: column -> one value for each request, `(n,)`; see `to_dataframe`.
    """

    name: str
    onto: int
    against: int | None
    protocol: str
    speed: float
    num_requests: int
    num_rows: int
    seconds: float
    num_shortened: int
    agreement: Agreement
    failures: Mapping[str, int]
    disagreements: tuple[Disagreement, ...] = field(repr=False)
    num_reasked: int
    recorded: tuple[Percentile, ...]
    a: Summary | None
    b: Summary
    effects: tuple[Effect, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False
    at: float = field(default_factory=time.time)
    run: int | None = None
    requests: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """One line: what was replayed."""
        number = "" if self.run is None else f"replay {self.run}: "
        beside = "" if self.a is None else f" beside version {self.against}"
        speed = "" if self.speed == 1 else f" at {self.speed:g} times the speed"
        return f"{number}{self.num_requests:,} captured requests onto {self.name} version {self.onto}{beside}{speed}"

    @property
    def disagreement(self) -> float:
        """The share of the rows that disagree; NaN when none could be compared."""
        return 1 - self.agreement.share

    @property
    def slowdown(self) -> float:
        """How much longer B's judged percentiles take at worst (0.1: 10 %); NaN when it could not be compared."""
        return max((one.ratio - 1 for one in self.effects if one.quantile in JUDGED), default=math.nan)

    @property
    def error_share(self) -> float:
        """The share of B's requests that failed, under load or in the pass that compares outputs."""
        return max(_share_of_errors(self.b), sum(self.failures.values()) / max(1, self.num_requests))

    def problems(
        self,
        max_disagreement: float = MAX_DISAGREEMENT,
        max_slowdown: float = MAX_SLOWDOWN,
        max_errors: float = MAX_ERRORS,
    ) -> tuple[str, ...]:
        """The limits that the version breaks, in words with the numbers; empty when it keeps them."""
        found = []
        allowed_errors = max_errors + (0.0 if self.a is None else _share_of_errors(self.a))
        if self.error_share > allowed_errors:
            why = next(iter([*self.failures, *self.b.reasons.values(), *self.b.errors]), "no reason was given")
            found.append(f"it failed {_percent(self.error_share)} of the requests ({why[:200]})")
        if not self.agreement and not self.failures:
            found.append("its outputs could not be compared: the inputs are redacted, and no other version runs")
        elif self.agreement and self.disagreement > max_disagreement:
            share = _percent(self.disagreement)
            found.append(
                f"it disagrees on {share} of {self.agreement.num_rows:,} rows, allowed are {_percent(max_disagreement)}"
            )
        found += [
            f"its p{100 * effect.quantile:g} takes {effect.ratio:.2f} times as long as version {self.against}'s "
            f"[{effect.low:.2f}, {effect.high:.2f}], allowed is {1 + max_slowdown:.2f} times"
            for effect in self.effects
            if effect.quantile in JUDGED and effect.ratio > 1 + max_slowdown and effect.low > 1
        ]
        return tuple(found)

    def passed(
        self,
        max_disagreement: float = MAX_DISAGREEMENT,
        max_slowdown: float = MAX_SLOWDOWN,
        max_errors: float = MAX_ERRORS,
    ) -> bool:
        """Whether the version keeps the limits.

        Args:
            max_disagreement: share of the rows that may disagree.
            max_slowdown: how much longer p50 and p95 may take than with `against`; it counts as slower only when the
                95 % interval of the ratio says so too.
            max_errors: share of the requests that may fail, beyond those that fail with `against`.
        """
        return not self.interrupted and not self.problems(max_disagreement, max_slowdown, max_errors)

    @property
    def verdict(self) -> Verdict:
        """The verdict with the default limits."""
        version = f"version {self.onto}"
        problems = self.problems()
        if problems:
            return Verdict(f"{version} should not take over: {'; '.join(problems)}", "rollback")
        if self.interrupted:
            return Verdict("not yet: the replay was interrupted", "wait")
        rows = self.agreement.num_rows
        share = "all" if self.disagreement == 0 else _percent(1 - self.disagreement)
        agrees = f"agrees on {share} of {rows:,} rows"
        if not self.agreement.is_compared:
            agrees = f"answers {rows:,} rows, which are not compared since answers differ each time,"
        return Verdict(f"{version} {agrees}{self._speed_in_words()}: it can take over", "promote")

    def _speed_in_words(self) -> str:
        if self.a is None:
            return ", its latency was not compared with another version's"
        judged = [one for one in self.effects if one.quantile in JUDGED]
        if not judged:
            return f", there were too few requests to compare its latency with version {self.against}'s"
        worst = max(judged, key=lambda effect: effect.ratio)
        is_sure = max(one.high for one in judged) <= 1 + MAX_SLOWDOWN
        shown = f"by more than {_percent(MAX_SLOWDOWN)}" if is_sure else "as far as this machine could tell"
        return (
            f" and is not slower than version {self.against} {shown} "
            f"(p{100 * worst.quantile:g} × {worst.ratio:.2f} [{worst.low:.2f}, {worst.high:.2f}])"
        )

    def to_dataframe(self) -> Any:
        """Every request as a row of a pandas DataFrame.

        Returns:
            Columns `request` (the number that it was captured under), `due_s` (seconds from the start), `num_rows`,
            `recorded_ms`, `a_ms`, `b_ms` (NaN for a request that failed), `b_status` (text, `ok` for success),
            `num_different` (rows; -1 when they could not be compared), `difference` (the largest).

        Raises:
            InvalidOption: without pandas.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise InvalidOption("to_dataframe() needs pandas", hint="pip install pandas, or use r.requests") from error
        return pd.DataFrame(dict(self.requests))

    def stored(self) -> dict[str, Any]:
        """The JSON value that the history stores: no inputs, no outputs, no single requests."""
        kept = to_json(replace(self, disagreements=(), requests={}, run=None))
        return {**kept, "verdict": str(self.verdict), "decision": self.verdict.decision}


def check_number(what: str, value: float | None, lowest: float) -> None:
    """Refuse values other than a finite number of at least `lowest`, or None."""
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not lowest <= value < math.inf:
        raise InvalidOption(
            f"{what}={value!r} must be a number of at least {lowest:g}", hint=f"--{what.replace('_', '-')} 1"
        )


def _share_of_errors(summary: Summary) -> float:
    return summary.num_errors / max(1, summary.num_due)


def _percent(share: float) -> str:
    """Such as `0.4 %`; never 0 % for what is more."""
    return f"{100 * share:.3g} %"
