"""The plan of an experiment: its options and limits, checked once.

Thread: any; immutable.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import KW_ONLY, dataclass, field
from typing import Any  # what a user gave

from ..agreement.kinds import RANDOM, AgreementOptions
from ..errors import InvalidOption
from ..options import option
from ..serialization import HighEnd, LowEnd

ARMS = ("a", "b")
"""The current version and the candidate, in records, metrics and response headers."""
METRICS = ("latency", "p95", "quality")
"""The metrics of a verdict: the time of a run at equal batch sizes, the tail of the latencies, or the share of right
predictions."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that roll a candidate back, whatever the statistics show. None leaves a limit out.

    A limit is breached when `breaches` of the last `windows` windows are bad.

    Attributes:
        slo_p99_ms: 99 % of the candidate's requests shall be answered within this many milliseconds.
        max_error_rate: share of its requests that may fail, 0 to 1.
        allow_nan: whether its outputs may hold NaN or infinity.
        output_range: lowest and highest number that its outputs may hold.
        max_disagreement: share of the copied rows on which its outputs may disagree with the current version's, 0 to 1.
        window_s: seconds of a window.
        windows: how many of the last windows count.
        breaches: how many of them must be bad.
    """

    slo_p99_ms: float | None = option(
        None, "roll back when more than 1 % of B's responses are slower", metavar="MS", shown="no limit"
    )
    max_error_rate: float | None = option(0.05, "roll back when a larger share of B's requests fails", metavar="SHARE")
    allow_nan: bool = option(False, "whether B may predict NaN or infinity", is_python_only=True)
    output_range: tuple[LowEnd, HighEnd] | None = option(
        None, "roll back when B's numbers leave this range", metavar="LOW,HIGH", shown="no limit"
    )
    max_disagreement: float | None = option(
        None,
        "roll back when B disagrees with A on a larger share of the copied rows",
        metavar="SHARE",
        shown="no limit",
    )
    window_s: float = option(5.0, "seconds of a window", is_python_only=True)
    windows: int = option(3, "how many of the last windows count", is_python_only=True)
    breaches: int = option(2, "how many of them must break a limit", is_python_only=True)

    def __post_init__(self) -> None:
        _check("slo_p99_ms", self.slo_p99_ms, 0, math.inf, "--slo-p99-ms 50")
        _check("max_error_rate", self.max_error_rate, 0, 1, "--max-error-rate 0.02")
        _check("max_disagreement", self.max_disagreement, 0, 1, "--max-disagreement 0.1")
        _check("window_s", self.window_s, 0, 3600, "window_s=5")
        counts = (self.breaches, self.windows)
        if not all(type(count) is int for count in counts) or not 1 <= self.breaches <= self.windows <= 100:
            raise InvalidOption(
                f"breaches={self.breaches} of windows={self.windows}: from 1 to 100, and breaches not the larger",
                hint="breaches=2, windows=3",
            )
        if self.output_range is not None:
            self._check_range()

    def _check_range(self) -> None:
        ends: tuple[Any, ...] = self.output_range or ()
        is_range = len(ends) == 2 and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
        if not is_range or not ends[0] < ends[1]:
            raise InvalidOption(
                f"output_range={self.output_range!r} must be two numbers, the lower one first",
                hint="--output-range=0,1",
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment: version B of a model compared with version A.

    Attributes:
        name: the model.
        a: the current version, which clients get after a rollback.
        b: the candidate.
        split: percent of the requests that B gets, those that name neither version nor label; 0 compares by copies
            alone.
        steps: percents that B gets one after the other instead of `split`, increasing, such as `(1, 5, 25, 50)`. A last
            step of 100 is the promotion itself: it sets `auto_promote` and is left out.
        hold_s: seconds that each step lasts at least.
        shadow: percent of the requests that are copied to the other version, to compare outputs; clients never get
            those predictions. Both versions get copies, so that neither runs in busier moments than the other.
        key: the header (gRPC: metadata) whose value keeps a client with its version.
        metric: what the verdict is about, one of `METRICS`.
        margin: how much worse B may be and still count as not worse, relative (0.05 is 5 %).
        alpha: probability of a wrong verdict that is accepted, over the whole experiment, however often you look.
        limits: hard limits.
        auto_promote: whether B gets everything by itself once it passed.
        auto_rollback: whether A gets everything by itself when B is harmful.
        kind: as `AgreementOptions`, for the copied rows.
        tolerance: as `AgreementOptions`.
        salt: decides together with a key who gets which version; new for every experiment.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    name: str
    a: int
    b: int
    _: KW_ONLY
    split: float = option(50.0, "percent of the requests that B gets; 0 compares by copies alone", metavar="PERCENT")
    steps: tuple[float, ...] = option(
        (), "percents that B gets one after the other; a last 100 promotes", metavar="P,P,...", shown="none"
    )
    hold_s: float = option(
        30.0, "with `--steps`: the least time of each", flags=("--hold",), metavar="SECONDS", shown="30 s"
    )
    shadow: float = option(
        20.0, "percent of the requests that are copied to the other version, to compare outputs", metavar="PERCENT"
    )
    key: str = option(
        "x-tfserve-key", "the header (gRPC: metadata) whose value keeps a client with its version", metavar="HEADER"
    )
    metric: str = option("latency", "what the verdict is about", choices=METRICS)
    margin: float = option(0.05, 'how much worse B may be and still be "not worse", relative')
    alpha: float = option(0.05, "accepted probability of a wrong verdict, over the whole experiment")
    limits: Limits = field(default_factory=Limits)
    auto_promote: bool = option(False, "give B everything once it passed")
    auto_rollback: bool = option(
        True, "watch, but leave it to a person to give A everything when B is harmful", flags=("--no-rollback",)
    )
    kind: str | None = None
    tolerance: float | None = None
    salt: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        for what, version in (("a", self.a), ("b", self.b)):
            if isinstance(version, bool) or not isinstance(version, int) or version < 0:
                raise InvalidOption(f"{what}={version!r} must be a version number", hint="--a 1 --b 2")
        if self.a == self.b:
            raise InvalidOption(
                f"a and b are both version {self.a}: an experiment compares two",
                hint="deploy a second version with --stage, then --b ITS_NUMBER",
            )
        _check("split", self.split, 0, 100, "--split 50")
        _check("shadow", self.shadow, 0, 100, "--shadow 20")
        _check("margin", self.margin, 1e-4, 10, "--margin 0.05")
        _check("alpha", self.alpha, 1e-6, 0.5, "--alpha 0.05")
        _check("hold_s", self.hold_s, 0, 7 * 86400, "--hold 30")
        for step in self.steps:
            _check("steps", step, 1e-3, 100, "--steps 1,5,25,50")  # a step without requests is never passed
        if list(self.steps) != sorted(set(self.steps)):
            raise InvalidOption(f"steps={self.steps!r} must increase", hint="--steps 1,5,25,50")
        if self.steps and self.steps[-1] == 100:
            self._promote_at_the_end()
        if self.metric not in METRICS:
            raise InvalidOption(f"metric={self.metric!r} must be one of {', '.join(METRICS)}", hint="--metric latency")
        if not self.key or any(char.isspace() or char == ":" for char in self.key):
            raise InvalidOption(f"key={self.key!r} must be the name of a header", hint="--key X-User-Id")
        self.agreement  # noqa: B018 - checks kind and tolerance
        self._check_copies()

    def _check_copies(self) -> None:
        """Refuse a plan without copies that gives B nothing, or that limits what only copies show."""
        if not self.first_percent and not self.shadow:
            raise InvalidOption("split=0 and shadow=0: B would get nothing", hint="--split 50, or --shadow 20")
        if self.limits.max_disagreement is not None and self.kind == RANDOM:
            raise InvalidOption(
                "max_disagreement counts rows that differ, and the answers to one request differ each time",
                hint="leave --max-disagreement out",
            )
        if self.limits.max_disagreement is not None and not self.shadow:
            raise InvalidOption(
                "max_disagreement compares predictions for the same rows, and shadow=0 makes no copies",
                hint="--shadow 20",
            )

    def _promote_at_the_end(self) -> None:
        """B gets everything once it passed the last step before."""
        if len(self.steps) == 1:
            raise InvalidOption("steps=(100,) would give B everything at once", hint="--steps 1,5,25,50,100")
        object.__setattr__(self, "steps", self.steps[:-1])
        object.__setattr__(self, "auto_promote", True)

    @property
    def first_percent(self) -> float:
        """Percent of the requests that B gets at first."""
        return self.steps[0] if self.steps else self.split

    @property
    def agreement(self) -> AgreementOptions:
        """How outputs are compared."""
        return AgreementOptions(self.kind, self.tolerance)


def _check(what: str, value: float | None, low: float, high: float, hint: str) -> None:
    """Refuse values other than a number within the bounds, or None."""
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high:
        raise InvalidOption(f"{what}={value!r} must be a number from {low:g} to {high:g}", hint=hint)
