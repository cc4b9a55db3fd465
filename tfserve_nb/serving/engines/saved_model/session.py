"""TensorFlow itself: a SavedModel version that is loaded and can run.

The SavedModel is loaded into a TensorFlow session of its own, as TensorFlow Serving does: a session callable costs less
per call than a concrete function, and closing the session frees the variables at once.

Thread: `load` and `close` on the manager's thread; `run` on any, TensorFlow sessions are thread-safe.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # TensorFlow's session and callables are untyped

from ....errors import (
    DeadlineExceeded,
    FailedPrecondition,
    ModelNotFound,
    NotAvailable,
    RunFailed,
    RunRejected,
    ServingError,
)
from ....export.graph.effects import Effects, effects_of
from ....export.graph.outside_ops import reach_text
from ....export.reasons import cause_in_graph
from ....export.signatures import (
    SAVED_MODEL_FILE,
    SAVED_MODEL_TEXT_FILE,
    dense_signatures_of,
    read_meta_graph,
    signature_defs_of,
)
from ....types import SignatureDefs, SignatureSpec, Tensors, array_of
from ..servable import Servable
from .devices import grow_on_demand
from .kept_state import keep
from .stopping import LimitedRun, can_be_stopped, with_own_threads

CALLERS_THREAD = -1
"""Run the graph's operations one after the other on the thread that calls. Handing them to a pool costs more than small
models do: 63 µs instead of 17 µs for one row of an MLP. Large operations use several threads all the same (intra-op).
"""

SHARED_POOL = 0

LONGEST_RUN_S = 60.0
"""How long a run without a deadline may take where it can be stopped, in seconds: twice what REST allows."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How SavedModels are loaded.

    Attributes:
        tags: the tags of the graph to load, as `--saved_model_tags`.
        intra_op_threads: threads of one op; 0 lets TensorFlow choose.
        inter_op_threads: ops at the same time; 0 runs them on the thread that calls, one after the other.
        gpu_memory_fraction: share of a GPU's memory for this process; 0 takes what is needed as it is needed.
        config: a serialized `ConfigProto` that the others are written into, or b"".
        limited_threads: threads of a version whose runs can be stopped, as many as runs at the same time: more of them
            make a loop of small ops slower. `inter_op_threads` goes before.
        prefers_tflite: load `model.tflite` where a version has one.
        allowed_ops: the ops that reach outside of a graph (`export/outside_ops.py`) and that a version may have; None
            for all.
    """

    tags: tuple[str, ...] = ("serve",)
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    gpu_memory_fraction: float = 0.0
    config: bytes = b""
    limited_threads: int = 1
    prefers_tflite: bool = False
    allowed_ops: frozenset[str] | None = None


DEFAULT_OPTIONS = SessionOptions()


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What the file of a SavedModel says, before anything of it is run; see `Servable`."""

    signatures: Mapping[str, SignatureSpec]
    signature_defs: SignatureDefs
    effects: Effects
    is_stoppable: bool


def read_facts(path: Path, options: SessionOptions = DEFAULT_OPTIONS) -> GraphFacts:
    """Read the file of a SavedModel; no session is opened.

    Raises:
        ModelNotFound: if the folder holds no SavedModel.
        FailedPrecondition: naming the ops of its graph that are not allowed.
    """
    if not any((path / name).is_file() for name in (SAVED_MODEL_FILE, SAVED_MODEL_TEXT_FILE)):
        raise ModelNotFound(
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`{SAVED_MODEL_FILE}`). Specified file path: {path}",
            hint="save the model there, or remove the folder",
        )
    meta_graph = read_meta_graph(path, options.tags)
    effects = effects_of(meta_graph, path)
    _check_allowed(path, effects.outside_ops, options.allowed_ops)
    return GraphFacts(
        dense_signatures_of(meta_graph),
        signature_defs_of(meta_graph),
        effects,
        can_be_stopped(meta_graph),
    )


