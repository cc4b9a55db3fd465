"""The batch queue: requests go in one by one, batches come out.

Rows are counted, not requests. A request that fits into a batch is never split; one that is larger than
`max_batch_size` is split, and its outputs are put together again. Order is kept: rows leave in the order in which they
came. A request that was cancelled or has expired is dropped before it runs and changes nothing for the others.

Thread: none of its own. `BatchQueue` and `Task` are guarded by the lock of the `Runner` that owns them; time comes in
as `now_s`, so every interleaving can be tested without threads or clocks.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from ...errors import DeadlineExceeded, InvalidRequest, NotAvailable, QueueFull, ServingError
from ...types import Tensors
from ..backend import Answer, Outcome
from .options import BatchingOptions
from .pace import CERTAINTY, QueuePace


class TaskOwner(Protocol):
    """What runs a task: its `Runner`."""

    def cancel(self, task: Task) -> None:
        """Finish a task with `Cancelled`, unless it was finished already."""


@dataclass(eq=False, repr=False, slots=True)
class Task:
    """One request in a queue, and the `Ticket` of its caller; it is finished exactly once.

    Attributes:
        inputs: name -> array `(num_rows, ...)`, checked against the signature, read-only.
        num_rows: rows of every input.
        enqueued_s: when it was submitted.
        deadline_s: when it is not worth starting any more.
        on_done: gets the outcome.
        is_alone: it runs whole and by itself, because its inputs have no common dimension 0, or because a run has shown
            that its rows may not share one.
        owner: what runs it, once it is submitted.
        queue: where it waits, once it is there.
        num_rows_taken: rows that have left the queue.
        num_rows_done: rows whose outputs are in `pieces`.
        pieces: the outputs of a request that was split so far, by their first row.
        started_s: when its first batch was run.
        is_finished: whether it has an outcome.
    """

    inputs: Tensors
    num_rows: int
    _: KW_ONLY
    enqueued_s: float
    deadline_s: float
    on_done: Callable[[Outcome], None]
    is_alone: bool = False
    owner: TaskOwner | None = field(default=None, init=False)
    queue: BatchQueue | None = field(default=None, init=False)
    num_rows_taken: int = field(default=0, init=False)
    num_rows_done: int = field(default=0, init=False)
    pieces: dict[int, Tensors] | None = field(default=None, init=False)
    started_s: float | None = field(default=None, init=False)
    is_finished: bool = field(default=False, init=False)

    def cancel(self) -> None:
        """Finish the task with `Cancelled`, unless it is finished already; any thread."""
        if self.owner is not None and not self.is_finished:
            self.owner.cancel(self)

    def add_piece(self, outputs: Tensors, start: int, stop: int, done_s: float) -> Answer | None:
        """Keep the outputs of some rows; returns the `Answer` once all rows are there.

        Args:
            outputs: name -> array `(stop - start, ...)`.
            start: the first of these rows; with several runner threads, later rows may be done first.
            stop: the row after the last of them.
            done_s: when their batch was done.
        """
        if stop - start == self.num_rows:
            return Answer(outputs, self.started_s or done_s, done_s)
        pieces = self.pieces = self.pieces or {}
        if start in pieces:  # these rows were run again, and both runs are done now
            return None
        pieces[start] = outputs
        self.num_rows_done += stop - start
        if self.num_rows_done < self.num_rows:
            return None
        in_order = [pieces[start] for start in sorted(pieces)]
        whole = {name: np.concatenate([piece[name] for piece in in_order]) for name in outputs}
        return Answer(whole, self.started_s or done_s, done_s)


class Part(NamedTuple):
    """Rows `start` to `stop` (exclusive) of a task, within a batch."""

    task: Task
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What the runner gets: parts in order of arrival.

    Attributes:
        parts: at least one.
        num_rows: the sum of their rows, at most `max_batch_size`.
        reason: why it left: `full`, `timeout` (its first request had waited `batch_timeout_micros`), `deadline` (a
            request could wait no longer) or `free` (the runner was, and no other request was expected in time).
    """

    parts: tuple[Part, ...]
    num_rows: int
    reason: str

    def mark_started(self, started_s: float) -> None:
        """Note when its requests were run for the first time."""
        for task, _, _ in self.parts:
            if task.started_s is None:
                task.started_s = started_s


LEAST_SHARED_S = 1e-3
"""What runs on several threads takes at least so many seconds on each: less is not worth waking another."""

Finished = list[tuple[Task, Outcome]]
"""Tasks with their outcomes, to be delivered after the lock is released."""


