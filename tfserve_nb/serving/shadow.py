"""Shadow copies: a version gets copies of requests that other versions answer; clients never get its outputs.

A sampled request is copied when it is submitted; once it was answered, its copy waits here with the outputs. One thread
submits the copies to lanes of their own, which run only while no live request wants the device. A copy is dropped
and counted when too many or too large ones wait, when it has waited too long, or when its version is no longer to get
copies. Each request is sampled with a random number: a counter would fall into step with clients that take turns.

Thread: `tfserve-shadow`, a daemon, submits copies and passes their outcomes to the observers. A copier runs on the
submitting thread, what it returns on the runner's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from ..errors import Cancelled, DeadlineExceeded, NotAvailable, QueueFull
from ..threads import start_thread
from ..types import Tensors
from .backend import Answer, ModelSpec, Outcome
from .batching.queue import Task
from .batching.runner import as_serving_error
from .telemetry.observer import Observers
from .telemetry.records import CopyCounts, Pair, num_bytes, own_copy
from .traffic import Shadow
from .versions.version import OnDone, RequestCopier, VersionHandle

MAX_WAITING = 256
MAX_WAITING_BYTES = 64 << 20
MAX_RUNNING = 4
"""Copies that are in lanes at once: enough to keep a free device busy, few enough to be gone soon."""
LIMIT_S = 5.0
"""A copy that has not run by then is dropped."""
LOOK_S = 0.05
"""How often copies in lanes are checked, in seconds: their version may be on its way out."""
JOIN_S = 1.5

_DROPS = (Cancelled, DeadlineExceeded, NotAvailable, QueueFull)
"""Outcomes that are not the version's fault: the copy counts as dropped."""


@dataclass(eq=False, slots=True)
class ShadowCopy:
    """One copied request.

    Attributes:
        model: its model.
        version: the version that answered it.
        shadow: the version that gets the copy.
        signature: the signature's name.
        inputs: name -> array, our own.
        outputs: those of the version that answered, our own.
        deadline_s: when it is dropped.
        handle: pins the version that gets it, from its submission on.
        ticket: the submitted copy; None when it was not even taken.
    """

    model: str
    version: int
    shadow: int
    signature: str
    inputs: Tensors
    outputs: Tensors
    deadline_s: float
    handle: VersionHandle | None = field(default=None)
    ticket: Task | None = field(default=None)

    @property
    def num_bytes(self) -> int:
        """What it takes in memory."""
        return num_bytes(self.inputs) + num_bytes(self.outputs)


