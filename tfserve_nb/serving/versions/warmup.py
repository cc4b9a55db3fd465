"""Run a version before it becomes AVAILABLE: every allowed batch size once, so that no client waits for a first run.

The same runs show whether rows may run together, see `sharing`.

Thread: the manager's.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import RunFailed, RunRejected, ServingError
from ...export.check import example_batch
from ...export.warmup_requests import WARMUP_FILE, WarmupRequest, read_warmup_requests
from ...types import SignatureSpec, Tensors
from ..batching.options import BatchingOptions
from ..engines.evidence import MADE_UP, Evidence
from ..engines.servable import Servable
from ..telemetry.observer import Observer
from ..telemetry.records import WarmupRecord
from .inputs import check_inputs, has_one_shape
from .noted_sharing import NotedSharing, digests
from .row_evidence import NotedRows, read_noted_rows
from .sharing import SLOW_RUN_S, RowSharing, decide, fixed_dimension, ignores_added_length, made_up
from .source import VersionSource
from .trial import Trial

_log = logging.getLogger(__name__)

Report = Callable[[int, int], None]
"""(runs done, runs in all)."""

Seen = Callable[[str], Iterable[Tensors]]
"""Signature -> the inputs of earlier requests for it."""

NOT_TRIED = "what reaches outside is run for requests only, so it was not tried whether their rows may share a run"

MAX_SEEN = 16
"""Captured requests that are tried."""


def nothing_seen(_: str) -> Iterable[Tensors]:
    """No requests were captured."""
    return ()


def warm_up(
    trial: Trial,
    source: VersionSource,
    report: Report,
    observer: Observer | None = None,
    seen: Seen = nothing_seen,
) -> dict[str, RowSharing]:
    """Run the stored warm-up requests, then every signature once for each allowed batch size.

    Args:
        trial: the loaded version.
        source: its folder and batching limits.
        report: called with the progress.
        observer: gets the run of a warm-up file, or None.
        seen: captured requests.

    Returns:
        signature -> whether its rows may run together.

    Raises:
        RunFailed: if the model cannot run a stored request. Rows that we made up are allowed to fail, the model may
            accept only certain values.
        ExportFailed: if the stored requests cannot be read.
    """
    stored = _replay_observed(trial, source, observer) if source.num_warmup_iterations else {}
    options = source.options
    if not options.is_enabled:
        return dict.fromkeys(trial.signatures, RowSharing(is_allowed=False))
    noted = read_noted_rows(source.path)
    total = len(trial.signatures) * len(options.allowed_batch_sizes)
    count = itertools.count(1)
    decisions = NotedSharing(trial.servable, options)
    sharing = {}

    def on_run() -> None:
        report(min(next(count), total), total)

    for name, signature in trial.signatures.items():
        if trial.effects.outside_ops:
            sharing[name] = RowSharing(is_allowed=False, reason=NOT_TRIED)
            continue
        is_changed, known = name in trial.effects.states, noted.get(name)
        is_decided = is_changed or fixed_dimension(signature) or (known is not None and not known.are_independent)
        if is_decided and name not in stored:
            _run_once(partial(trial.run, name), signature)
        if is_changed:
            sharing[name] = RowSharing(is_allowed=False)  # every run leaves its mark on the next: none may be added
            continue
        users = list(_users_rows(signature, stored.get(name, ()), seen))
        sharing[name] = _shared(trial, signature, users, options, decisions, known, on_run)
    decisions.write()
    report(total, total)
    return sharing


def _shared(
    trial: Trial,
    signature: SignatureSpec,
    users: Sequence[Evidence],
    options: BatchingOptions,
    decisions: NotedSharing,
    noted: NotedRows | None,
    on_run: Callable[[], None],
) -> RowSharing:
    """Whether rows of a signature may run together: decided before, or now. Every batch size has run then."""
    name, sizes = signature.name, options.allowed_batch_sizes
    run = partial(trial.run, name)
    rows = digests((piece.rows for piece in users), noted)
    known = None if fixed_dimension(signature) else decisions.known(name, rows)  # that is decided without runs
    if known is not None and _have_run(trial, signature, [*users, *_made_up_rows(signature)], options, on_run):
        return known
    evidence = itertools.chain(users, _made_up_rows(signature))
    found = decide(run, signature, evidence, sizes, noted=noted, is_warm_up=options.pads, on_run=on_run)
    if options.pad_variable_length_inputs and found.is_allowed and not has_one_shape(signature):
        evidence = itertools.chain(users, _made_up_rows(signature))
        found = replace(found, pads_lengths=ignores_added_length(run, signature, evidence))
    decisions.add(name, rows, found)
    return found


def _have_run(
    trial: Trial,
    signature: SignatureSpec,
    evidence: Iterable[Evidence],
    options: BatchingOptions,
    on_run: Callable[[], None],
) -> bool:
    """Run every batch size in the engine alone; whether it could, and answered with numbers."""
    for piece in evidence:
        try:
            num_rows = min(len(array) for array in piece.rows.values())
            for size in options.allowed_batch_sizes:
                started_s = time.perf_counter()
                batch = {name: array[np.arange(size) % num_rows] for name, array in piece.rows.items()}
                trial.run_at_once(signature.name, batch)
                on_run()
                if not options.pads and time.perf_counter() - started_s > SLOW_RUN_S:
                    break
        except Exception as error:  # noqa: BLE001 - runtimes raise types of their own
            _log.debug("other rows are tried than %s: %s", piece.source, error)
            continue
        return not trial.is_nan(signature.name)
    return False


def evidence_for(signature: SignatureSpec, stored: Iterable[Tensors], seen: Seen) -> Iterator[Evidence]:
    """The user's rows, then made-up ones.

    Args:
        signature: what they are for.
        stored: rows of the version's warm-up file.
        seen: captured requests.
    """
    yield from _users_rows(signature, stored, seen)
    yield from _made_up_rows(signature)


def _users_rows(signature: SignatureSpec, stored: Iterable[Tensors], seen: Seen) -> Iterator[Evidence]:
    yield from (Evidence(rows, "warm-up rows") for rows in stored)
    for rows in itertools.islice(seen(signature.name), MAX_SEEN):
        if _are_rows(signature, rows):
            yield Evidence(rows, "captured requests")


def _made_up_rows(signature: SignatureSpec) -> Iterator[Evidence]:
    return (Evidence(rows, MADE_UP) for rows in made_up(signature))


def stored_rows(servable: Servable, path: Path) -> dict[str, list[Tensors]]:
    """The inputs of a version's stored warm-up requests that hold rows, by signature, as they are.

    Raises:
        ExportFailed: if the file is damaged or too long.
    """
    rows: dict[str, list[Tensors]] = {}
    if not (path / WARMUP_FILE).is_file():
        return rows  # which warming up says in the log
    for request in read_warmup_requests(path):
        signature = servable.signatures.get(request.signature)
        if signature is not None and not request.is_examples and _are_rows(signature, request.inputs):
            rows.setdefault(request.signature, []).append(request.inputs)
    return rows


def _are_rows(signature: SignatureSpec, rows: Tensors) -> bool:
    """Whether inputs fit a signature and have rows."""
    try:
        return check_inputs(signature, rows) > 0
    except ServingError:
        return False


def _run_once(run: Callable[[Tensors], Tensors], signature: SignatureSpec) -> None:
    """Warm up what takes no batches; made-up values may not suit it."""
    with contextlib.suppress(RunFailed, RunRejected):
        run(example_batch(signature, 1))


def _replay_observed(servable: Servable, source: VersionSource, observer: Observer | None) -> dict[str, list[Tensors]]:
    """Run the stored requests; the inputs of those that hold rows, by signature."""
    started_s, num_records, code = time.perf_counter(), 0, "OK"
    rows: dict[str, list[Tensors]] = {}
    try:
        for request in replay(servable, source.path, source.num_warmup_iterations):
            num_records += 1
            signature = servable.signatures[request.signature]
            if _are_rows(signature, request.inputs):
                rows.setdefault(request.signature, []).append(request.inputs)
    except ServingError as error:
        code = error.code
        raise
    finally:
        if observer is not None and (num_records or code != "OK"):
            observer.on_warmup(WarmupRecord(str(source.path), code, num_records, time.perf_counter() - started_s))
    # A number for all rows has none, and a fixed number of them stays as it is.
    is_fixed = {name: bool(fixed_dimension(servable.signatures[name])) for name in rows}
    return {name: found if is_fixed[name] else _merged(found) for name, found in rows.items()}


def _merged(requests: list[Tensors]) -> list[Tensors]:
    """Requests of equal shapes as one, so that their rows meet."""
    by_shape: dict[object, list[Tensors]] = {}
    for inputs in requests:
        shapes = tuple((name, array.shape[1:]) for name, array in sorted(inputs.items()))
        by_shape.setdefault(shapes, []).append(inputs)
    return [
        {name: np.concatenate([inputs[name] for inputs in group]) for name in group[0]} for group in by_shape.values()
    ]


def replay(servable: Servable, path: Path, num_iterations: int) -> Iterator[WarmupRequest]:
    """Run the requests of `assets.extra/tf_serving_warmup_requests`, if the version has that file.

    Yields:
        Each request that was run, examples as the inputs of their signature.

    Raises:
        ExportFailed: if the file is damaged or too long.
        RunFailed: if a request fails; the version does not serve then, as in TensorFlow Serving.
    """
    for number, request in enumerate(read_warmup_requests(path), 1):
        signature = servable.signatures.get(request.signature)
        if signature is None:
            raise RunFailed(f'Serving signature key "{request.signature}" not found.')
        inputs = request.inputs
        if request.is_examples:
            inputs = dict.fromkeys(signature.inputs, request.inputs[""])
        try:
            for _ in range(num_iterations):
                servable.run(request.signature, inputs)
        except RunFailed as error:
            raise type(error)(
                f"request {number} of {WARMUP_FILE} cannot be run: {error.message}",
                hint="give other rows (--warmup), or remove that file from the version",
            ) from error
        yield replace(request, inputs=inputs)
