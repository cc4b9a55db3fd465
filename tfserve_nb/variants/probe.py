"""Loads a version as a server would, and answers what its parent asks: the program of a process of its own.

`python -m tfserve_nb.variants.probe ENGINE DESCRIPTOR`: what runs the version, and a socket that the parent has the
other end of; see `probing`. It ends with its parent.

Thread: the process's main thread.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from ..export.reasons import innermost
from ..protos.postponed import postpone
from ..serving.engines.accelerated import EngineServable, SavedModelLoader
from ..serving.engines.choice import turn_of
from ..serving.engines.compare import Run
from ..serving.engines.engine import TENSORFLOW
from ..serving.engines.kinds import KINDS
from ..serving.engines.saved_model.session import start_tensorflow
from ..serving.engines.selection import BatchSizes, accelerate
from ..types import Tensors
from .probing import Loaded, Problem, Rows, Subject, Turn


def main(arguments: Sequence[str]) -> int:
    """Load a version, and answer until the parent has no more questions."""
    postpone()  # as in `tfserve-nb serve`: what an engine runs needs no more of TensorFlow than its messages
    engine, descriptor = arguments
    with contextlib.suppress(EOFError), contextlib.closing(Connection(int(descriptor))) as parent:
        _import_runtime(engine)  # what every version shares does not count for one of them
        parent.send(None)
        subject: Subject = parent.recv()
        try:
            run, loaded = load(subject)
        except Exception as error:  # noqa: BLE001 - runtimes raise types of their own; it becomes a reason
            parent.send(Problem(innermost(error)))
            return 1
        parent.send(loaded)
        while True:
            question = parent.recv()
            try:
                answer: object = answer_to(question, run, subject)
            except Exception as error:  # noqa: BLE001 - the same
                answer = Problem(innermost(error))
            parent.send(answer)
    return 0


def load(subject: Subject) -> tuple[Run, Loaded]:
    """What runs the version, and how loading it went."""
    before = _own_memory()
    started_s = time.perf_counter()
    servable = SavedModelLoader().unopened(subject.path, None)
    if isinstance(servable, EngineServable):
        accelerate(servable, subject.engine, lambda _: (), BatchSizes(tuple(subject.batches)), is_strict=True)
    run = partial(servable.run, subject.signature)
    run(next(iter(subject.batches.values())))
    load_s = time.perf_counter() - started_s
    for batch in subject.batches.values():
        run(batch)
    return run, Loaded(load_s, max(0, _own_memory() - before))


def answer_to(question: Rows | Turn, run: Run, subject: Subject) -> Tensors | list[float]:
    """The outputs of some rows, or how long a few runs took, in seconds."""
    return run(question.inputs) if isinstance(question, Rows) else turn_of(run, subject.batches[question.num_rows])


def _import_runtime(engine: str) -> None:
    if engine == TENSORFLOW:
        start_tensorflow()
    else:
        importlib.import_module(KINDS[engine].runtime)


def _own_memory() -> int:
    """Bytes of this process that no file is behind: not the libraries, of which a first run reads more."""
    gc.collect()
    lines = Path("/proc/self/status").read_text("ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