class ShadowCopies:
    """The copies of a core.

    Args:
        acquire: pins a version, or None when it cannot answer.
        current: a model's name -> the versions that get copies of its requests now.
        observers: get the copies that were run.
        draw: uniform numbers on [0, 1), for the sample.
        now: the clock in seconds.
    """

    def __init__(
        self,
        acquire: Callable[[str, int], VersionHandle | None],
        current: Callable[[str], frozenset[int]],
        observers: Observers,
        *,
        draw: Callable[[], float],
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._acquire = acquire
        self._current = current
        self._observers = observers
        self._counts: dict[tuple[str, int], CopyCounts] = {}
        self._counting = threading.Lock()
        self._draw = draw
        self._now = now
        self._changed = threading.Condition()
        self._waiting: deque[ShadowCopy] = deque()
        self._num_bytes = 0
        self._running: list[ShadowCopy] = []
        self._finished: deque[tuple[ShadowCopy, Outcome]] = deque()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; returns when it works.

        Raises:
            ServerFailed: if it does not within two seconds.
        """
        self._thread = start_thread("tfserve-shadow", self._work)

    def stop(self) -> None:
        """Drop all copies and end the thread. Idempotent, bounded."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def copier(self, spec: ModelSpec, version: int, shadow: Shadow | None) -> RequestCopier | None:
        """The function that copies a request that comes to `version`; None when it is not to be copied.

        Args:
            spec: what it named: requests for a version or a label are not copied.
            version: the version that answers it.
            shadow: the version that gets copies of what it answers.
        """
        if shadow is None or version == shadow.version or spec.version is not None or spec.label is not None:
            return None
        return partial(self._copying, spec.name, version, shadow)

    def _copying(
        self, model: str, version: int, shadow: Shadow, signature: str, inputs: Tensors, on_done: OnDone
    ) -> OnDone:
        """Sample a request: returns what to call with its outcome, which calls `on_done` before any copy."""
        own_inputs = self._sample(model, shadow, inputs)
        if own_inputs is None:
            return on_done

        def done(outcome: Outcome) -> None:
            # The client may write to the outputs: they are copied before it gets them.
            outputs = _owned(outcome.outputs) if isinstance(outcome, Answer) else None
            on_done(outcome)
            if outputs is not None:
                deadline_s = self._now() + LIMIT_S
                self._offer(ShadowCopy(model, version, shadow.version, signature, own_inputs, outputs, deadline_s))

        return done

    def _sample(self, model: str, shadow: Shadow, inputs: Tensors) -> Tensors | None:
        """Our own inputs of the next request; None when it is not chosen, or there is no room."""
        if self._draw() * 100 >= shadow.percent:
            return None
        has_room = len(self._waiting) < MAX_WAITING and self._num_bytes + num_bytes(inputs) <= MAX_WAITING_BYTES
        own = _owned(inputs) if has_room else None
        if own is None:
            self._dropped(model, shadow.version)
        return own

    def _offer(self, copy: ShadowCopy) -> None:
        """Let a copy of an answered request wait for its turn, if there is room."""
        size = copy.num_bytes
        with self._changed:
            fits = len(self._waiting) < MAX_WAITING and self._num_bytes + size <= MAX_WAITING_BYTES
            if fits and not self._stopping:
                self._waiting.append(copy)
                self._num_bytes += size
                self._changed.notify()
                return
        self._dropped(copy.model, copy.shadow)

    def counts(self) -> Mapping[tuple[str, int], CopyCounts]:
        """(model, version) -> counts of the copies for it since the server started."""
        with self._counting:
            return dict(self._counts)

    def num_dropped(self, model: str) -> int:
        """Copies of a model's requests that were left out since the server started."""
        return sum(counts.num_dropped for (name, _), counts in self.counts().items() if name == model)

    # --- the thread ---------------------------------------------------------------------------------------------

    def _work(self, ready: threading.Event) -> None:
        ready.set()
        while True:
            finished, taken = self._next()
            if self._stopping:
                break
            for copy, outcome in finished:
                self._finish(copy, outcome)
            for copy in taken:
                self._begin(copy)
            self._give_up()
        for copy in self._running:
            if copy.ticket is not None:
                copy.ticket.cancel()
            if copy.handle is not None:
                copy.handle.release()

    def _next(self) -> tuple[list[tuple[ShadowCopy, Outcome]], list[ShadowCopy]]:
        """Wait for something to do: copies that are done, and copies that may begin."""
        with self._changed:
            while not (self._stopping or self._finished or (self._waiting and len(self._running) < MAX_RUNNING)):
                self._changed.wait(LOOK_S if self._running else None)
                if self._running:
                    break
            finished = [self._finished.popleft() for _ in range(len(self._finished))]
            room = MAX_RUNNING - len(self._running) + len(finished)
            taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._num_bytes -= sum([copy.num_bytes for copy in taken])
        return finished, taken

    def _begin(self, copy: ShadowCopy) -> None:
        """Submit a copy, or drop it."""
        handle = self._acquire(copy.model, copy.shadow) if self._is_wanted(copy) else None
        if handle is None:
            self._dropped(copy.model, copy.shadow)
            return
        copy.handle = handle
        self._running.append(copy)
        on_done = partial(self._done, copy)
        try:
            copy.ticket = handle.submit_copy(copy.signature, copy.inputs, deadline_s=copy.deadline_s, on_done=on_done)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a copy, the thread goes on
            self._finish(copy, as_serving_error(error))

    def _done(self, copy: ShadowCopy, outcome: Outcome) -> None:
        """A copy has an outcome; on the runner's thread."""
        with self._changed:
            self._finished.append((copy, outcome))
            self._changed.notify()

    def _finish(self, copy: ShadowCopy, outcome: Outcome) -> None:
        """Count a copy, and pass it to the observers."""
        self._running.remove(copy)
        if copy.handle is not None:
            copy.handle.release()
        if isinstance(outcome, _DROPS):
            self._dropped(copy.model, copy.shadow)
            return
        answer = outcome if isinstance(outcome, Answer) else None
        self._count(copy.model, copy.shadow, CopyCounts(num_failed=1) if answer is None else CopyCounts(num_run=1))
        self._observers.on_pair(
            Pair(
                model=copy.model,
                version_a=copy.version,
                version_b=copy.shadow,
                signature=copy.signature,
                inputs=copy.inputs,
                outputs_a=copy.outputs,
                outputs_b=None if answer is None else answer.outputs,
                error="" if isinstance(outcome, Answer) else outcome.message,
                at_s=self._now() if answer is None else answer.done_s,
            )
        )

    def _give_up(self) -> None:
        """Cancel copies that are late or no longer wanted; a copy that runs keeps its version until it is done."""
        for copy in self._running:
            if not self._is_wanted(copy) and copy.ticket is not None and copy.ticket.started_s is None:
                copy.ticket.cancel()

    def _is_wanted(self, copy: ShadowCopy) -> bool:
        """Whether a copy is in time, and its version still gets copies."""
        return copy.shadow in self._current(copy.model) and copy.deadline_s > self._now()

    def _dropped(self, model: str, version: int) -> None:
        """A copy was left out."""
        self._count(model, version, CopyCounts(num_dropped=1))

    def _count(self, model: str, version: int, more: CopyCounts) -> None:
        with self._counting:
            before = self._counts.get((model, version), CopyCounts())
            self._counts[model, version] = CopyCounts(*[a + b for a, b in zip(before, more, strict=True)])


def _owned(tensors: Tensors) -> Tensors | None:
    """Copies of arrays, read-only; None when there is not even memory for them."""
    try:
        return {name: own_copy(array) for name, array in tensors.items()}
    except MemoryError:
        return None