class BatchQueue:
    """The queue of one signature of one version.

    Args:
        options: the limits.
        is_batchable: False when rows must not run together (see `versions.sharing`): then every task is a batch of its
            own, neither cut nor padded. It may become False while requests wait.
        has_one_shape: True when the inner dimensions of all tasks are known to be equal.
    """

    def __init__(self, options: BatchingOptions, *, is_batchable: bool = True, has_one_shape: bool = False) -> None:
        self.options = options
        self.is_batchable = is_batchable
        self.has_one_shape = has_one_shape
        self.pace = QueuePace()
        self._longest_s = 0.0
        self._max_rows = options.max_enqueued_rows
        self.num_rows = 0
        self._tasks: deque[Task] = deque()
        self._closed: ServingError | None = None

    def add(self, task: Task) -> None:
        """Append a task.

        Raises:
            QueueFull: if its rows do not fit; a task larger than the whole queue is taken when nothing else waits.
            NotAvailable: if the queue was closed.
        """
        if self._closed is not None:
            raise self._closed
        options, num_rows = self.options, self.num_rows
        limit = options.input_batch_size_limit
        if limit is not None and task.num_rows > limit and self.is_batchable:
            raise InvalidRequest(f"Task size {task.num_rows} is larger than maximum input batch size {limit}")
        room = self._max_rows - num_rows
        if task.num_rows > room and num_rows:
            raise self._full(task, room)
        if num_rows and task.deadline_s - task.enqueued_s < self._longest_s:
            self._check_deadline(task)
        if options.batch_timeout_micros:
            self.pace.arrived(task.enqueued_s)
        task.queue = self
        self.num_rows = num_rows + task.num_rows
        self._tasks.append(task)

    def ran(self, size: int, took_s: float) -> None:
        """A run of `size` rows took so long."""
        self.pace.ran(size, took_s)
        full = self.options.max_batch_size
        if size == full or not self._longest_s:
            # What a full queue takes: with more time than that, no request is without hope.
            self._longest_s = self.pace.wait_s(self.options.max_enqueued_rows, full, full)

    def _check_deadline(self, task: Task) -> None:
        """Refuse a request whose deadline would pass while it waits."""
        if not self.is_batchable:
            return
        size = self.options.max_batch_size
        own = self.options.padded_size(min(max(1, task.num_rows), size))
        expected_s = self.pace.wait_s(self.num_rows, own, size)
        left_s = task.deadline_s - task.enqueued_s
        if expected_s * CERTAINTY > left_s:
            raise DeadlineExceeded(
                f"{self.num_rows} rows wait before this request, it is expected to be done in "
                f"{expected_s * 1e3:.0f} ms, and its deadline is in {left_s * 1e3:.0f} ms",
                hint="send less at once, or allow more time",
                retry_after_s=expected_s,
            )

    def _full(self, task: Task, room: int) -> QueueFull:
        size, most = self.options.max_batch_size, self.options.max_enqueued_batches
        waiting = -(-self.num_rows // size)
        if self.options.enable_large_batch_splitting:
            why = (
                f"task size is {task.num_rows} but scheduling capacity is only {max(0, room)} "
                f"(num_enqueued_batches={waiting}, max_enqueued_batches={most}, max_execution_batch_size={size})"
            )
        else:
            why = f"currently {waiting} batches enqueued and max_enqueued_batches is {most}"
        return QueueFull(
            f"The batch scheduling queue to which this task was submitted is full; {why}",
            hint="send less at once, or deploy with a larger --max-enqueued-batches",
            retry_after_s=self.pace.wait_s(self.num_rows, size, size),
        )

    def forget(self, task: Task) -> None:
        """Give back the room of a task that was finished from outside; it is skipped when its turn comes."""
        self.num_rows -= task.num_rows - task.num_rows_taken
        task.num_rows_taken = task.num_rows

    def withdraw(self, task: Task) -> None:
        """Take back what is left of a task of which a part was taken: it runs whole, outside of the queue."""
        if task.num_rows_taken < task.num_rows:
            self.forget(task)
            with contextlib.suppress(ValueError):
                self._tasks.remove(task)

    def close(self, error: ServingError | None = None) -> Finished:
        """Refuse new tasks; the waiting ones are finished with `error`."""
        self._closed = self._closed or error or NotAvailable("the version was unloaded")
        finished: Finished = []
        while self._tasks:
            self._finish(self._tasks.popleft(), self._closed, finished)
        return finished

    def reopen(self) -> None:
        """Take tasks again."""
        self._closed = None

    def ready_at(self) -> float | None:
        """When a batch may leave, on the clock of `now_s` (0 for at once), or None while nothing waits."""
        while self._tasks and self._tasks[0].is_finished:
            self._tasks.popleft()
        if not self._tasks:
            return None
        head = self._tasks[0]
        is_full = self.num_rows >= self.options.max_batch_size or not self.is_batchable
        timeout_s = self.options.batch_timeout_s
        if is_full or not timeout_s or head.num_rows_taken or self.pace.is_sparse(timeout_s):
            return 0.0
        return min(head.enqueued_s + timeout_s, self._latest_s(head), self.pace.alone_until_s())

    def _latest_s(self, task: Task) -> float:
        """When a task has to start to be done before its deadline."""
        size = self.options.padded_size(min(max(1, self.num_rows), self.options.max_batch_size))
        return task.deadline_s - self.pace.service_s(size)

    def take(self, now_s: float, num_takers: int = 1) -> tuple[Batch | None, Finished]:
        """The next batch, if one may leave now, and the tasks that expired while they waited.

        Args:
            now_s: the time.
            num_takers: threads that could run a batch now. Each gets a share of what waits, if a run takes long enough
                for that: in a single batch, clients that wait for it would leave all other cores idle.
        """
        finished: Finished = []
        ready_at = self.ready_at()
        if ready_at is None or ready_at > now_s:
            return None, finished
        tasks, why = self._tasks, self._leave_reason(now_s)
        parts: list[Part] = []
        num_rows, share = 0, self._share(num_takers)
        while tasks:
            task = tasks[0]
            if task.is_finished:
                tasks.popleft()
                continue
            if task.deadline_s <= now_s and task.num_rows_taken == 0:
                self._finish(tasks.popleft(), _expired(now_s, task), finished)
                continue
            if parts and not self._may_join(task, parts[0].task):
                break
            part = self._cut(task, num_rows, share)
            if part is None:
                break
            parts.append(part)
            num_rows += part.stop - part.start
            if task.num_rows_taken == task.num_rows:
                tasks.popleft()
            if not self.is_batchable:
                break
        if not parts:
            return None, finished
        most = self.options.max_batch_size
        is_full = num_rows >= most or (bool(self._tasks) and share == most) or not self.is_batchable
        return Batch(tuple(parts), num_rows, "full" if is_full else why), finished

    def _share(self, num_takers: int) -> int:
        """The rows that one of so many threads takes; a request that has more is not cut for this."""
        most = self.options.max_batch_size
        if num_takers < 2 or len(self._tasks) < 2:  # nothing to share; looking at the pace takes a while
            return most
        if self.options.batch_timeout_micros:  # a batch that was waited for leaves as a whole
            return most
        each_s = self.pace.usual_s(min(most, self.num_rows)) / num_takers
        return min(most, -(-self.num_rows // num_takers)) if each_s >= LEAST_SHARED_S else most

    def _leave_reason(self, now_s: float) -> str:
        """Why a batch that is not full leaves now."""
        timeout_s, head = self.options.batch_timeout_s, self._tasks[0]
        if timeout_s and now_s >= head.enqueued_s + timeout_s:
            return "timeout"
        return "deadline" if timeout_s and now_s >= self._latest_s(head) else "free"

    def _may_join(self, task: Task, first: Task) -> bool:
        """Whether two tasks can share a run."""
        if task.is_alone or first.is_alone:
            return False
        if self.has_one_shape or self.options.pad_variable_length_inputs:
            return True
        return all(array.shape[1:] == first.inputs[name].shape[1:] for name, array in task.inputs.items())

    def _cut(self, task: Task, num_rows: int, share: int) -> Part | None:
        """The rows of `task` that may join a batch that holds `num_rows`; None when it has to wait for the next."""
        start = task.num_rows_taken
        taken = task.num_rows - start
        limit = self.options.max_batch_size
        if num_rows and num_rows + taken > share and share < limit:
            return None
        room = limit - num_rows if self.is_batchable and not task.is_alone else taken
        if taken > room:
            if room == 0 or task.num_rows <= limit:
                return None
            taken = room
        self.num_rows -= taken
        task.num_rows_taken = stop = start + taken
        return Part(task, start, stop)

    def _finish(self, task: Task, outcome: Outcome, finished: Finished) -> None:
        if not task.is_finished:
            task.is_finished = True
            self.forget(task)
            finished.append((task, outcome))


def _expired(now_s: float, task: Task) -> DeadlineExceeded:
    waited_ms = (now_s - task.enqueued_s) * 1e3
    return DeadlineExceeded(f"Run() timeout exceeded while waiting in batching queue ({waited_ms:.0f} ms)")