class SavedModelServable:
    """A SavedModel in a session.

    Args:
        path: the version folder, with `saved_model.pb`.
        device: TensorFlow device for the graph, such as `/CPU:0`; None lets TensorFlow choose.
        options: tags and limits.
        facts: what `read_facts` found; None to read it.

    Raises:
        ModelNotFound: if the folder holds no SavedModel.
        FailedPrecondition: naming the ops of its graph that are not allowed; nothing of it was run.
        NotAvailable: if TensorFlow cannot load it; the message has its reason.
    """

    def __init__(
        self,
        path: Path,
        device: str | None = None,
        options: SessionOptions = DEFAULT_OPTIONS,
        facts: GraphFacts | None = None,
    ) -> None:
        import tensorflow as tf

        facts = facts or read_facts(path, options)
        self.signatures = facts.signatures
        self.signature_defs = facts.signature_defs
        self.effects = facts.effects
        self.is_stoppable = facts.is_stoppable
        graph = tf.Graph()
        config = _session_config(tf, options)
        if self.is_stoppable:
            with_own_threads(config, options.inter_op_threads or options.limited_threads)
        self._session: Any = tf.compat.v1.Session(graph=graph, config=config)
        self._callables: dict[str, Callable[..., list[Any]]] = {}
        self._limited: dict[str, LimitedRun] = {}
        self._inter_op_thread_pool = SHARED_POOL if options.inter_op_threads else CALLERS_THREAD
        self._lock = threading.Lock()
        try:
            with graph.as_default(), tf.device(device), _without_advice(tf):
                tf.compat.v1.saved_model.load(self._session, list(options.tags), str(path))
                self._kept = keep(self._session, self.effects.states.values())
        except (tf.errors.OpError, OSError, ValueError, RuntimeError) as error:
            self._session.close()
            raise NotAvailable(f"{path} could not be loaded: {_first_line(error)}", hint="deploy it again") from error

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        """Run one signature.

        Args:
            signature: a key of `signatures`.
            inputs: name -> array `(b, *spec.shape[1:])` of exactly the spec's dtype.

        Returns:
            name -> array, with strings as object arrays of bytes.

        Raises:
            RunRejected: if the values in the inputs were at fault (TensorFlow's INVALID_ARGUMENT and the like).
            RunFailed: for any other failure.
        """
        if self.is_stoppable:
            # Who calls this waits without a deadline: a warm-up, say, which keeps all other models from being loaded.
            try:
                return self.run_within(signature, inputs, LONGEST_RUN_S)
            except DeadlineExceeded as error:
                raise RunFailed(f"a run took longer than {LONGEST_RUN_S:g} s and was stopped") from error
        spec = self.signatures[signature]
        try:
            values = self._callable(signature)(*(inputs[name] for name in spec.inputs))
        except Exception as error:
            raise _as_run_error(error) from error
        return {name: array_of(value) for name, value in zip(spec.outputs, values, strict=True)}

    def restore(self) -> None:
        """Put back the variables and tables that runs write; see `Servable.restore`."""
        kept, self._kept = self._kept, ()
        for put_back in kept:
            put_back()

    def run_within(self, signature: str, inputs: Tensors, limit_s: float) -> Tensors:
        """Run one signature, and stop it when that takes longer than `limit_s` seconds; see `run`.

        Raises:
            DeadlineExceeded: if the run was stopped.
        """
        spec = self.signatures[signature]
        try:
            run = self._limited.get(signature)
            if run is None:
                with self._lock:
                    run = self._limited[signature] = LimitedRun(self._session, spec)
            values = run({name: inputs[name] for name in spec.inputs}, limit_s)
        except DeadlineExceeded:
            raise
        except Exception as error:
            raise _as_run_error(error) from error
        return {name: array_of(value) for name, value in zip(spec.outputs, values, strict=True)}

    def close(self) -> None:
        """Close the session, which frees the variables and ends the loops of runs that are on their way."""
        self._callables.clear()
        self._limited.clear()
        self._session.close()

    def _callable(self, signature: str) -> Callable[..., list[Any]]:
        found = self._callables.get(signature)
        if found is None:
            from tensorflow.core.protobuf.config_pb2 import CallableOptions, RunOptions

            spec = self.signatures[signature]
            wanted = CallableOptions(
                feed=[tensor.tensor_name for tensor in spec.inputs.values()],
                fetch=[tensor.tensor_name for tensor in spec.outputs.values()],
                run_options=RunOptions(inter_op_thread_pool=self._inter_op_thread_pool),
            )
            with self._lock:
                # The public `make_callable` costs five times as much per call: it resolves every feed anew.
                found = self._session._make_callable_from_options(wanted)  # noqa: SLF001
                self._callables[signature] = found
        return found


def start_tensorflow() -> None:
    """Import TensorFlow, and let it make what all sessions of a process share."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        session.run(tf.constant(0.0))


def load_saved_model(path: Path, device: str | None = None) -> Servable:
    """The `Loader` for SavedModel folders."""
    return SavedModelServable(path, device)


def _check_allowed(path: Path, found: Sequence[str], allowed: frozenset[str] | None) -> None:
    refused = [] if allowed is None else [name for name in found if name not in allowed]
    if refused:
        raise FailedPrecondition(
            f"{path} is not served: {reach_text(refused)}; if you trust it: --allow_ops={','.join(refused)}"
        )


@contextlib.contextmanager
def _without_advice(tf: Any) -> Iterator[None]:
    """Suppress TensorFlow's warning that sessions are old; they are what TensorFlow Serving runs on."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _session_config(tf: Any, options: SessionOptions) -> Any:
    """Share the process's GPU policy: a session that asked for another one would fail to start."""
    config = tf.compat.v1.ConfigProto.FromString(options.config)
    config.allow_soft_placement = True
    config.intra_op_parallelism_threads = options.intra_op_threads or config.intra_op_parallelism_threads
    config.inter_op_parallelism_threads = options.inter_op_threads or config.inter_op_parallelism_threads
    grows = grow_on_demand()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and options.gpu_memory_fraction:
        config.gpu_options.per_process_gpu_memory_fraction = options.gpu_memory_fraction
    elif gpus:
        config.gpu_options.allow_growth = grows
    return config


def _as_run_error(error: Exception) -> ServingError:
    import tensorflow as tf

    caused_by_values = (
        tf.errors.InvalidArgumentError,
        tf.errors.OutOfRangeError,
        tf.errors.FailedPreconditionError,
        tf.errors.NotFoundError,
    )
    kind = RunRejected if isinstance(error, (*caused_by_values, TypeError, ValueError)) else RunFailed
    return kind(_first_line(error))


def _first_line(error: Exception) -> str:
    """The line with the reason."""
    return cause_in_graph(str(getattr(error, "message", "") or error)) or type(error).__name__
