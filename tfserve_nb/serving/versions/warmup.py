"""Run a version before it becomes AVAILABLE: every allowed batch size once, so that no client waits for a first run.

The same runs show whether rows may run together, see `sharing`.

Thread: the manager's.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import RunFailed, RunRejected, ServingError
from ...export.check import example_batch
from ...export.warmup_requests import WARMUP_FILE, WarmupRequest, read_warmup_requests
from ...types import SignatureSpec, Tensors
from ..engines.evidence import MADE_UP, Evidence
from ..engines.servable import Servable
from ..telemetry.observer import Observer
from ..telemetry.records import WarmupRecord
from .inputs import check_inputs, has_one_shape
from .row_evidence import read_noted_rows
from .sharing import RowSharing, decide, fixed_dimension, ignores_added_length, made_up
from .source import VersionSource

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
    servable: Servable,
    source: VersionSource,
    report: Report,
    observer: Observer | None = None,
    seen: Seen = nothing_seen,
) -> dict[str, RowSharing]:
    """Run the stored warm-up requests, then every signature once for each allowed batch size.

    Args:
        servable: the loaded version.
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
    stored = _replay_observed(servable, source, observer) if source.num_warmup_iterations else {}
    options = source.options
    if not options.is_enabled:
        return dict.fromkeys(servable.signatures, RowSharing(is_allowed=False))
    noted = read_noted_rows(source.path)
    total = len(servable.signatures) * len(options.allowed_batch_sizes)
    count = itertools.count(1)
    sharing = {}
    for name, signature in servable.signatures.items():
        if servable.effects.outside_ops:
            sharing[name] = RowSharing(is_allowed=False, reason=NOT_TRIED)
            continue
        run = partial(servable.run, name)
        is_changed, known = name in servable.effects.states, noted.get(name)
        is_decided = is_changed or fixed_dimension(signature) or (known is not None and not known.are_independent)
        if is_decided and name not in stored:
            _run_once(run, signature)
        if is_changed:
            sharing[name] = RowSharing(is_allowed=False)  # every run leaves its mark on the next: none may be added
            continue
        sharing[name] = decide(
            run,
            signature,
            evidence_for(signature, stored.get(name, []), seen),
            options.allowed_batch_sizes,
            noted=known,
            is_warm_up=options.pads,
            on_run=lambda: report(min(next(count), total), total),
        )
        if options.pad_variable_length_inputs and sharing[name].is_allowed and not has_one_shape(signature):
            rows = evidence_for(signature, stored.get(name, []), seen)
            sharing[name] = replace(sharing[name], pads_lengths=ignores_added_length(run, signature, rows))
    report(total, total)
    return sharing


def evidence_for(signature: SignatureSpec, stored: Iterable[Tensors], seen: Seen) -> Iterator[Evidence]:
    """The user's rows, then made-up ones.

    Args:
        signature: what they are for.
        stored: rows of the version's warm-up file.
        seen: captured requests.
    """
    yield from (Evidence(rows, "warm-up rows") for rows in stored)
    for rows in itertools.islice(seen(signature.name), MAX_SEEN):
        if _are_rows(signature, rows):
            yield Evidence(rows, "captured requests")
    yield from (Evidence(rows, MADE_UP) for rows in made_up(signature))


def stored_rows(servable: Servable, path: Path) -> dict[str, list[Tensors]]:
    """The inputs of a version's stored warm-up requests that hold rows, by signature, as they are.

    Raises:
        ExportFailed: if the file is damaged or too long.
    """
    rows: dict[str, list[Tensors]] = {}
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
