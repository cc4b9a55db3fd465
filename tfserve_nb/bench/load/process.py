"""Starts the generator and reads its output.

Thread: the caller's; one more reads the process's errors.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

from ...errors import ServerFailed
from ...serialization import from_json
from .samples import Samples
from .schedule import Load, Target

LOOK_S = 0.1
GRACE_S = 20.0
JOIN_S = 2.0

OnSamples = Callable[[Samples], bool]
"""Gets what is new, a few times a second; False ends the run."""


def generate(target: Target, load: Load, on_samples: OnSamples) -> None:
    """Load a target from another process and wait for the end.

    Args:
        target: where requests go.
        load: how they come.
        on_samples: gets what became of requests, those of the warm-up too (due before 0), on the calling thread.

    Raises:
        ServerFailed: if the generator cannot be started, or ends by itself.
        KeyboardInterrupt: if it is interrupted; the process is gone then.
    """
    job = {
        "protocol": target.protocol,
        "url": target.url,
        "bodies": [base64.b64encode(body).decode() for body in target.bodies],
        "paths": list(target.paths),
        "headers": [list(pair) for pair in target.headers],
        "load": dataclasses.asdict(load),
    }
    with _process(json.dumps(job)) as lines:
        left_s = load.warmup_s + load.seconds + load.timeout_s * (1 + len(load.pauses)) + GRACE_S
        while True:
            try:
                line = lines.get(timeout=LOOK_S)
            except queue.Empty:
                left_s -= LOOK_S
                if left_s < 0:
                    raise ServerFailed("the load generator does not end") from None
                continue
            if line is None:
                raise ServerFailed(
                    "the load generator ended by itself", hint="python -m tfserve_nb.bench.load.generator"
                )
            value = json.loads(line)
            if "end" in value or not on_samples(from_json(value, Samples)):
                return


@contextlib.contextmanager
def _process(job: str) -> Iterator[queue.Queue[str | None]]:
    """The generator, and the lines that it writes; None after the last one."""
    # The job goes over standard input: every user of the machine can see arguments, and a token is in it.
    process = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", f"{__package__}.generator"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if os.environ.get("TFSERVE_NB_DEBUG") is None else None,
        text=True,
        start_new_session=True,  # Ctrl-C is for the notebook: it ends this process in its own way
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, name="tfserve-bench-reader", daemon=True)
    reader.start()
    try:
        with contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None  # noqa: S101 - a pipe was asked for
            process.stdin.write(job + "\n")
            process.stdin.close()
        yield lines
    finally:
        process.kill()
        process.wait(JOIN_S)
        reader.join(JOIN_S)
        if process.stdout is not None:
            process.stdout.close()
