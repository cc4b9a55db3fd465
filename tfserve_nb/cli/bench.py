"""`tfserve-nb bench URL`: what `%benchmark --url` does, in a terminal.

Thread: the main thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Self

from ..api.benchmark import benchmark_url, compare_runs
from ..bench.figure import png_of
from ..bench.load.samples import OK, Samples
from ..bench.load.schedule import ARRIVALS, Load
from ..bench.options import Options
from ..bench.report import AnyResult, report_of
from ..bench.result import BenchmarkResult
from ..errors import InvalidOption, ServingError
from ..reports.text import to_terminal

FOLDER = "tfserve_models"
EXIT_FAILED = 1


def bench(arguments: list[str]) -> int:
    """Run a benchmark.

    Args:
        arguments: what stands after `bench`.

    Returns:
        0 when it ran to its end; 1 when it could not, was stopped early, or is invalid.
    """
    given = _parser().parse_args(arguments)
    try:
        result = _result(given)
        print(to_terminal(report_of(result)))
        if given.save is not None:
            if not isinstance(result, BenchmarkResult):
                raise InvalidOption("--save writes single runs", hint="leave --sweep and --versions out")
            print(f"saved: {result.save(given.save)}")
        if given.figure is not None:
            Path(given.figure).write_bytes(png_of(result))
            print(f"figure: {given.figure}")
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


def _result(given: argparse.Namespace) -> AnyResult:
    """Carry out what was asked for."""
    options, folder = _options(given), Path(given.folder)
    if given.compare is not None:
        return compare_runs(folder, *given.compare)
    if given.url is None:
        raise InvalidOption("what shall be loaded?", hint="tfserve-nb bench http://HOST:PORT/v1/models/NAME")
    with _Bar(is_quiet=given.quiet) as bar:
        token = _token(given.token_env)
        body = None if given.body is None else _body(given.body)
        return benchmark_url(given.url, token, options, folder, bar, body, given.grpc_address)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tfserve-nb bench",
        description="Load a model server in an open loop and show what its clients would see.",
        epilog="The token is read from the environment: arguments can be seen by everybody on the machine.",
    )
    parser.add_argument(
        "url", nargs="?", help="http://HOST:PORT/v1/models/NAME, or with --body anything that takes JSON"
    )
    parser.add_argument("--rate", type=float, metavar="PER_S", help="requests per second (default: a modest one)")
    parser.add_argument("--seconds", type=float, help="how long is measured (default: 10; 3 a step of a sweep)")
    parser.add_argument("--arrivals", choices=ARRIVALS, default="poisson", help="default: poisson")
    parser.add_argument("--closed", type=int, metavar="CLIENTS", help="closed loop instead of an open one")
    parser.add_argument("--sweep", action="store_true", help="find the highest rate that keeps the SLO")
    parser.add_argument("--slo-ms", type=float, metavar="MS", help="latency that answers should keep")
    parser.add_argument("--protocol", choices=("json", "binary", "grpc"), default="json", help="default: json")
    parser.add_argument("--grpc-address", metavar="HOST:PORT", help="with --protocol grpc: where it answers gRPC")
    parser.add_argument("--version", type=int, help="ask this version")
    parser.add_argument("--versions", type=_two, metavar="A,B", help="compare two versions, in turns")
    parser.add_argument("--label", help="ask the version of this label")
    parser.add_argument("--signature", default="serving_default", help="default: serving_default")
    parser.add_argument("--rows", type=int, default=1, help="rows of a request (default: 1)")
    parser.add_argument("--body", metavar="FILE", help="JSON that every request carries; - for standard input")
    parser.add_argument("--connections", type=int, default=256, help="most connections (default: 256)")
    parser.add_argument("--warmup-seconds", type=float, default=1.0, help="not counted (default: 1)")
    parser.add_argument("--timeout-s", type=float, default=10.0, help="how long a request may take (default: 10)")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs with --versions (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals (default: 0)")
    parser.add_argument("--token-env", metavar="NAME", help="environment variable that holds the token")
    parser.add_argument("--compare", type=int, nargs=2, metavar="RUN", help="compare two runs of the history instead")
    parser.add_argument("--save", metavar="PATH", help="write the run, with every request, to PATH.npz")
    parser.add_argument("--figure", metavar="PATH", help="write the figure as PNG")
    parser.add_argument("--folder", default=FOLDER, help=f"where the history is kept (default: {FOLDER})")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _options(given: argparse.Namespace) -> Options:
    return Options(
        rate=given.rate,
        closed=given.closed,
        seconds=given.seconds,
        arrivals=given.arrivals,
        protocol=given.protocol,
        rows=given.rows,
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


def _two(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    return int(first), int(second)


def _token(name: str | None) -> str | None:
    if name is None:
        return None
    token = os.environ.get(name)
    if token is None:
        raise InvalidOption(f"there is no environment variable {name!r}", hint=f"{name}=... tfserve-nb bench ...")
    return token


def _body(path: str) -> bytes:
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        json.loads(data)
    except ValueError as error:
        raise InvalidOption(f"{path} is no JSON: {error}", hint='{"instances": [[1.0, 2.0]]}') from None
    return data


def _is_good(result: AnyResult) -> bool:
    return not isinstance(result, BenchmarkResult) or (
        result.summary.is_valid and not result.summary.stopped and not result.summary.interrupted
    )


class _Bar:
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
        found = f"{len(samples)} answers" + (f", {num_failed} failed" if num_failed else "")
        total_s = load.warmup_s + load.seconds
        self._progress.update(self._task, description=str(load), completed=done_s, total=total_s, found=found)
