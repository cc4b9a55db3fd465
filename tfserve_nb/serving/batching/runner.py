"""The model runner: takes batches from queues and runs them, on one thread per device or on several.

The runner pulls: whenever it is free it takes what is queued, so batches form by themselves under load and an idle
server adds no delay. Several versions and models share one runner and take turns. Nothing that a model or a request
does can end the loop: a batch that fails is run again request by request, so that only the request that is to blame
fails.

Thread: `tfserve-runner-…`, daemons. `submit`, `cancel`, `attach`, `detach` may be called from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ...errors import Cancelled, NotAvailable, RunFailed, RunRejected, ServingError
from ...threads import start_thread
from ...types import Tensors
from ..backend import Outcome
from ..telemetry.model_metrics import REASONS, BatchSummary
from .queue import Batch, BatchQueue, Finished, Part, Task

RunFunction = Callable[[Tensors], Tensors]
"""Inputs -> outputs of one run: name -> array `(b, ...)` in, name -> array `(b, ...)` out."""

Observe = Callable[[Batch, float, float], None]
"""Gets a batch that was run, and when it started and was done; on the runner's thread."""

JOIN_S = 1.5


class BatchStats:
    """Counts the batches of one queue. The runner's thread writes; a reader may be one batch behind."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._num_padded = 0
        self._num_requests = 0
        self._queue_s = 0.0
        self._sizes: dict[int, int] = {}
        self._reasons = dict.fromkeys(REASONS, 0)

    def add(self, batch: Batch, size: int, started_s: float) -> None:
        """A batch was run as `size` rows."""
        self._num_rows += batch.num_rows
        self._num_padded += max(0, size - batch.num_rows)
        self._num_requests += len(batch.parts)
        self._queue_s += sum([started_s - part.task.enqueued_s for part in batch.parts])
        self._sizes[size] = self._sizes.get(size, 0) + 1
        self._reasons[batch.reason] += 1

    def summary(self, run_s: Mapping[int, float]) -> BatchSummary:
        """The counts now, with what was learned of the runs."""
        return BatchSummary(
            num_batches=sum(self._reasons.values()),
            num_rows=self._num_rows,
            num_padded=self._num_padded,
            reasons=dict(self._reasons),
            sizes=dict(self._sizes),
            queue_ms=1e3 * self._queue_s / max(1, self._num_requests),
            run_ms={size: 1e3 * seconds for size, seconds in run_s.items()},
        )


@dataclass(eq=False, slots=True)
class Lane:
    """A queue together with the function that runs its batches and the one that observes them.

    Attributes:
        queue: the queue.
        run: runs a batch.
        observe: called after each batch, or None.
        separate: called with the reason when a run shows that rows may not run together, or None.
        stats: counts its batches.
        is_background: whether it only runs while no other lane has requests.
        finish_s: the device's virtual time at which this lane's last batch is done; see `Runner`.
    """

    queue: BatchQueue
    run: RunFunction
    observe: Observe | None = None
    separate: Callable[[str], None] | None = None
    stats: BatchStats = field(default_factory=BatchStats)
    is_background: bool = False
    finish_s: float = 0.0

    def summary(self) -> BatchSummary:
        """The batches so far."""
        return self.stats.summary(self.queue.pace.run_s)


class Runner:
    """Runs the batches of all versions on one device, and shares its time fairly between them.

    Each lane is charged for the time that its batches take, and the lane that had least goes first; one that was idle
    starts level with the others and has no credit. So a large model does not crowd out a small one.

    Background lanes get what time is left over: they run only while nothing waits in any other lane, and one of several
    threads is always left to the others.

    Args:
        device: for the threads' names, such as `cpu0`.
        num_threads: batches that may run at the same time.
        now: the clock in seconds.

    Reference: start-time fair queueing (Goyal, Vin, Cheng, 1996).
    """

    def __init__(
        self, device: str = "cpu0", *, num_threads: int = 1, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.device = device
        self._num_threads = num_threads
        self._now = now
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._num_idle = 0
        self._lanes: list[Lane] = []
        self._background: list[Lane] = []
        self._num_background = 0
        self._virtual_s = 0.0
        self._stopping = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads; returns when they take batches.

        Raises:
            ServerFailed: if they do not within two seconds.
        """
        for number in range(self._num_threads):
            suffix = f"-{number}" if number else ""
            self._threads.append(start_thread(f"tfserve-runner-{self.device}{suffix}", self._work))

    def stop(self) -> None:
        """Refuse new tasks, finish the waiting ones with `NotAvailable`, end the threads. Idempotent, bounded."""
        finished: Finished = []
        with self._wake:
            self._stopping = True
            for lane in self._lanes + self._background:
                finished += lane.queue.close(NotAvailable("the server is shutting down"))
            self._wake.notify_all()
        _deliver(finished)
        until_s = time.perf_counter() + JOIN_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until_s - time.perf_counter()))

    def attach(
        self,
        queue: BatchQueue,
        run: RunFunction,
        observe: Observe | None = None,
        separate: Callable[[str], None] | None = None,
        *,
        is_background: bool = False,
    ) -> Lane:
        """Open a queue whose batches go to `run`; see `Lane` for the other arguments."""
        lane = Lane(queue, run, observe, separate, is_background=is_background)
        with self._wake:
            (self._background if is_background else self._lanes).append(lane)
        return lane

    def detach(self, lane: Lane) -> None:
        """Close a queue; tasks that still wait in it are finished with `NotAvailable`."""
        with self._wake:
            with contextlib.suppress(ValueError):
                (self._background if lane.is_background else self._lanes).remove(lane)
            finished = lane.queue.close()
        _deliver(finished)

    def submit(
        self,
        lane: Lane,
        inputs: Tensors,
        num_rows: int,
        *,
        deadline_s: float,
        on_done: Callable[[Outcome], None],
        is_alone: bool = False,
        wakes: bool = True,
    ) -> Task:
        """Queue one request; see `Handle.submit` for the arguments and `Task` for `is_alone`.

        Raises:
            InvalidRequest: if it has more rows than the queue takes in one request.
            QueueFull: if the queue has no room.
            NotAvailable: if the queue was closed.
        """
        now_s = self._now()
        task = Task(inputs, num_rows, enqueued_s=now_s, deadline_s=deadline_s, on_done=on_done, is_alone=is_alone)
        task.owner = self
        with self._lock:
            lane.queue.add(task)
            if wakes and self._num_idle:
                self._wake.notify()
        return task

    def wake(self) -> None:
        """Start what was submitted without waking."""
        # A thread that found nothing counts itself idle before it lets go of the lock that submitting takes.
        if self._num_idle:
            with self._lock:
                self._wake.notify()

    def cancel(self, task: Task) -> None:
        """Finish a task with `Cancelled`, unless it was finished already; its batch mates are not touched."""
        self._fail(task, Cancelled("the caller went away"))

    def _work(self, ready: threading.Event) -> None:
        ready.set()
        while True:
            taken = self._next()
            if taken is None:
                return
            lane, batch, finished = taken
            _deliver(finished)
            if batch is not None:
                self._run_batch(lane, batch)
            if lane.is_background:
                with self._lock:
                    self._num_background -= 1

    def _next(self) -> tuple[Lane, Batch | None, Finished] | None:
        """Wait for the next batch; None when stopping."""
        with self._wake:
            while not self._stopping:
                now_s = self._now()
                lane, ready_s = self._choose(now_s, self._lanes)
                if lane is not None:
                    lane.finish_s = self._virtual_s = max(self._virtual_s, lane.finish_s)
                elif ready_s is None and self._background:
                    lane = self._choose_background(now_s)
                if lane is not None:
                    batch, finished = lane.queue.take(now_s)
                    if self._num_idle:
                        self._wake.notify()  # there may be more than one batch
                    return lane, batch, finished
                self._num_idle += 1
                try:
                    self._wake.wait(None if ready_s is None else max(0.0, ready_s - now_s))
                finally:
                    self._num_idle -= 1
            return None

    def _choose_background(self, now_s: float) -> Lane | None:
        """The background lane whose turn it is, if a thread may run one."""
        is_allowed = self._num_background < max(1, self._num_threads - 1)
        lane, _ = self._choose(now_s, self._background if is_allowed else [])
        self._num_background += lane is not None
        return lane

    @staticmethod
    def _choose(now_s: float, lanes: list[Lane]) -> tuple[Lane | None, float | None]:
        """The lane whose turn it is, or else when one will have a batch."""
        chosen: Lane | None = None
        earliest: float | None = None
        for lane in lanes:
            ready_s = lane.queue.ready_at()
            if ready_s is None:
                continue
            if ready_s > now_s:
                earliest = ready_s if earliest is None else min(earliest, ready_s)
            elif chosen is None or lane.finish_s < chosen.finish_s:
                chosen = lane
        return chosen, earliest

    def _run_batch(self, lane: Lane, batch: Batch) -> None:
        started_s = self._now()
        for task, _, _ in batch.parts:
            if task.started_s is None:
                task.started_s = started_s
        try:
            outputs = run_parts(lane, batch.parts)
        except RowsMisfit as misfit:
            self._separate(lane, batch.parts, misfit.message)
            return
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the loop goes on
            if len(batch.parts) == 1:
                self._fail(batch.parts[0].task, as_serving_error(error))
            else:
                # One request must not decide over its batch mates: find out which one is at fault.
                for part in batch.parts:
                    if not part.task.is_finished:
                        self._run_batch(lane, Batch((part,), part.stop - part.start, batch.reason))
            return
        done_s, unfit = self._complete(batch.parts, outputs)
        self._learn(lane, batch, started_s, done_s)
        if lane.observe is not None:
            lane.observe(batch, started_s, done_s)
        if unfit:
            self._separate(lane, unfit, "the outputs of two parts of a request have different shapes")

    def _separate(self, lane: Lane, parts: tuple[Part, ...], reason: str) -> None:
        """A run has shown that rows may not run together: answer these requests as each is answered alone."""
        if lane.separate is not None:
            lane.separate(reason)
        for task in dict.fromkeys(part.task for part in parts):
            with self._lock:
                if task.is_finished or task.is_alone:
                    continue  # another thread runs it whole already
                task.is_alone = True
                lane.queue.withdraw(task)
            self._run_batch(lane, Batch((Part(task, 0, task.num_rows),), task.num_rows, "full"))

    def _learn(self, lane: Lane, batch: Batch, started_s: float, done_s: float) -> None:
        """Charge the lane for the device's time, and remember how long the run took."""
        took_s = done_s - started_s
        is_one = not lane.queue.is_batchable or batch.parts[0].task.is_alone
        size = batch.num_rows if is_one else lane.queue.options.padded_size(batch.num_rows)
        with self._lock:
            lane.finish_s += took_s / self._num_threads
            lane.queue.ran(size, took_s)
            lane.stats.add(batch, size, started_s)

    def _complete(self, parts: tuple[Part, ...], outputs: list[Tensors]) -> tuple[float, tuple[Part, ...]]:
        """Finish the requests whose rows are all there; returns when, and the parts that do not fit to others."""
        done_s = self._now()
        finished: Finished = []
        unfit: list[Part] = []
        with self._lock:
            for part, piece in zip(parts, outputs, strict=True):
                task, start, stop = part
                is_whole = stop - start == task.num_rows
                if task.is_finished or (task.is_alone and not is_whole):
                    continue  # the latter runs whole by now
                try:
                    outcome = task.add_piece(piece, start, stop, done_s)
                except ValueError:
                    unfit.append(part)
                    continue
                if outcome is not None:
                    task.is_finished = True
                    finished.append((task, outcome))
        _deliver(finished)
        return done_s, tuple(unfit)

    def _fail(self, task: Task, error: ServingError) -> None:
        """Finish one task with an error, unless it is finished."""
        with self._lock:
            if task.is_finished:
                return
            task.is_finished = True
            if task.queue is not None:
                task.queue.forget(task)
        _deliver([(task, error)])


