"""Pictures of a run, as SVG and PNG beside its JSON.

Usage: python benchmarks/figures.py RESULTS.json
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from contenders import ISOLATED, KERNEL, KERNEL_AUTO, ONNX, SERVE, SERVE_AUTO, TWO_WORKERS
from goals import MLP
from part_same import MANY_ROWS, ONE_ROW, SameLoad
from part_same import part_of as same_part_of
from part_servers import CONNECTIONS, IN_PROCESS
from results import Results, median, short
from saved_models import MODELS

OURS = {KERNEL: "#2a91d8", KERNEL_AUTO: "#0b5fa5", ISOLATED: "#5fb0e6", SERVE: "#35b59c", SERVE_AUTO: "#12807a",
        TWO_WORKERS: "#6cc9b4", IN_PROCESS: "#6c5fc7"}  # fmt: skip
PEERS = {"PyTriton": "#b8480c", f"PyTriton{ONNX}": "#e07b39", "MLServer": "#c98a00", f"MLServer{ONNX}": "#e8b93a",
         "LitServe": "#a3365f", "BentoML": "#6d6d6d", "Ray Serve": "#8c5a3c"}  # fmt: skip
COLORS = {**OURS, **PEERS}
LOAD = 64
"""Connections that the picture of one request is drawn for."""


def write(results: Results) -> list[Path]:
    """Draw every picture that there are samples for; returns the files."""
    mpl.use("Agg")
    mpl.rcParams.update({
        "font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none",
        "svg.hashsalt": "bench", "axes.titleweight": "bold", "axes.titlelocation": "left",
    })  # fmt: skip
    makers: dict[str, Callable[[Results], Any]] = {
        "same-model": same_model, "same-model-cost": same_model_cost, "throughput": throughput, "request": request,
    }  # fmt: skip
    paths = []
    for name, maker in makers.items():
        figure = maker(results)
        if figure is not None:
            for ending in ("svg", "png"):
                paths.append(results.path.with_name(f"{results.path.stem}-{name}.{ending}"))
                figure.savefig(paths[-1], dpi=150)
    return paths


def same_model(results: Results) -> Any:
    """Rows per second of every server: a column of bars for each load, a row for each model."""
    return _same_figure(results, "rows", "rows per second")


def same_model_cost(results: Results) -> Any:
    """The same with the processor time of a row, which does not depend on what else the machine does."""
    return _same_figure(results, "cpu", "processor time of a row in µs, client not counted")


def _same_figure(results: Results, what: str, title: str) -> Any:
    from matplotlib.figure import Figure

    names = [name for name in MODELS if results.cases(same_part_of(name))]
    if not names:
        return None
    figure = Figure(figsize=(12, 2.5 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 2, squeeze=False)
    for name, line in zip(names, grid, strict=True):
        _same_bars(results, line[0], name, what, ONE_ROW)
        _same_bars(results, line[1], name, what, MANY_ROWS)
    figure.suptitle(f"The same SavedModel in every server: {title}", fontweight="bold", x=0.01, ha="left")
    return figure


def _same_bars(results: Results, axes: Any, name: str, what: str, load: SameLoad) -> None:
    """The servers of one model and load, the best at the top; a line across a bar goes from smallest to largest."""
    found = {case: results.series(same_part_of(name), case, f"{what}@{load.name}") for case in COLORS}
    cases = sorted((case for case, series in found.items() if series), key=lambda case: median(found[case]))
    if what == "cpu":
        cases.reverse()
    for place, case in enumerate(cases):
        values = found[case].values()
        axes.barh(place, median(found[case]), color=COLORS[case], height=0.72)
        axes.plot([min(values), max(values)], [place, place], color="#222222", linewidth=1.1)
        axes.text(max(values), place, f"  {short(median(found[case]))}", va="center", fontsize=9)
    axes.set_yticks(range(len(cases)), cases, fontsize=9)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in OURS else "normal")
    axes.set_xlim(0, 1.18 * max((max(found[case].values()) for case in cases), default=1))
    axes.set_title(f"{MODELS[name].split(',')[0]}: {'1 row' if load == ONE_ROW else '32 rows'}", fontsize=10.5)


def throughput(results: Results) -> Any:
    """Requests per second against p99, one line for each server along its connections."""
    from matplotlib.figure import Figure

    lines = {one: _line(results, one) for one in results.cases(MLP) if one in COLORS}
    lines = {one: line for one, line in lines.items() if line}
    if not lines:
        return None
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    axes = figure.add_subplot()
    for one, line in lines.items():
        style = {"marker": "o", "linewidth": 2.2} if one in OURS else {"marker": "s", "linewidth": 1.5}
        rates, tails = [rate for _, rate, _ in line], [tail for _, _, tail in line]
        axes.plot(rates, tails, color=COLORS[one], markersize=5.5, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.12, y=0.12)
    _plain_ticks(axes)
    axes.grid(which="major", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    counts = ", ".join(str(number) for number in sorted({number for line in lines.values() for number, _, _ in line}))
    axes.set_title("MLP 784→128→10: throughput and tail latency")
    axes.set_xlabel(f"requests per second (points along a line: {counts} connections)")
    axes.set_ylabel("p99 latency, ms")
    axes.text(
        0.99, 0.02, "better: right and down ↘", transform=axes.transAxes, ha="right", color="#555555", style="italic"
    )
    _label(figure, axes, lines)
    return figure


def _line(results: Results, case: str) -> list[tuple[int, float, float]]:
    """Connections, requests/s and p99, where measured."""
    points = []
    for number in CONNECTIONS:
        rate, tail = results.series(MLP, case, f"rate@{number}"), results.series(MLP, case, f"p99@{number}")
        if rate and tail:
            points.append((number, median(rate), median(tail)))
    return points


def _label(figure: Any, axes: Any, lines: dict[str, list[tuple[int, float, float]]]) -> None:
    """A server's name at the end of its line, in the margin, moved apart where ends are close."""
    ends = sorted(lines.items(), key=lambda item: item[1][-1][2])
    low, high = axes.get_ylim()
    gap = (high / low) ** (1 / 26)
    at = 0.0
    places = []
    for _, line in ends:
        at = max(line[-1][2], at * gap if at else 0.0)
        places.append(at)
    # A crowd that was pushed upwards as a whole goes back down by half of that.
    right = axes.get_xlim()[1]
    for (one, line), place in zip(ends, places, strict=True):
        axes.annotate(
            one, xy=(line[-1][1], line[-1][2]), xytext=(right * 1.06, place), color=COLORS[one], va="center",
            fontweight="bold" if one in OURS else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": COLORS[one], "linewidth": 0.7, "alpha": 0.6, "shrinkB": 4},
        )  # fmt: skip
    figure.get_layout_engine().set(rect=(0, 0, 0.99, 1))


