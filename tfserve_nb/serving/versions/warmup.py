"""Run a version before it becomes AVAILABLE: every allowed batch size once, so that no client waits for a first run.

Warm-up also finds out whether rows may share a run: a model whose outputs for a row depend on the rows beside it (a
softmax over the batch, for example) is served request by request, because batching must not change outputs.

Thread: the manager's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ...errors import ExportFailed, RunFailed, ServingError
from ...export.check import compare_outputs, example_batch
from ...export.warmup_requests import WarmupRequest, read_warmup_requests
from ...types import SignatureSpec, Tensors
from ..telemetry.observer import Observer
from ..telemetry.records import WarmupRecord
from .servable import Servable
from .source import VersionSource

Report = Callable[[int, int], None]
"""(runs done, runs in all)."""

NUM_COMPARED_ROWS = 3


def warm_up(
    servable: Servable, source: VersionSource, report: Report, observer: Observer | None = None
) -> dict[str, bool]:
    """Run the stored warm-up requests, then every signature once for each allowed batch size.

    Args:
        servable: the loaded version.
        source: its folder and batching limits. Rows of the stored requests are used for the batch sizes; without them
            rows are made from the signature.
        report: called with the progress.
        observer: gets the run of a warm-up file, or None.

    Returns:
        signature -> whether requests may share a run.

    Raises:
        RunFailed: if the model cannot run the user's own rows or requests. Rows that we made up are allowed to fail,
            the model may accept only certain values.
        ExportFailed: if the stored requests cannot be read.
    """
    stored = _replay_observed(servable, source, observer) if source.num_warmup_iterations else {}
    options = source.options
    if not options.is_enabled:
        return dict.fromkeys(servable.signatures, False)
    sizes = options.allowed_batch_sizes if options.pads else (1,)
    total = len(servable.signatures) * len(sizes)
    done = 0
    batchable: dict[str, bool] = {}
    for name, signature in servable.signatures.items():
        own = stored.get(name)
        if own is None and servable.outside_ops:
            batchable[name] = False  # what it does outside, it does for requests only; so nothing is known of its rows
            continue
        rows = example_batch(signature, NUM_COMPARED_ROWS) if own is None else own
        is_free = all(spec.is_batched for spec in (*signature.inputs.values(), *signature.outputs.values()))
        batchable[name] = is_free = is_free and name not in servable.states
        try:
            if is_free:
                batchable[name] = rows_are_independent(servable, signature, rows)
            for size in sizes if batchable[name] else (1,):
                servable.run(name, repeat_rows(rows, size) if is_free else rows)
                done += 1
                report(done, total)
        except RunFailed:
            if own is not None:
                raise
    report(total, total)
    return batchable


def _replay_observed(servable: Servable, source: VersionSource, observer: Observer | None) -> dict[str, Tensors]:
    """Run the stored requests; the rows of each signature's first predict request, if it has any."""
    started_s, num_records, code = time.perf_counter(), 0, "OK"
    rows: dict[str, Tensors] = {}
    try:
        for request in replay(servable, source.path, source.num_warmup_iterations):
            num_records += 1
            signature = servable.signatures[request.signature]
            are_rows = all(array.ndim and len(array) for array in request.inputs.values())
            if not request.is_examples and are_rows and request.inputs.keys() == signature.inputs.keys():
                rows.setdefault(request.signature, request.inputs)
    except ServingError as error:
        code = error.code
        raise
    finally:
        if observer is not None and (num_records or code != "OK"):
            observer.on_warmup(WarmupRecord(str(source.path), code, num_records, time.perf_counter() - started_s))
    return rows


def replay(servable: Servable, path: Path, num_iterations: int) -> Iterator[WarmupRequest]:
    """Run the requests of `assets.extra/tf_serving_warmup_requests`, if the version has that file.

    Yields:
        Each request that was run.

    Raises:
        ExportFailed: if the file is damaged or too long.
        RunFailed: if a request fails; the version does not serve then, as in TensorFlow Serving.
    """
    for request in read_warmup_requests(path):
        signature = servable.signatures.get(request.signature)
        if signature is None:
            raise RunFailed(f'Serving signature key "{request.signature}" not found.')
        inputs = request.inputs
        if request.is_examples:
            inputs = dict.fromkeys(signature.inputs, request.inputs[""])
        for _ in range(num_iterations):
            servable.run(request.signature, inputs)
        yield request


def repeat_rows(rows: Tensors, size: int) -> dict[str, np.ndarray]:
    """The rows, repeated until there are `size` of them."""
    return {name: np.resize(array, (size, *array.shape[1:])) for name, array in rows.items()}


def rows_are_independent(servable: Servable, signature: SignatureSpec, rows: Tensors) -> bool:
    """Whether rows that run together get the same outputs as rows that run alone, within rounding.

    Args:
        servable: the loaded version.
        signature: one whose inputs and outputs all have a free dimension 0.
        rows: name -> array `(n, ...)`, n at least 1.
    """
    few = repeat_rows(rows, NUM_COMPARED_ROWS)
    together = servable.run(signature.name, few)
    if any(array.ndim == 0 or len(array) != NUM_COMPARED_ROWS for array in together.values()):
        return False
    alone = [
        servable.run(signature.name, {name: array[row : row + 1] for name, array in few.items()})
        for row in range(NUM_COMPARED_ROWS)
    ]
    try:
        joined = {name: np.concatenate([outputs[name] for outputs in alone]) for name in together}
        compare_outputs(joined, together)
    except (ExportFailed, ValueError):
        return False
    return True
