"""A sample of the answered requests, written to files while the server goes on.

Thread: `offer` on the server's loop; files are written on `tfserve-request-log`, a daemon. When it cannot keep up, or
the disk is full, requests are left out of the files and counted; they are answered all the same, and what the files
hold stays.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import threading
import time
from collections.abc import Callable

from ...export.prediction_log import LoggedCall, RotatingWriter, to_message
from ...serving.models.model_config import LoggingOptions
from ...types import Tensors

MAX_WAITING = 1000
JOIN_S = 3.0
QUIET_S = 60.0
"""How long after a warning about the same files there is none."""
LOGGED_AS = {"predict": "predict", "infer": "predict", "classify": "classify", "regress": "regress"}
"""Call -> the call that TensorFlow Serving's log has for it; the Open Inference Protocol's is a prediction too."""

_log = logging.getLogger(__name__)


class RequestLog:
    """Samples and writes.

    Args:
        options_of: model name -> what is to be logged of it, or None.
        on_logged: called with model and status code of each sampled request.
        draw: uniform numbers on [0, 1).
    """

    def __init__(
        self,
        options_of: Callable[[str], LoggingOptions | None],
        on_logged: Callable[[str, str], None] = lambda *_: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._options_of = options_of
        self._on_logged = on_logged
        self._draw = draw
        self._waiting: queue.Queue[tuple[LoggedCall, str] | None] = queue.Queue(MAX_WAITING)
        self._writers: dict[str, RotatingWriter] = {}
        self._failing: set[str] = set()
        self._quiet_until_s: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._work, name="tfserve-request-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits and close the files. Idempotent, bounded."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join(JOIN_S)

    def offer(self, api: str, model: str, version: int, signature: str, inputs: Tensors, outputs: Tensors) -> None:
        """Take an answered request into the sample, perhaps; never blocks."""
        options = self._options_of(model) if api in LOGGED_AS else None
        if options is None or self._draw() >= options.sampling_rate:
            return
        call = LoggedCall(
            LOGGED_AS[api], model, version, signature, inputs, outputs, time.time(), options.sampling_rate
        )
        try:
            self._waiting.put_nowait((call, options.filename_prefix))
        except queue.Full:
            self._on_logged(model, "RESOURCE_EXHAUSTED")

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            call, prefix = item
            try:
                self._write(call, prefix)
                self._on_logged(call.model, "OK")
                self._failing.discard(prefix)
            except Exception as error:  # noqa: BLE001 - a full disk must not end the thread
                self._on_logged(call.model, "INTERNAL")
                self._warn(prefix, error)
        for writer in self._writers.values():
            with contextlib.suppress(Exception):  # the others are to be closed too
                writer.close()

    def _warn(self, prefix: str, error: Exception) -> None:
        """Once as long as it goes on, and now and then when small requests still fit on the disk and large ones not."""
        now_s = time.perf_counter()
        if prefix not in self._failing and now_s >= self._quiet_until_s.get(prefix, now_s):
            self._quiet_until_s[prefix] = now_s + QUIET_S
            _log.warning("requests cannot be logged, they are answered all the same: %s", error)
        self._failing.add(prefix)

    def _write(self, call: LoggedCall, prefix: str) -> None:
        writer = self._writers.get(prefix)
        if writer is None:
            writer = self._writers[prefix] = RotatingWriter(prefix)
        writer.write(to_message(call).SerializeToString())
