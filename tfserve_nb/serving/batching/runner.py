"""The model runner: takes batches from queues and runs them, on the threads of one device.

The runner pulls: whenever it is free it takes what is queued, so batches form by themselves under load and an idle
server adds no delay. Several versions and models share one runner and take turns. Nothing that a model or a request
does can end the loop: a batch that fails is run again request by request, so that only the request that is to blame
fails.

Thread: `tfserve-runner-…`, daemons. `submit`, `cancel`, `attach`, `detach` may be called from any thread, `wake` from
those of servers: it carries out short runs itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from ...errors import Cancelled, DeadlineExceeded, NotAvailable, RunFailed, ServingError
from ...threads import hide_from_debuggers, start_thread
from ...types import Tensors
from ..backend import Outcome
from .lane import Lane, Observe, RunFunction, RunWithin
from .long_runs import LOOK_S, MAX_OVERDUE, RunningBatch, limit_s, size_of, too_many_overdue, with_time_left
from .queue import Batch, BatchQueue, Finished, Part, Task
from .rows import RowsMisfit, run_parts
from .short_runs import is_short, run_here
from .short_runs import note as note_short
from .turns import Turns

JOIN_S = 1.5

_UNFIT = "the outputs of two parts of a request have different shapes"


def _stopped() -> DeadlineExceeded:
    """What a request gets whose run was stopped or given up at its deadline, in TensorFlow's words."""
    return DeadlineExceeded(
        "Timed out waiting for notification", hint="allow more time, or send less; %serving names a run that hangs"
    )


