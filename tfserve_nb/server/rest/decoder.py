"""Large bodies are decoded beside the loop, one at a time, so that other requests are answered meanwhile.

A parser holds the interpreter's lock while it parses, so other requests still wait for one call of it: about 4 ms for
each MB of numbers, 35 ms for each MB of what only the careful path reads.

Thread: the server's loop; `tfserve-decoder`, a daemon thread for each body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from ...errors import ServingError
from ..event_loop import run_in_thread

T = TypeVar("T")

LARGE_BYTES = 1024 * 1024
"""Smaller bodies are decoded on the loop: that takes a few milliseconds at most, and a thread would cost more."""


class Decoder:
    """Runs decoding beside the loop that it is made on."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, decode: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Decode, and call `done` on the loop with the result or the error."""
        task = asyncio.get_running_loop().create_task(self._run(decode, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, decode: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        outcome: T | Exception
        async with self._turn:
            try:
                outcome = await run_in_thread("tfserve-decoder", decode)
            except Exception as error:  # noqa: BLE001 - `done` gets it
                # Without its trace, which holds the body, and would wait for the collector with it.
                outcome = error.with_traceback(None) if isinstance(error, ServingError) else error
        done(outcome)


class Later(Generic[T]):
    """A request whose body is being decoded, and which goes on then unless its client leaves.

    Args:
        begin: goes on with the decoded body; returns how to give up from then on.
        failed: gets the error, of decoding or of `begin`.
        left: called when the client has left before.
    """

    def __init__(
        self, begin: Callable[[T], Callable[[], object]], failed: Callable[[Exception], None], left: Callable[[], None]
    ) -> None:
        self._begin = begin
        self._failed = failed
        self._give_up: Callable[[], object] | None = left

    def done(self, outcome: T | Exception) -> None:
        """The body is decoded, or it cannot be."""
        if self._give_up is None:
            return
        self._give_up = None
        try:
            if isinstance(outcome, Exception):
                raise outcome
            self._give_up = self._begin(outcome)
        except Exception as error:  # noqa: BLE001 - `failed` gets it
            self._failed(error)

    def give_up(self) -> None:
        """The client has left."""
        give_up, self._give_up = self._give_up, None
        if give_up is not None:
            give_up()
