"""`tfserve-nb bench URL`: what `%benchmark --url` does, in a terminal.

Thread: the main thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..api.benchmark import benchmark_url, compare_runs
from ..bench.figure import png_of
from ..bench.load.samples import OK, Samples
from ..bench.load.schedule import Load
from ..bench.options import Options, RunOptions
from ..bench.report import AnyResult, report_of
from ..bench.result import BenchmarkResult
from ..bench.run import Watcher
from ..errors import InvalidOption, ServingError
from ..options import add_options, option, read
from ..reports.text import to_terminal

EXIT_FAILED = 1


def bench(arguments: list[str]) -> int:
    """Run a benchmark.

    Args:
        arguments: what stands after `bench`.

    Returns:
        0 when it ran to its end; 1 when it could not, was stopped early, or is invalid.
    """
    parser = argparse.ArgumentParser(
        "tfserve-nb bench", description="Load a model server in an open loop and show what its clients would see."
    )
    add_options(parser, _BenchOptions, Options, RunOptions)
    parsed = parser.parse_args(arguments)
    if getattr(parsed, "protocol", "") == "kernel":
        parser.error("argument --protocol: 'kernel' works in a notebook only (%benchmark); json, binary or grpc here")
    own, run = read(_BenchOptions, parsed), read(RunOptions, parsed)
    try:
        result = _result(own, run, read(Options, parsed))
        print(to_terminal(report_of(result)))
        if run.save is not None:
            if not isinstance(result, BenchmarkResult):
                raise InvalidOption("--save writes single runs", hint="leave --sweep and --versions out")
            print(f"saved: {result.save(run.save)}")
        if own.figure is not None:
            Path(own.figure).write_bytes(png_of(result))
            print(f"figure: {own.figure}")
    except ServingError as error:
        print(f"tfserve-nb bench: {error.message}{f' (try: {error.hint})' if error.hint else ''}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        print(f"tfserve-nb bench: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:  # before there was anything to keep
        print("tfserve-nb bench: interrupted", file=sys.stderr)
        return EXIT_FAILED
    return 0 if _is_good(result) else EXIT_FAILED


@dataclass(frozen=True, slots=True)
class _BenchOptions:
    """What only the command line has."""

    url: str | None = option(
        None,
        "http://HOST:PORT/v1/models/NAME, or with `--body` anything that takes JSON",
        is_positional=True,
        metavar="URL",
    )
    body: str | None = option(None, "JSON that every request carries; - for standard input", metavar="FILE")
    figure: str | None = option(None, "write the figure as PNG", metavar="PATH")
    folder: str = option("tfserve_models", "where the history is kept")
    quiet: bool = option(False, "no progress")


def _result(own: _BenchOptions, run: RunOptions, options: Options) -> AnyResult:
    """Run the benchmark, or compare two stored runs."""
    folder = Path(own.folder)
    if run.compare is not None:
        return compare_runs(folder, *run.compare)
    if own.url is None:
        raise InvalidOption("a URL is missing", hint="tfserve-nb bench http://HOST:PORT/v1/models/NAME")
    with _Bar(is_quiet=own.quiet) as bar:
        body = None if own.body is None else _body(own.body)
        return benchmark_url(own.url, run.token, options, folder, bar, body, run.grpc_address)


def _body(path: str) -> bytes:
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidOption(f"{path} is no JSON: {error}", hint='{"instances": [[1.0, 2.0]]}') from None
    return data


def _is_good(result: AnyResult) -> bool:
    return not isinstance(result, BenchmarkResult) or (
        result.summary.is_valid and not result.summary.stopped and not result.summary.interrupted
    )


class _Bar(Watcher):
    """A progress bar on standard error; follows a run."""

    def __init__(self, *, is_quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[found]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True, quiet=is_quiet),
            transient=True,
        )
        self._task = self._progress.add_task("one request first", total=None, found="")
        self._shown_s = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line about what is being done."""
        self._progress.console.print(text, markup=False)

    def follow(self, load: Load, samples: Samples) -> None:
        """Move the bar."""
        now_s = time.perf_counter()
        if now_s - self._shown_s < 0.2:
            return
        self._shown_s = now_s
        done_s = load.warmup_s + float(samples.due_s.max(initial=-load.warmup_s))
        num_failed = int((samples.status != OK).sum())
        found = f"{len(samples)} responses" + (f", {num_failed} failed" if num_failed else "")
        total_s = load.warmup_s + load.seconds
        self._progress.update(self._task, description=str(load), completed=done_s, total=total_s, found=found)
