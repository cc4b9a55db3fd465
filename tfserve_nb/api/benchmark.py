"""Benchmarks of what is served here or elsewhere: makes the requests, runs the load, stores the result in the history.

Thread: the caller's, which stays busy until the end.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any  # JSON
from urllib.parse import unquote, urlsplit

from ..bench.comparison import ComparisonResult, compare_stored
from ..bench.load.targets import describe, pieces_of, plain_target, target_of
from ..bench.options import Options, carry_out
from ..bench.report import AnyResult
from ..bench.result import BenchmarkResult
from ..bench.run import Subject, Watcher
from ..bench.sweep import SweepResult
from ..errors import InvalidOption, ServingError
from ..serialization import from_json
from ..server.handle import ServerHandle
from ..serving.backend import ModelSpec
from ..serving.models.state_store import StateStore, new_event
from ..serving.telemetry.model_metrics import combined
from ..types import ModelStatus

MAX_EVENT_CHARS = 120


def benchmark_model(
    server: ServerHandle, name: str, options: Options, folder: Path, watcher: Watcher | None = None
) -> AnyResult:
    """Load a model and store the result.

    Args:
        server: the server.
        name: the model.
        options: what to do.
        folder: where results are kept when the model's own folder is not on this machine.
        watcher: follows it.

    Raises:
        ServingError: if the server cannot be reached, refuses, or the options do not fit it.
    """
    versions = options.versions or (options.version,)
    subjects = tuple(_subject(server, name, options, version) for version in versions)
    result = carry_out(options, subjects, watcher)
    own = server.models.base_path(name)
    return keep(result, StateStore(own if own is not None and own.is_dir() else folder))


def benchmark_url(
    url: str,
    token: str | None,
    options: Options,
    folder: Path,
    watcher: Watcher | None = None,
    body: bytes | None = None,
    grpc_address: str | None = None,
) -> AnyResult:
    """Load any server.

    Args:
        url: of a model (`.../v1/models/NAME`, with or without `:predict`), or, with `body`, of anything.
        token: sent as `Authorization: Bearer`, or None.
        options: what to do.
        folder: where results are kept.
        watcher: follows it.
        body: JSON that every request carries, for servers without TensorFlow Serving's metadata.
        grpc_address: `HOST:PORT` of the same server, for gRPC; the signature is read over `url`.
    """
    if options.protocol == "kernel":
        raise InvalidOption("protocol='kernel' needs a model's name, and no url", hint="--protocol json")
    if (options.protocol == "grpc") != (grpc_address is not None):
        raise InvalidOption(
            "a url is loaded over gRPC with both --protocol grpc and --grpc-address",
            hint="--protocol grpc --grpc-address 127.0.0.1:8500",
        )
    if body is not None and options.protocol != "json":
        raise InvalidOption(f"a body of your own goes out as JSON, not over {options.protocol}", hint="--protocol json")
    versions = options.versions or (options.version,)
    subjects = []
    for version in versions:
        if body is not None:
            target = plain_target(url, token, body, options.rows)
        else:
            target = target_of(url, token, options.request_options(version), grpc_address)
        subjects.append(Subject(_name_of(url), version, target, rows=options.rows, payload=target.what))
    return keep(carry_out(options, tuple(subjects), watcher), StateStore(folder))


def keep(result: AnyResult, store: StateStore) -> AnyResult:
    """Number the runs of a result and store them; without a number if the store cannot be written."""
    if isinstance(result, SweepResult):
        return dataclasses.replace(result, results=tuple(_kept(one, store) for one in result.results))
    if isinstance(result, ComparisonResult):
        pairs = tuple((_kept(a, store), _kept(b, store)) for a, b in result.pairs)
        return dataclasses.replace(result, pairs=pairs)
    return _kept(result, store)


def stored_runs(folder: Path) -> dict[int, BenchmarkResult]:
    """The runs that are kept in a folder, by number."""
    return {number: _stored_run(folder, number, value) for number, value in StateStore(folder).benchmarks().items()}


def compare_runs(folder: Path, a: int, b: int) -> ComparisonResult:
    """Two runs that were kept.

    Raises:
        InvalidOption: naming the runs that there are.
    """
    runs = StateStore(folder).benchmarks()
    missing = [number for number in (a, b) if number not in runs]
    if missing:
        known = ", ".join(str(number) for number in sorted(runs)[-10:]) or "none"
        raise InvalidOption(f"there is no run {missing[0]} in {folder}; there are {known}", hint="%benchmark NAME")
    first, second = (_stored_run(folder, number, runs[number]) for number in (a, b))
    return compare_stored(first, second)


def _stored_run(folder: Path, number: int, value: Any) -> BenchmarkResult:
    try:
        return dataclasses.replace(from_json(value, BenchmarkResult), run=number)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InvalidOption(
            f"run {number} in {folder} cannot be read: {type(error).__name__}: {error}", hint="%benchmark NAME"
        ) from error


def _kept(result: BenchmarkResult, store: StateStore) -> BenchmarkResult:
    summary = result.summary
    shown = [one for one in summary.percentiles if one.quantile <= 0.99]
    tail = f", {shown[-1].name} {shown[-1].ms:.3g} ms" if shown else ""
    detail = f"{result.protocol}, {result.load}: {summary.rate:.4g} requests/s{tail}"
    event = new_event("benchmark", result.version, detail[:MAX_EVENT_CHARS])
    try:
        store.path.parent.mkdir(parents=True, exist_ok=True)
        return dataclasses.replace(result, run=store.add_benchmark(result.name, result.stored(), event))
    except (ServingError, OSError):
        return result


def _subject(server: ServerHandle, name: str, options: Options, version: int | None) -> Subject:
    url = server.rest_url(name)
    seen, split = _version_and_split(server.models.model_status(name), version, options.label)
    batches = _Batches(server, name)
    if options.protocol != "kernel":
        target = target_of(url, server.token, options.request_options(version), server.grpc_address)
        return Subject(name, seen, target, rows=options.rows, payload=target.what + split, batches=batches)
    if server.kind != "in_kernel":
        raise InvalidOption(f"{name} is not served by this kernel", hint="--protocol json")
    spec = ModelSpec(name, version, options.label)
    described = describe(url, server.token, version, options.label)
    return Subject(
        name,
        seen,
        predict=lambda inputs: server.models.predict(spec, options.signature, inputs, options.timeout_s),
        inputs=pieces_of(described, options.request_options(version)),
        rows=options.rows,
        payload=f"{options.rows} rows, d.predict in this kernel, whose threads the callers share{split}",
        batches=batches,
    )


def _version_and_split(status: ModelStatus, version: int | None, label: str | None) -> tuple[int | None, str]:
    """The version that gets the requests, None when there are several, and in words how the traffic is split."""
    if version is not None:
        return version, ""
    if label is not None:
        return status.labels.get(label), ""
    if len(status.traffic) <= 1:
        return status.default_version, ""
    shares = ", ".join(f"version {one} {percent:g} %" for one, percent in sorted(status.traffic.items()))
    return None, f"; traffic: {shares}"


class _Batches:
    """Callable: describes in words the batches that a model ran since the last call."""

    def __init__(self, server: ServerHandle, name: str) -> None:
        self._server = server
        self._name = name
        self._before = (0, 0, dict.fromkeys(("full", "free", "timeout", "deadline"), 0))

    def __call__(self) -> str:
        try:
            metrics = self._server.models.model_metrics(self._name, 2, 1)
        except ServingError:
            return ""
        all_of_them = combined(one.batches for one in metrics.versions.values())
        num, rows, reasons = all_of_them.num_batches, all_of_them.num_rows, all_of_them.reasons
        num_before, rows_before, reasons_before = self._before
        self._before = (num, rows, dict(reasons) or reasons_before)
        if num <= num_before:
            return ""
        left = {reason: count - reasons_before.get(reason, 0) for reason, count in reasons.items()}
        shares = ", ".join(
            f"{reason} {100 * count / (num - num_before):.0f} %" for reason, count in left.items() if count > 0
        )
        return f"{num - num_before} batches of {(rows - rows_before) / (num - num_before):.2f} rows; left: {shares}"


def _name_of(url: str) -> str:
    """The model's name, or the host's."""
    parts = urlsplit(url)
    name = parts.path.partition("/v1/models/")[2].split("/")[0].split(":")[0]
    return unquote(name) or parts.netloc.rpartition("@")[2] or url
