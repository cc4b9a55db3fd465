"""One run: the rows of several requests put together, padded, run, and handed back.

Thread: the runner's.
"""

from __future__ import annotations

import contextlib

import numpy as np

from ...errors import RunFailed, RunRejected
from ...types import Tensors
from .lane import Lane
from .queue import BatchQueue, Part


class RowsMisfit(RunFailed):
    """Rows that ran together, or were about to, have to run as they came; the message says why they may not."""


def _run(lane: Lane, inputs: Tensors, limit_s: float | None, *, is_here: bool) -> Tensors:
    if is_here and lane.run_here is not None:
        return lane.run_here(inputs)
    return lane.run(inputs) if lane.run_within is None or limit_s is None else lane.run_within(inputs, limit_s)


def run_parts(
    lane: Lane, parts: tuple[Part, ...], *, limit_s: float | None = None, is_here: bool = False
) -> list[Tensors]:
    """Run one batch: put the rows together, pad, run, hand the rows back.

    Args:
        lane: where the batch came from.
        parts: in order; together at most `max_batch_size` rows.
        limit_s: how long the run may take, in seconds; None for as long as it takes.
        is_here: on the thread that submits; see `Lane.run_here`.

    Returns:
        For each part, name -> array with its rows; views of the run's outputs, read-only.

    Raises:
        RowsMisfit: if the parts have to run alone: an output does not have one row for each input row, or this became
            known after the batch was put together.

    Reference: TensorFlow Serving pads with copies of row 0 of the last task (batching_session.cc); so do we.
    """
    queue, first = lane.queue, parts[0]
    if not queue.is_batchable or first.task.is_alone:
        if len(parts) > 1 or first.stop - first.start < first.task.num_rows:
            raise RowsMisfit("rows may not run together")
        return [_run(lane, first.task.inputs, limit_s, is_here=is_here)]
    num_rows = sum([part.stop - part.start for part in parts])
    padding = queue.options.padded_size(num_rows) - num_rows if num_rows else 0
    requests = [
        task.inputs
        if stop - start == task.num_rows
        else {name: array[start:stop] for name, array in task.inputs.items()}
        for task, start, stop in parts
    ]
    inputs = {name: _assemble([rows[name] for rows in requests], padding, queue) for name in first.task.inputs}
    outputs = _run(lane, inputs, limit_s, is_here=is_here)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != num_rows + padding:
            raise RowsMisfit(
                f"output {name} has the shape {list(array.shape)} for {num_rows + padding} rows of a request"
            )
    if len(parts) == 1 and not padding:
        return [outputs]
    rows: list[Tensors] = []
    begin = 0
    for _, start, stop in parts:
        end = begin + stop - start
        rows.append({name: array[begin:end] for name, array in outputs.items()})
        begin = end
    return rows


def _assemble(arrays: list[np.ndarray], padding: int, queue: BatchQueue) -> np.ndarray:
    if len(arrays) == 1 and not padding:
        return arrays[0]
    if not queue.has_one_shape and any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
        arrays = pad_variable_length(arrays)
    if padding:
        filler = next(rows[:1] for rows in reversed(arrays) if len(rows))
        arrays += [filler] * padding
    return _joined(arrays)


def pad_variable_length(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Make arrays of different inner dimensions as large as the largest, each filled up with its own first element.

    Args:
        arrays: each `(b_i, ...)`, of equal rank from 1 to 6.

    Raises:
        RunRejected: for other ranks, or when an array without elements has to be filled up.

    Reference: TensorFlow Serving's batching_util.cc.
    """
    ranks = {array.ndim for array in arrays}
    if len(ranks) != 1 or not 1 <= arrays[0].ndim <= 6:
        raise RunRejected("Only tensors with rank from 1 to 6 can be padded.")
    inner = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
    padded = []
    for array in arrays:
        if array.shape[1:] == inner:
            padded.append(array)
            continue
        if not array.size:
            raise RunRejected("Got empty tensor in batch of non-empty tensors.")
        larger = np.full((len(array), *inner), array.flat[0], dtype=array.dtype)
        larger[tuple(slice(size) for size in array.shape)] = array
        padded.append(larger)
    return padded


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """The rows of all arrays, one after the other.

    `np.concatenate` lets go of the interpreter's lock for each array of more than 500 elements; a busy loop takes it,
    and the batch waits a switch interval for every request in it.
    """
    first = arrays[0]
    if first.size and first.dtype.kind in "biuf":
        with contextlib.suppress(TypeError):  # not contiguous
            rows = b"".join(arrays)  # type: ignore[arg-type]  # arrays are buffers
            return np.frombuffer(rows, first.dtype).reshape(-1, *first.shape[1:])
    return np.concatenate(arrays)
