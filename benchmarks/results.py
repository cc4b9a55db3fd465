"""Measured samples, in one JSON file that is written after each, so that an interrupted run loses none."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Series = dict[int, float]
"""Round -> value."""


@dataclass(frozen=True)
class Sample:
    """One measured number of a case, in a part and a round."""

    part: str
    case: str
    what: str
    round: int
    value: float


class Results:
    """The samples of a run.

    Args:
        path: the JSON file.
        about: machine and versions.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.about = dict(about)
        self.samples: list[Sample] = []
        self.problems: dict[str, str] = {}

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a file of an earlier run."""
        stored = json.loads(path.read_text())
        results = cls(path, stored["about"])
        results.samples = [Sample(**one) for one in stored["samples"]]
        results.problems = stored["problems"]
        return results

    def add(self, part: str, case: str, round_number: int, **values: float) -> None:
        """Keep some numbers of one case."""
        self.samples += [Sample(part, case, what, round_number, value) for what, value in values.items()]
        self.save()

    def problem(self, part: str, case: str, text: str) -> None:
        """Say why something could not be measured."""
        self.problems[f"{part}/{case}"] = text
        print(f"  {case}: NOT MEASURED: {text}", flush=True)
        self.save()

    def series(self, part: str, case: str, what: str) -> Series:
        """The values of a case by round."""
        return {
            sample.round: sample.value
            for sample in self.samples
            if (sample.part, sample.case, sample.what) == (part, case, what)
        }

    def cases(self, part: str) -> list[str]:
        """The cases of a part, in the order in which they were first measured."""
        return list(dict.fromkeys(sample.case for sample in self.samples if sample.part == part))

    def parts(self) -> list[str]:
        """The parts that were measured."""
        return list(dict.fromkeys(sample.part for sample in self.samples))

    def save(self) -> None:
        """Write the file, as a whole or not at all."""
        stored = {
            "about": self.about,
            "problems": self.problems,
            "samples": [vars(sample) for sample in self.samples],
        }
        half = self.path.with_suffix(".part")
        half.write_text(json.dumps(stored, indent=0))
        half.replace(self.path)


def ratios(series: Series, base: Series) -> Series:
    """Quotients within the same round, because the speed of a machine changes from minute to minute."""
    return {number: value / base[number] for number, value in series.items() if base.get(number)}


def median(series: Series) -> float:
    """The median; NaN for nothing."""
    return statistics.median(series.values()) if series else float("nan")


def spread(series: Series, digits: int = 3) -> str:
    """`median (min–max)` as text."""
    if not series:
        return "–"
    low, middle, high = (short(value, digits) for value in (min(series.values()), median(series), max(series.values())))
    return middle if len(series) == 1 else f"{middle} ({low}–{high})"


def short(value: float, digits: int = 3) -> str:
    """A number with some significant digits, its thousands separated by spaces."""
    if value != value:  # noqa: PLR0124 - NaN
        return "–"
    if abs(value) >= 10 ** (digits - 1):
        rounded = float(f"{value:.{digits}g}")
        return f"{rounded:,.0f}".replace(",", " ")
    return f"{value:.{digits}g}"