def _plain_ticks(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda number, _: short(number)))
        axis.set_minor_formatter(NullFormatter())


def request(results: Results) -> Any:
    """Where each microsecond of a request goes: alone, and under load."""
    from matplotlib.figure import Figure

    bars = request_bars(results)
    if not bars:
        return None
    figure = Figure(figsize=(10, 1.6 + 1.8 * len(bars)), layout="constrained")
    plots = figure.subplots(len(bars), 1, squeeze=False)[:, 0]
    for axes, (title, pieces) in zip(plots, bars.items(), strict=True):
        _stack(axes, title, pieces)
    figure.suptitle("Where each microsecond of a request goes (MLP, JSON, in the kernel)", fontweight="bold", x=0.01,
                    ha="left")  # fmt: skip
    return figure


def request_bars(results: Results) -> dict[str, dict[str, float]]:
    """Title -> piece -> microseconds. The rest is the time that no part measures by itself."""
    core_us = 1e6 / median(results.series("core", "core alone", "rate"))
    path_us = 1e6 / median(results.series("core", "bytes to bytes", "rate"))
    own = {"HTTP and JSON": path_us - core_us, "core: queue, batch, scatter": core_us}
    alone_us = 1e3 * median(results.series("call", KERNEL, "p50_ms"))
    model_us = median(results.series("call", "bare model", "our_run_us_1"))
    loaded_us = 1e6 / median(results.series(MLP, KERNEL, f"rate@{LOAD}"))
    share_us = median(results.series("call", "bare model", "our_run_us_64")) / 64
    rest = "sockets, thread switches, client"
    bars = {
        "one connection: p50": {"model": model_us, **own, rest: alone_us - model_us - path_us},
        f"{LOAD} connections: time per request": {
            "model, a 64th of a batch": share_us, **own, rest: loaded_us - share_us - path_us,
        },
    }  # fmt: skip
    return {title: pieces for title, pieces in bars.items() if all(size == size for size in pieces.values())}  # noqa: PLR0124 - NaN


def _stack(axes: Any, title: str, pieces: dict[str, float]) -> None:
    left, colors = 0.0, ("#0b5fa5", "#12807a", "#e0a12b", "#b9bec4")
    total = sum(pieces.values())
    for (name, size_us), color in zip(pieces.items(), colors, strict=True):
        size_us = max(size_us, 0.0)  # noqa: PLW2901 - pieces were measured apart; on a busy machine they exceed the whole
        axes.barh(0, size_us, left=left, color=color, edgecolor="white", label=f"{name}: {size_us:.1f} µs")
        if size_us > 0.06 * total:
            axes.text(left + size_us / 2, 0, f"{size_us:.0f}", ha="center", va="center", fontweight="bold",
                      color="white" if color in colors[:2] else "#222222")  # fmt: skip
        left += size_us
    axes.set_title(f"{title}, {total:.0f} µs", fontsize=10.5)
    axes.set_yticks([])
    axes.set_ylim(-0.45, 0.45)
    axes.set_xlim(0, left * 1.01)
    axes.set_xlabel("µs")
    axes.spines["left"].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.45), ncol=2, frameon=False, fontsize=9.5,
                handlelength=1, columnspacing=1.4)  # fmt: skip


if __name__ == "__main__":
    for written in write(Results.load(Path(sys.argv[1]))):
        print(written)
