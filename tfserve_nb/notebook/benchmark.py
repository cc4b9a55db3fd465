"""What `%benchmark` does with its options, and what it shows while it runs.

Thread: the kernel's main thread; the load comes from another process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from ..api.benchmark import benchmark_url
from ..api.deployment import Deployment
from ..bench.load.samples import OK, Samples
from ..bench.load.schedule import Load
from ..bench.options import Options, RunOptions
from ..bench.report import AnyResult
from ..bench.result import BenchmarkResult, timeline_of
from ..bench.run import Watcher
from ..dashboards.charts.line import Line, line_chart
from ..dashboards.charts.svg import STYLE, TimeAxis
from ..errors import InvalidOption
from ..markup import note, status_line
from ..options import option
from ..replay.result import ReplayResult
from .progress import LiveOutput


@dataclass(frozen=True, slots=True)
class LoadedUrl:
    """What `%benchmark` loads instead of a model that is served here."""

    url: str | None = option(
        None, "load this instead: a model's URL on any server, or anything that takes JSON", shown="none"
    )


def check_together(name: str | None, url: str | None, run: RunOptions) -> None:
    """Refuse options that contradict each other.

    Args:
        name: the model that is named.
        url: what is loaded instead.
        run: the other options.

    Raises:
        UsageError: naming them.
    """
    if url is not None and name is not None:
        raise UsageError(f"--url and the name {name} exclude each other: both name what is loaded")
    if run.grpc_address is not None and url is None:
        raise UsageError("--grpc-address goes with --url; the gRPC port of a served model is known")


def load_url(url: str, run: RunOptions, options: Options, folder: Path, view: BenchmarkView | None) -> AnyResult:
    """Load the server at a URL.

    Args:
        url: of a model, or of anything that takes JSON.
        run: the token's variable and the gRPC address.
        options: what is measured; `values` are the rows of the cell.
        folder: where results are kept.
        view: follows it.

    Raises:
        UsageError: if the URL needs a body and there is none.
        ServingError: see `benchmark_url`.
    """
    body = None
    if "/v1/models/" not in url:
        if options.values is None:
            raise UsageError("a URL without /v1/models/NAME needs a body: the last expression of a %%benchmark cell")
        body = body_of(options)
    return benchmark_url(url, run.token, options, folder, view, body, run.grpc_address)


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
    own = None if handle is None else handle.base_path
    return own if own is not None and own.is_dir() else default


class BenchmarkView(Watcher):
    """Follows a run: a chart in a notebook, lines in a terminal.

    Args:
        shell: decides between notebook and terminal.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._output = LiveOutput(shell)
        self._activity = ""

    def say(self, text: str) -> None:
        """A line about what is being done."""
        self._activity = text
        self._output.show(status_line(text))
        self._output.write(text)

    def follow(self, load: Load, samples: Samples) -> None:
        """Show the progress and the latency so far."""
        if not self._output.is_due():
            return
        at_s = float(samples.due_s.max(initial=-load.warmup_s))
        num_failed = int((samples.status != OK).sum())
        words = f"{'warming up' if at_s < 0 else f'{at_s:.0f} of {load.seconds:.3g} s'}, {len(samples)} responses"
        words += f", {num_failed} failed" if num_failed else ""
        if self._output.is_notebook:
            self._output.show(self._page(load, samples, at_s, words))
        self._output.write(f"  {words}")

    def finish(self, result: AnyResult | ReplayResult | None) -> None:
        """Replace the chart by one line about the end."""
        if self._output.is_shown:
            self._output.show(note("it ended with an error" if result is None else ending_of(result)))

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
            chart = STYLE + line_chart(title, "ms", axis, lines, empty="too few responses yet")
        return f"<div>{status_line(self._activity)}<div>{bar} {words}</div>{chart}</div>"


def ending_of(result: AnyResult | ReplayResult) -> str:
    """The line that stays in place of the progress."""
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
