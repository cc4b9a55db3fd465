"""What is recorded of finished requests, batches, warm-ups and shadow copies: the values that observers get.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...types import Tensors


class RequestRecord(NamedTuple):
    """One finished request. A tuple, because a frozen dataclass costs two microseconds more to make.

    Attributes:
        model: the model's name, or "" when the request named none that exists.
        version: the version that answered, or None when none was chosen.
        signature: the signature's name, or "".
        code: gRPC code name, `OK` for an answered request.
        num_rows: rows of the request (dimension 0).
        received_s: the request's head had arrived (in-kernel: predict was called).
        decoded_s: the body had become tensors; equal to `received_s` when it never did.
        started_s: its first batch started; None when it never ran.
        done_s: its last batch was done; None when it never ran.
        written_s: the response was handed to the socket (in-kernel: returned).
        api: the call, such as `Predict` (gRPC) or `predict` (REST and in-kernel).
        entrypoint: `GRPC`, `REST` or `KERNEL`.
        label: the version label that the request named, or "".
        key: what keeps its client with a version, while traffic is split or compared; or "".
        request_id: what client and server call it, while traffic is compared or observed; or "".
        is_assigned: whether the traffic split, and not the request, chose the version.
    """

    model: str
    version: int | None
    signature: str
    code: str
    num_rows: int
    received_s: float
    decoded_s: float
    started_s: float | None
    done_s: float | None
    written_s: float
    api: str = "predict"
    entrypoint: str = "KERNEL"
    label: str = ""
    key: str = ""
    request_id: str = ""
    is_assigned: bool = False

    @property
    def latency_s(self) -> float:
        """From the request's head to the response, in seconds."""
        return self.written_s - self.received_s


class RequestTensors(NamedTuple):
    """What a finished request carried. Clients may write to the arrays: an observer that keeps them copies them.

    Attributes:
        inputs: name -> array `(rows, ...)`.
        outputs: name -> array, row i answers input row i; None for a request that failed.
        message: why it failed, public text; or "".
    """

    inputs: Tensors
    outputs: Tensors | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One run of a model.

    Attributes:
        model: the model's name.
        version: its version.
        signature: the signature's name.
        task_rows: rows of each request in it.
        num_inputs: input tensors of the signature.
        execution_rows: rows that the model got, padding included.
        waited_s: how long each request waited in the queue, in seconds.
        run_s: how long the run took, in seconds.
        reason: why the batch left: `full`, `timeout` or `free`.
        is_batched: whether requests may share runs here at all.
        done_s: when it was done, on the clock of `RequestRecord`.
        is_background: whether these were shadow copies, whose outputs no client gets.
    """

    model: str
    version: int
    signature: str
    task_rows: tuple[int, ...]
    num_inputs: int
    execution_rows: int
    waited_s: tuple[float, ...]
    run_s: float
    reason: str
    is_batched: bool
    done_s: float = 0.0
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class WarmupRecord:
    """One version whose warm-up file was run.

    Attributes:
        path: the version's folder.
        code: `OK`, or the code of what failed.
        num_records: requests that were read.
        took_s: in seconds.
    """

    path: str
    code: str
    num_records: int
    took_s: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A request that one version answered, and the outcome of its copy for another.

    Attributes:
        model: the model's name.
        version_a: the version that answered the client.
        version_b: the version that got the copy.
        signature: the signature's name.
        inputs: name -> array `(rows, ...)`; a worker's requests come several at once.
        outputs_a: name -> array, row i for input row i.
        outputs_b: the same of `version_b`; None when it failed.
        error: why it failed, public text; or "".
        at_s: when the copy was done, on the clock of `RequestRecord`.
    """

    model: str
    version_a: int
    version_b: int
    signature: str
    inputs: Tensors
    outputs_a: Tensors
    outputs_b: Tensors | None
    error: str
    at_s: float


class CopyCounts(NamedTuple):
    """Counts of the copies for one version.

    Attributes:
        num_run: copies that were run.
        num_failed: copies whose run failed, or whose inputs were refused.
        num_dropped: copies that were left out: there was no room or no time, or the version was unloaded.
    """

    num_run: int = 0
    num_failed: int = 0
    num_dropped: int = 0


def own_copy(array: np.ndarray) -> np.ndarray:
    """A C-contiguous, read-only copy of a request's array, to keep after the request is over."""
    copy = np.array(array, order="C", copy=True)
    copy.flags.writeable = False
    return copy


def num_bytes(tensors: Tensors) -> int:
    """What arrays take in memory; each text counts with what Python adds to it."""
    return sum(
        [
            int(array.nbytes) if array.dtype != object else sum([56 + len(item) for item in array.reshape(-1)])
            for array in tensors.values()
        ]
    )
