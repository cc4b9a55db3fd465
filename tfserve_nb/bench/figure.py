"""The figures of benchmarks, which stay in the notebook.

Thread: the caller's, one at a time.
"""

from __future__ import annotations

import functools
import math
from typing import Any  # matplotlib is imported when it is needed

import numpy as np

from ..reports.figure import A, B, drawn, log_ms, tidy, to_png
from .comparison import ComparisonResult
from .report import AnyResult
from .result import BenchmarkResult
from .sweep import SweepResult

NINES = (0.5, 0.9, 0.99, 0.999, 0.9999)


def figure_of(result: AnyResult) -> Any:
    """A matplotlib `Figure` of a result with at least one run."""
    if isinstance(result, SweepResult):
        return drawn(result.title, functools.partial(_draw_sweep, result))
    if isinstance(result, ComparisonResult):
        return drawn(result.title, functools.partial(_draw_comparison, result))
    return drawn(result.title, functools.partial(_draw_run, result))


def png_of(result: AnyResult) -> bytes:
    """The same as PNG."""
    return to_png(figure_of(result))


def _draw_run(result: BenchmarkResult, figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    _curve(left, result, A, "latency")
    if result.summary.slo_ms is not None:
        left.axhline(result.summary.slo_ms, color="0.5", linewidth=1, linestyle=":")
        left.text(0.02, result.summary.slo_ms, "SLO", fontsize=8, color="0.4", va="bottom")
    timeline = result.timeline
    shown = []
    for name, colour, line, marker in (("p50", A, "-", "o"), ("p95", "#2a9d6f", ":", "^"), ("p99", B, "--", "s")):
        values = getattr(timeline, f"{name}_ms")
        if np.isfinite(values).any():  # steps with too few requests for a percentile have none
            right.plot(timeline.at_s, values, color=colour, linestyle=line, marker=marker, markersize=3, label=name)
            shown.append(values[np.isfinite(values)])
    if shown:
        # Not closer than a factor of four: a smaller range would magnify noise.
        right.set_ylim(0.6 * min(values.min() for values in shown), 2.4 * max(values.max() for values in shown))
        right.legend(loc="upper right", ncols=3, fontsize=8, frameon=False)
    log_ms(right)
    tidy(right)
    right.set_xlabel("seconds, by the moment at which requests were due")
    rate = right.twinx()
    rate.step(timeline.at_s, timeline.rate, where="mid", color="0.6", linewidth=1)
    rate.set_ylim(0, 1.6 * max(1.0, float(timeline.rate.max(initial=0.0))))
    rate.set_ylabel("requests/s (grey)", color="0.4")


def _draw_sweep(result: SweepResult, figure: Any) -> None:
    (axes,) = figure.subplots(1, 1, squeeze=False)[0]
    for quantile, colour, marker in ((0.5, A, "o"), (0.99, B, "s")):
        points = [(one.summary.rate, one.summary.percentile(quantile)) for one in result.results]
        known = [(rate, one) for rate, one in points if one is not None]
        if not known:
            continue
        rates, values = [rate for rate, _ in known], [one.ms for _, one in known]
        below = [one.ms - one.low_ms for _, one in known]
        above = [0.0 if math.isinf(one.high_ms) else one.high_ms - one.ms for _, one in known]
        axes.errorbar(rates, values, yerr=[below, above], color=colour, marker=marker, markersize=4, linewidth=1.4,
                      capsize=2, label=f"p{100 * quantile:g}")  # fmt: skip
    axes.axhline(result.slo_ms, color="0.5", linewidth=1, linestyle=":", label=f"SLO, {result.slo_ms:.3g} ms")
    if result.knee is not None:
        axes.axvline(result.knee, color="0.3", linewidth=1, linestyle="--", label=f"knee, {result.knee:g} requests/s")
    axes.set_xlabel("answered, requests/s")
    axes.set_xlim(left=0)
    log_ms(axes)
    tidy(axes)
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _draw_comparison(result: ComparisonResult, figure: Any) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    for number, pair in enumerate(result.pairs):
        for run, colour, name in zip(pair, (A, B), "AB", strict=True):
            _curve(left, run, colour, name if number == 0 else None, width=2 if len(result.pairs) == 1 else 1)
    left.legend(fontsize=8, frameon=False, loc="upper left")
    for place, effect in enumerate(result.effects):
        right.plot(effect.ratio, place, marker="o", color="0.2")
        if not math.isnan(effect.low):
            right.plot([effect.low, effect.high], [place, place], color="0.2", linewidth=2)
        right.annotate(f"× {effect.ratio:.2f}", (effect.ratio, place), xytext=(0, 8), textcoords="offset points",
                       ha="center", fontsize=8)  # fmt: skip
    right.axvline(1.0, color="0.5", linewidth=1, linestyle=":")
    right.set_yticks(range(len(result.effects)), [f"p{100 * effect.quantile:g}" for effect in result.effects])
    right.set_ylim(len(result.effects) - 0.4, -0.8)
    bounds = [value for effect in result.effects for value in (effect.ratio, effect.low, effect.high, 1.0)]
    known = [value for value in bounds if math.isfinite(value)]
    if known:
        margin = 0.1 * (max(known) - min(known)) + 0.02
        right.set_xlim(min(known) - margin, max(known) + margin)
    right.set_xlabel("B / A: latency ratio, 95 % interval over the pairs")


def _curve(axes: Any, result: BenchmarkResult, colour: str, label: str | None, width: float = 1.8) -> None:
    """Latency by share of requests, on an axis of nines."""
    if result.curve.shape[1]:
        shares, values = result.curve
        axes.plot(_nines(shares), values, color=colour, linewidth=width, label=label)
    for point in result.summary.percentiles:
        high = point.ms if math.isinf(point.high_ms) else point.high_ms
        x = _nines(np.array([point.quantile]))
        axes.errorbar(x, [point.ms], yerr=[[point.ms - point.low_ms], [high - point.ms]], color=colour, marker="o",
                      markersize=3.5, capsize=2, linewidth=1)  # fmt: skip
    shown = [nine for nine in NINES if nine <= 1 - 1 / max(2, result.summary.num_ok)]
    axes.set_xticks(_nines(np.array(shown)), [f"p{100 * nine:g}" for nine in shown])
    axes.set_xlabel("share of requests that were at least as fast")
    log_ms(axes)
    tidy(axes)


def _nines(shares: np.ndarray) -> np.ndarray:
    """p90 is 1, p99 is 2 and so on."""
    found: np.ndarray = -np.log10(np.maximum(1 - shares, 1e-9))
    return found
