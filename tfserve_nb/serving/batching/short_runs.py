"""Runs that take less time than a switch between threads: the thread that submits carries them out itself.

That thread is a server's loop, and nothing else goes on there meanwhile. So only runs that cannot take long are run
there: of a lane that allows it (`Lane.run_here`), in a size that has been short so far. When one takes long all the
same, its lane goes back to the runner's threads for a while, unless it did not compute meanwhile: a busy machine holds
up any thread. A batch whose run fails goes to the runner's threads too: they find out why.

Thread: none of its own; guarded by the lock of the `Runner`.
"""

from __future__ import annotations

import contextlib
import time

from ...types import Tensors
from .lane import Lane
from .queue import Batch
from .rows import run_parts

SHORT_S = 0.3e-3
"""Runs of less time are short, in seconds. A runner's thread measures its wait for the interpreter's lock too."""

SLOW_S = 5e-3
"""A run that takes longer is not expected of a lane whose runs are short, in seconds."""

COMPUTED_S = 1e-3
"""A slow run that computed for less time was held up from outside, in seconds of its thread's processor time."""

PAUSE_S = 60.0
"""How long a lane's runs are left to the runner's threads then, in seconds."""


def is_short(lane: Lane, now_s: float) -> bool:
    """Whether the next run of a lane may be carried out on the thread that submits."""
    queue = lane.queue
    if lane.run_here is None or not queue.is_batchable or now_s < lane.is_slow_until_s:
        return False
    num_rows = min(queue.num_rows, queue.options.max_batch_size)
    took_s = queue.pace.run_s_of(queue.options.padded_size(num_rows)) if num_rows else None
    return took_s is not None and took_s < SHORT_S


def run_here(lane: Lane, batch: Batch) -> tuple[list[Tensors], float]:
    """Run a batch on this thread.

    Returns:
        The outputs as of `run_parts`, none if the run failed, and the seconds that this thread computed.
    """
    outputs: list[Tensors] = []
    before_s = time.thread_time()
    with contextlib.suppress(Exception):  # a runner's thread finds out why
        outputs = run_parts(lane, batch.parts, is_here=True)
    return outputs, time.thread_time() - before_s


def note(lane: Lane, started_s: float, done_s: float, computed_s: float) -> None:
    """A run was carried out on the thread that submits, which computed for so much of that time."""
    if done_s - started_s > SLOW_S and computed_s > COMPUTED_S:
        lane.is_slow_until_s = done_s + PAUSE_S