class RowsMisfit(RunFailed):
    """Rows that ran together, or were about to, have to run as they came; the message says why they may not."""


def run_parts(lane: Lane, parts: tuple[Part, ...]) -> list[Tensors]:
    """Run one batch: put the rows together, pad, run, hand the rows back.

    Args:
        lane: where the batch came from.
        parts: in order; together at most `max_batch_size` rows.

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
        return [lane.run(first.task.inputs)]
    num_rows = sum([part.stop - part.start for part in parts])
    padding = queue.options.padded_size(num_rows) - num_rows if num_rows else 0
    outputs = lane.run({name: _assemble(name, parts, padding, queue) for name in first.task.inputs})
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


def _assemble(name: str, parts: tuple[Part, ...], padding: int, queue: BatchQueue) -> np.ndarray:
    arrays = [
        task.inputs[name] if stop - start == task.num_rows else task.inputs[name][start:stop]
        for task, start, stop in parts
    ]
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


def as_serving_error(error: Exception) -> ServingError:
    """Any exception of a run as an error with a public text."""
    if isinstance(error, ServingError):
        return error
    return RunFailed(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")


def _deliver(finished: Finished) -> None:
    for task, outcome in finished:
        try:
            task.on_done(outcome)
        except Exception:
            # A caller with a defect must harm neither the runner's thread nor other callers.
            logging.getLogger(__name__).exception("an outcome could not be delivered")