class Runner:
    """Runs the batches of all versions on one device, and shares its time fairly between them: see `turns`.

    A run that takes long holds up its own lane only: see `long_runs`.

    Args:
        device: for the threads' names, such as `cpu0`.
        num_threads: batches that may run at the same time, whatever runs them.
        num_cores: batches that may run at the same time when each of them takes one core.
        now: the clock in seconds.
    """

    def __init__(
        self,
        device: str = "cpu0",
        *,
        num_threads: int = 1,
        num_cores: int = 1,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.device = device
        self._turns = Turns(num_threads, num_cores)
        self._now = now
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._num_idle = 0
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._num_started = 0
        self._stop_watching = threading.Event()
        self._running: list[RunningBatch] = []
        self._again: deque[tuple[Lane, Batch]] = deque()

    def start(self) -> None:
        """Start the threads; returns when they take batches.

        Raises:
            ServerFailed: if they do not within two seconds.
        """
        for _ in range(self._turns.num_threads):
            self._threads.append(start_thread(self._next_name(), self._work))
        self._threads.append(start_thread(f"tfserve-runner-{self.device}-watch", self._watch))

    def stop(self) -> None:
        """Refuse new tasks, finish the waiting ones with `NotAvailable`, end the threads. Idempotent, bounded."""
        finished: Finished = []
        with self._wake:
            self._stopping = True
            for lane in self._turns.lanes + self._turns.background:
                finished += lane.queue.close(NotAvailable("the server is shutting down"))
            for _, batch in self._again:
                for part in batch.parts:
                    self._finish(part.task, NotAvailable("the server is shutting down"), finished)
            self._again.clear()
            self._wake.notify_all()
        self._stop_watching.set()
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
        *,
        is_background: bool = False,
        run_within: RunWithin | None = None,
        separate: Callable[[str], None] | None = None,
        run_here: RunFunction | None = None,
        takes_one_core: Callable[[], bool] | None = None,
    ) -> Lane:
        """Open a queue whose batches go to `run`; see `Lane` for the other arguments."""
        lane = Lane(queue, run, observe, is_background=is_background, run_within=run_within, separate=separate)
        lane.run_here, lane.takes_one_core = run_here, takes_one_core
        with self._wake:
            self._turns.add(lane)
        return lane

    def detach(self, lane: Lane) -> None:
        """Close a queue; tasks that still wait in it are finished with `NotAvailable`."""
        with self._wake:
            self._turns.remove(lane)
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
            if wakes and self._num_idle and self._turns.num_free > 0:
                self._wake.notify()
        return task

    def wake(self) -> None:
        """Start what was submitted without waking; a run that is shorter than a switch between threads runs here."""
        # A thread that found nothing counts itself idle before it lets go of the lock that submitting takes.
        if self._num_idle and self._turns.num_free > 0 and not self._run_short():
            with self._lock:
                self._wake.notify()

    def _run_short(self) -> bool:
        """Carry out the next run on the caller's thread if it is short; whether it was."""
        running = RunningBatch(is_replaced=True)  # none of the runner's threads is missing meanwhile
        with self._wake:
            now_s = self._now()
            lane = None if self._again or self._stopping else self._turns.choose(now_s)[0]
            if lane is None or not is_short(lane, now_s):
                return False
            self._turns.begin(lane)
            batch, finished = lane.queue.take(now_s)
            if batch is not None:
                self._running.append(running)
                self._begin(running, lane, batch, now_s)
            if self._is_anything_waiting():
                self._wake.notify()
        _deliver(finished)
        if batch is None:
            return True
        batch.mark_started(now_s)
        outputs, computed_s = run_here(lane, batch)
        if outputs:
            self._done(lane, batch, now_s, outputs, running)
        elif self._stopping:
            self._run_batch(lane, batch, running)
        with self._wake:
            if not outputs and not self._stopping:
                self._again.append((lane, batch))
            note_short(lane, now_s, self._now(), computed_s)
            running.is_replaced = False
            self._ended(running)
            self._running.remove(running)
            if self._is_anything_waiting():  # what came in for this lane meanwhile, from other threads
                self._wake.notify()
        return True

    def cancel(self, task: Task) -> None:
        """Finish a task with `Cancelled`, unless it was finished already; its batch mates are not touched."""
        self._fail(task, Cancelled("the caller went away"))

    def long_run(self, lanes: Collection[Lane]) -> str:
        """The longest run of some lanes that is on its way, in words, if it has taken long; else ""."""
        with self._lock:
            now_s = self._now()
            found = [running for running in self._running if running.lane in lanes and running.is_long(now_s)]
            return min(found, key=lambda running: running.started_s).in_words(now_s) if found else ""

    def _work(self, ready: threading.Event) -> None:
        running = RunningBatch()
        with self._lock:
            self._running.append(running)
        ready.set()
        while True:
            taken = self._next(running)
            if taken is None:
                return
            lane, batch, finished = taken
            _deliver(finished)
            if batch is not None:
                self._run_batch(lane, batch, running)

    def _next(self, running: RunningBatch | None = None) -> tuple[Lane, Batch | None, Finished] | None:
        """Wait for the next batch of a thread; None when it is to end."""
        with self._wake:
            if running is not None and not self._ended(running):
                return None
            while not self._stopping:
                now_s = self._now()
                if self._again:
                    again, batch = self._again.popleft()
                    self._begin(running, again, batch, now_s)
                    return again, batch, []
                lane, ready_s = self._turns.next(now_s)
                if lane is not None:
                    taken, finished = lane.queue.take(now_s, self._turns.num_takers(lane, self._num_idle))
                    if taken is not None:
                        self._begin(running, lane, taken, now_s)
                    if self._num_idle and self._turns.num_free > 0:
                        self._wake.notify()  # there may be more than one batch
                    return lane, taken, finished
                self._num_idle += 1
                try:
                    self._wake.wait(None if ready_s is None else max(0.0, ready_s - now_s))
                finally:
                    self._num_idle -= 1
            return None

    def _begin(self, running: RunningBatch | None, lane: Lane, batch: Batch, now_s: float) -> None:
        """A thread runs a batch from now on; the caller holds the lock."""
        if running is not None:
            running.begin(lane, batch, now_s)
            lane.num_running += 1
            if not running.is_replaced:
                self._turns.occupy(running, lane)

    def _ended(self, running: RunningBatch) -> bool:
        """A thread's run has ended; whether the thread goes on. The caller holds the lock."""
        lane = running.lane
        if lane is None:
            return True
        running.lane = running.batch = None
        self._turns.give_back(running)
        if running.is_overdue:
            lane.num_overdue -= 1
            is_attached = lane in self._turns.lanes or lane in self._turns.background
            if lane.num_overdue == MAX_OVERDUE - 1 and is_attached and not self._stopping:
                lane.queue.reopen()
        else:
            lane.num_running -= 1
        if running.is_replaced:
            self._running.remove(running)
            self._wake.notify()  # its lane may have waited for the end of this run
        return not running.is_replaced

    def _watch(self, ready: threading.Event) -> None:
        """Look again and again for runs that take long, so that they hold up nothing else."""
        ready.set()
        while not self._stop_watching.wait(LOOK_S):
            try:
                for _ in range(self._look()):
                    self._start_another()
            except Exception:
                logging.getLogger(__name__).exception("no thread could be started beside a run that takes long")

    def _look(self) -> int:
        """Give up runs that are overdue; how many threads are needed in place of those with long runs."""
        finished: Finished = []
        num_needed = 0
        with self._wake:
            now_s = self._now()
            for running in self._running:
                if not running.is_overdue and running.is_late(now_s):
                    finished += self._give_up(running, now_s)
            if self._is_held_up(now_s) and not self._stopping:
                for running in self._running:
                    if not running.is_replaced and running.is_long(now_s):
                        running.is_replaced = True
                        self._turns.give_back(running)
                        num_needed += 1
        _deliver(finished)
        return num_needed

    def _is_anything_waiting(self) -> bool:
        """Whether a batch could run if there was a thread for it."""
        return bool(self._again) or self._turns.is_anything_waiting()

    def _is_held_up(self, now_s: float) -> bool:
        """Whether a batch could run if another one did not."""
        return self._turns.is_held_up(now_s) if self._num_idle else self._is_anything_waiting()

    def _give_up(self, running: RunningBatch, now_s: float) -> Finished:
        """Go on without a run that cannot be stopped in time; its requests with time left run again without the others.

        The caller holds the lock.
        """
        lane, batch = running.lane, running.batch
        if lane is None or batch is None:
            return []
        running.is_overdue = True
        self._turns.give_back(running)
        lane.num_running -= 1
        lane.num_overdue += 1
        finished: Finished = []
        waiting, expired = with_time_left(batch, now_s)
        errors: list[tuple[list[Part], ServingError]] = [(expired, _stopped())]
        if lane.num_overdue >= MAX_OVERDUE:
            errors.append((waiting, too_many_overdue()))
            finished += lane.queue.close(too_many_overdue())
        elif waiting:
            self._again.append((lane, _batch_of(waiting, batch.reason)))
        for parts, error in errors:
            for part in parts:
                self._finish(part.task, error, finished)
        self._wake.notify()
        return finished

    def _start_another(self) -> None:
        thread = threading.Thread(target=self._work, args=(threading.Event(),), name=self._next_name(), daemon=True)
        hide_from_debuggers(thread)
        thread.start()
        self._threads = [*(old for old in self._threads if old.is_alive()), thread]

    def _next_name(self) -> str:
        number, self._num_started = self._num_started, self._num_started + 1
        return f"tfserve-runner-{self.device}" + (f"-{number}" if number else "")

    def _run_batch(self, lane: Lane, batch: Batch, running: RunningBatch | None = None) -> None:
        running = running or RunningBatch()
        started_s = self._now()
        batch.mark_started(started_s)
        try:
            outputs = run_parts(lane, batch.parts, limit_s=limit_s(lane, batch, started_s))
        except RowsMisfit as misfit:
            self._separate(lane, batch, misfit.message, running)
            return
        except DeadlineExceeded:
            self._run_rest(lane, batch, running)
            return
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the loop goes on
            if len(batch.parts) == 1:
                self._fail(batch.parts[0].task, as_serving_error(error))
                return
            # One request must not decide over its batch mates: find out which one is at fault.
            self._run_each(lane, [[part] for part in batch.parts], batch.reason, running)
            return
        self._done(lane, batch, started_s, outputs, running)

    def _done(self, lane: Lane, batch: Batch, started_s: float, outputs: list[Tensors], running: RunningBatch) -> None:
        """A run has given outputs: answer the requests, and learn from it."""
        done_s, unfit = self._complete(batch.parts, outputs)
        if running.is_overdue:
            return
        self._learn(lane, batch, started_s, done_s)
        if lane.observe is not None:
            lane.observe(batch, started_s, done_s)
        if unfit:
            self._separate(lane, _batch_of(unfit, batch.reason), _UNFIT, running)

    def _separate(self, lane: Lane, batch: Batch, reason: str, running: RunningBatch) -> None:
        """A run has shown that rows may not run together: answer these requests as each is answered alone."""
        if lane.separate is not None:
            lane.separate(reason)
        whole: list[list[Part]] = []
        with self._lock:
            for task in dict.fromkeys(part.task for part in batch.parts):
                if not task.is_finished and not task.is_alone:  # else another thread runs it whole already
                    task.is_alone = True
                    lane.queue.withdraw(task)
                    whole.append([Part(task, 0, task.num_rows)])
        self._run_each(lane, whole, batch.reason, running)

    def _run_each(self, lane: Lane, runs: list[list[Part]], reason: str, running: RunningBatch) -> None:
        """Run parts of what a thread has in hand one after the other; others do so once one of them is overdue."""
        for number, parts in enumerate(runs):
            if running.is_overdue:
                with self._wake:
                    self._again += [(lane, _batch_of(later, reason)) for later in runs[number:]]
                    self._wake.notify()
                return
            if not parts[0].task.is_finished:
                self._run_part_of(lane, _batch_of(parts, reason), running)

    def _run_part_of(self, lane: Lane, batch: Batch, running: RunningBatch) -> None:
        """Run a part of what a thread has in hand, with a time of its own."""
        with self._lock:
            if running.is_overdue:
                return
            running.begin(lane, batch, self._now())
        self._run_batch(lane, batch, running)

    def _run_rest(self, lane: Lane, batch: Batch, running: RunningBatch) -> None:
        """A run was stopped: the requests whose time is over fail, the others run again without them."""
        waiting, expired = with_time_left(batch, self._now())
        if len(waiting) == len(batch.parts):  # nothing is to be gained from a second try
            waiting, expired = [], waiting
        for part in expired:
            self._fail(part.task, _stopped())
        if waiting:
            self._run_part_of(lane, _batch_of(waiting, batch.reason), running)

    def _learn(self, lane: Lane, batch: Batch, started_s: float, done_s: float) -> None:
        """Charge the lane for the device's time, and remember how long the run took."""
        took_s = done_s - started_s
        size = size_of(lane, batch)
        with self._lock:
            self._turns.took(lane, size, took_s)
            lane.stats.add(batch, size, started_s)

    def _complete(self, parts: tuple[Part, ...], outputs: list[Tensors]) -> tuple[float, list[Part]]:
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
        return done_s, unfit

    def _fail(self, task: Task, error: ServingError) -> None:
        """Finish one task with an error, unless it is finished."""
        finished: Finished = []
        with self._lock:
            self._finish(task, error, finished)
        _deliver(finished)

    @staticmethod
    def _finish(task: Task, error: ServingError, finished: Finished) -> None:
        """The same; the caller holds the lock, and delivers."""
        if not task.is_finished:
            task.is_finished = True
            if task.queue is not None:
                task.queue.forget(task)
            finished.append((task, error))


def _batch_of(parts: list[Part], reason: str) -> Batch:
    return Batch(tuple(parts), sum([part.stop - part.start for part in parts]), reason)


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
