"""What `%benchmark` does with its options, and what is seen while it runs.

Thread: the kernel's main thread; the load comes from another process.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any  # the user's rows, IPython's display handle

import numpy as np
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic_arguments import argument
from IPython.display import HTML, display

from ..api.benchmark import benchmark_url
from ..api.deployment import Deployment
from ..bench.load.samples import OK, Samples
from ..bench.load.schedule import ARRIVALS, Load
from ..bench.options import PROTOCOLS, Options
from ..bench.report import AnyResult
from ..bench.result import BenchmarkResult, timeline_of
from ..dashboards.charts.line import Line, line_chart
from ..dashboards.charts.svg import STYLE, TimeAxis
from ..errors import InvalidOption
from ..markup import note, status_line
from ..replay.result import ReplayResult
from .arguments import sizes

SHOW_EVERY_S = 0.5
PRINT_EVERY_S = 2.0

BENCHMARK_OPTIONS = (
    argument("name", nargs="?", metavar="NAME", help="the model; may be left out when only one is served"),
    argument("--rate", type=float, metavar="PER_S", help="requests per second; default: found by a short probe"),
    argument("--seconds", type=float, help="how long is measured; default: 10 (3 for each step of a sweep)"),
    argument("--arrivals", choices=ARRIVALS, default="poisson", help="when requests come; default: poisson"),
    argument("--closed", type=int, metavar="CLIENTS", help="closed loop: clients that send when they have an answer"),
    argument("--sweep", action="store_true", help="find the highest rate that keeps the SLO"),
    argument("--slo-ms", type=float, metavar="MS", help="latency that answers should keep"),
    argument("--protocol", choices=PROTOCOLS, default="json", help="default: json"),
    argument("--version", type=int, help="ask this version"),
    argument("--versions", type=sizes, metavar="A,B", help="compare two versions, in turns"),
    argument("--label", help="ask the version of this label"),
    argument("--signature", default="serving_default", help="the signature's name"),
    argument("--rows", type=int, default=1, metavar="N", help="rows of a request; default: 1"),
    argument("--connections", type=int, default=256, metavar="N", help="most connections; default: 256"),
    argument("--warmup-seconds", type=float, default=1.0, metavar="S", help="not counted; default: 1"),
    argument("--seed", type=int, default=0, help="of the arrivals; default: 0"),
    argument("--timeout-s", type=float, default=10.0, metavar="S", help="how long a request may take; default: 10"),
    argument("--repeats", type=int, default=3, metavar="N", help="pairs of runs of a comparison; default: 3"),
    argument("--url", help="load this instead: a model's URL on any server, or anything that takes JSON"),
    argument("--token-env", metavar="NAME", help="environment variable with the token for --url"),
    argument("--grpc-address", metavar="HOST:PORT", help="with --url and --protocol grpc: where it answers gRPC"),
    argument("--compare", type=int, nargs=2, metavar="RUN", help="compare two runs of the history"),
    argument("--out", "-o", metavar="NAME", help="variable for the result"),
    argument("--save", metavar="PATH", help="write the result, with every request, to PATH.npz"),
    argument("--quiet", "-q", action="store_true", help="show neither progress nor result"),
)


def options_of(given: argparse.Namespace, values: Any) -> Options:
    """The benchmark that a line asks for.

    Args:
        given: the parsed line.
        values: the rows of the cell, or None.

    Raises:
        UsageError: for options that do not go together.
        InvalidOption: naming the value that is not allowed.
    """
    if given.versions is not None and len(given.versions) != 2:
        raise UsageError(f"--versions needs two, such as --versions 3,4; these are {len(given.versions)}")
    if given.url is not None and given.name is not None:
        raise UsageError(f"--url says what is loaded; {given.name} does too")
    if given.grpc_address is not None and given.url is None:
        raise UsageError("--grpc-address goes with --url; the gRPC port of a served model is known")
    if given.out is not None and not given.out.isidentifier():
        raise UsageError(f"--out {given.out!r} is no variable name")
    return Options(
        rate=given.rate,
        closed=given.closed,
        seconds=given.seconds,
        arrivals=given.arrivals,
        protocol=given.protocol,
        rows=given.rows,
        values=values,
        version=given.version,
        label=given.label,
        signature=given.signature,
        slo_ms=given.slo_ms,
        sweep=given.sweep,
        versions=given.versions,
        repeats=given.repeats,
        connections=given.connections,
        warmup_s=given.warmup_seconds,
        seed=given.seed,
        timeout_s=given.timeout_s,
    )


def load_url(given: argparse.Namespace, options: Options, folder: Path, view: BenchmarkView | None) -> AnyResult:
    """Load whatever answers at `--url`."""
    token = None
    if given.token_env is not None:
        token = os.environ.get(given.token_env)
        if token is None:
            raise InvalidOption(f"there is no environment variable {given.token_env!r}", hint="--token-env NAME")
    body = None
    if "/v1/models/" not in given.url:
        if options.values is None:
            raise UsageError("a URL without /v1/models/NAME needs a body: the last expression of a %%benchmark cell")
        body = body_of(options)
    return benchmark_url(given.url, token, options, folder, view, body, given.grpc_address)


def body_of(options: Options) -> bytes:
    """JSON for a server of any kind: text and bytes as they are, all else as `{"instances": rows}`."""
    from ..server.rest.json_text import dump

    values = options.values
    if isinstance(values, bytes):
        return values
    if isinstance(values, str):
        return values.encode()
    if isinstance(values, dict):
        return dump(values)
    rows = np.asarray(values)[: options.rows]
    return dump({"instances": np.ascontiguousarray(rows)})


def stored_in(handle: Deployment | None, default: Path) -> Path:
    """The folder whose runs `--compare` means."""
    if handle is None:
        return default
    own = handle.base_path
    return own if own is not None and own.is_dir() else default


class BenchmarkView:
    """Follows a run: a chart in a notebook, lines in a terminal.

    Args:
        shell: decides between notebook and terminal.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._in_notebook = hasattr(shell, "kernel")
        self._handle: Any = None
        self._said = ""
        self._shown_s = float("-inf")

    def say(self, text: str) -> None:
        """A line about what is being done."""
        self._said = text
        if self._in_notebook:
            self._show(status_line(text))
        else:
            print(text, flush=True)

    def follow(self, load: Load, samples: Samples) -> None:
        """Show how far it is and what was found."""
        now_s = time.perf_counter()
        if now_s - self._shown_s < (SHOW_EVERY_S if self._in_notebook else PRINT_EVERY_S):
            return
        self._shown_s = now_s
        at_s = float(samples.due_s.max(initial=-load.warmup_s))
        num_failed = int((samples.status != OK).sum())
        words = f"{'warming up' if at_s < 0 else f'{at_s:.0f} of {load.seconds:.3g} s'}, {len(samples)} answers"
        words += f", {num_failed} failed" if num_failed else ""
        if self._in_notebook:
            self._show(self._page(load, samples, at_s, words))
        else:
            print(f"  {words}", flush=True)

    def finish(self, result: AnyResult | ReplayResult | None) -> None:
        """Replace the chart by what was done."""
        if self._in_notebook and self._handle is not None:
            self._show(note("it did not end well" if result is None else ending_of(result)))

    def _page(self, load: Load, samples: Samples, at_s: float, words: str) -> str:
        done = max(0.0, at_s + load.warmup_s)
        bar = (
            f'<progress value="{done:.2f}" max="{load.seconds + load.warmup_s:.2f}" aria-label="benchmark"></progress>'
        )
        chart = ""
        if at_s >= 1:
            timeline = timeline_of(samples, at_s)
            axis = TimeAxis(at_s - timeline.at_s, at_s)
            lines = [Line(f"p{n}", getattr(timeline, f"p{n}_ms"), place, place) for place, n in enumerate((50, 95, 99))]
            title = f"Latency so far: {load}"
            chart = STYLE + line_chart(title, "ms", axis, lines, empty="too few answers yet")
        return f"<div>{status_line(self._said)}<div>{bar} {words}</div>{chart}</div>"

    def _show(self, text: str) -> None:
        if self._handle is None:
            self._handle = display(HTML(text), display_id=True)
        else:
            self._handle.update(HTML(text))


def ending_of(result: AnyResult | ReplayResult) -> str:
    """What stays of the progress."""
    is_whole = not (result.summary.interrupted if isinstance(result, BenchmarkResult) else result.interrupted)
    return f"{'done' if is_whole else 'interrupted'}: {result.title}"


def save(result: AnyResult, path: str) -> None:
    """Write a result's single runs.

    Raises:
        InvalidOption: for sweeps and comparisons, whose runs are saved one by one.
    """
    if not isinstance(result, BenchmarkResult):
        raise InvalidOption("--save writes single runs", hint="--out r, then r.results[0].save(path)")
    print(f"saved: {result.save(path)}")
