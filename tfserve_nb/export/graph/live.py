"""The live model as `predict` and the export run it: as a graph, and without leaving a trace.

Keras computes some layers differently when they are called eagerly, and neither `predict` nor the SavedModel does
that. Variables and tables that a run writes are read before it and put back after it.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import InvalidOption, RunFailed, ServingError
from ...types import Tensors, array_of
from ..endpoint import ExportSource
from ..source import prepare_source
from .state import GraphState, Written, added_keys, state_of

LONGEST_RUN_S = 60.0
"""A run of the live model takes no longer, as no run of a version without a deadline does."""

PutBack = Callable[[], object]
"""Makes something what it was before."""


class NotRepeatable(ServingError):
    """Running the live model would change something that cannot be put back."""


class LiveModel:
    """The graph of a live model.

    Args:
        source: what `prepare_source` returned.

    Raises:
        InvalidOption: for a SavedModel folder: there is no live model.
    """

    def __init__(self, source: ExportSource) -> None:
        if source.call is None:
            raise InvalidOption(f"{source.description} has no live model", hint="load it and run the loaded model")
        self._source = source
        self._traces: dict[tuple[Any, ...], _Trace] = {}

    def run(self, batch: Tensors) -> dict[str, np.ndarray]:
        """The outputs of the live model, with `training=False`.

        Args:
            batch: input name -> array of the signature's type.

        Returns:
            Output name -> array; text as object arrays of bytes.

        Raises:
            NotRepeatable: if a run would leave a trace.
            RunFailed: if it takes longer than `LONGEST_RUN_S`.
            Exception: what the model raises.
        """
        if self._source.backend != "tensorflow":
            return _run_without_trace(self._source, batch)
        import tensorflow as tf

        values = [tf.constant(batch[spec.name], dtype=spec.dtype) for spec in self._source.inputs]
        trace = self._trace(values)
        kept = [entry for entry in trace.state.written if not entry.can_be_kept or entry.node not in trace.held]
        if kept:
            raise NotRepeatable(f"a run of the live model changes {kept[0].name}, which cannot be put back")
        with contextlib.ExitStack() as stack:
            for entry in trace.state.written:
                stack.callback(_kept(trace.held[entry.node], entry))
            outputs = _within_limit(trace.graph, values)
            return {name: array_of(value) for name, value in outputs.items()}

    def _trace(self, values: Sequence[Any]) -> _Trace:
        """A trace for the sizes that a batch has, as `predict` makes one for its data.

        What depends on how often it is traced differs from the export's, and so does what misreads sizes that are not
        known when it is traced: only the number of rows is left open here.
        """
        shapes = tuple(
            value.shape if not spec.is_batched or not value.shape.rank else (None, *value.shape[1:])
            for spec, value in zip(self._source.inputs, values, strict=True)
        )
        key = tuple(map(tuple, shapes))
        if key not in self._traces:
            assert self._source.call is not None  # noqa: S101 - checked when this object was made
            self._traces[key] = _Trace(self._source.call, shapes, [spec.dtype for spec in self._source.inputs])
        return self._traces[key]


def _run_without_trace(source: ExportSource, batch: Tensors) -> dict[str, np.ndarray]:
    """The outputs of a model that Keras computes without TensorFlow; what it writes in its variables is dropped."""
    import keras

    values = [keras.ops.convert_to_tensor(batch[spec.name], dtype=spec.dtype) for spec in source.inputs]
    assert source.call is not None  # noqa: S101 - checked when the live model was made
    with keras.StatelessScope():
        outputs = source.call(*values)
    return {name: np.asarray(keras.ops.convert_to_numpy(value)) for name, value in outputs.items()}


class _Trace:
    """One trace of a live model.

    Args:
        call: the model.
        shapes: of its inputs.
        dtypes: of its inputs.

    Attributes:
        graph: the concrete function.
    """

    def __init__(self, call: Callable[..., Any], shapes: Sequence[Any], dtypes: Sequence[str]) -> None:
        import tensorflow as tf

        specs = [tf.TensorSpec(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        self.graph: Any = tf.function(call, input_signature=specs, autograph=False).get_concrete_function()

    @cached_property
    def state(self) -> GraphState:
        """What a run changes."""
        return state_of(self.graph.graph.as_graph_def())

    @cached_property
    def held(self) -> dict[str, Any]:
        """The variables and tables that the graph uses: node -> handle."""
        return {inner.op.name: outer for outer, inner in self.graph.graph.captures}


def _within_limit(graph: Any, values: Sequence[Any]) -> Any:
    """Run a concrete function; one that goes on too long is stopped: Ctrl-C does not reach into TensorFlow.

    Raises:
        RunFailed: if it was stopped.
    """
    from tensorflow.python.eager.cancellation import CancellationManager

    manager = CancellationManager()
    timer = threading.Timer(LONGEST_RUN_S, manager.start_cancel)
    timer.name, timer.daemon = "tfserve-live-limit", True
    timer.start()
    try:
        return manager.get_cancelable_function(graph)(*values)
    except Exception:  # after Ctrl-C it is not TensorFlow's
        if not manager.is_cancelled:
            raise
        raise RunFailed(f"a run took longer than {LONGEST_RUN_S:g} s and was stopped") from None
    finally:
        timer.cancel()


def _kept(handle: Any, entry: Written) -> PutBack:
    """Read what a run is about to change; call the result to put it back."""
    import tensorflow as tf

    ops = tf.raw_ops
    if entry.kind == "table":
        return _kept_table(handle, entry)
    # A copy: assigning may write into the memory that was read.
    value = tf.identity(ops.ReadVariableOp(resource=handle, dtype=entry.dtypes[0])).numpy().copy()
    return lambda: ops.AssignVariableOp(resource=handle, value=tf.constant(value, entry.dtypes[0]))


def _kept_table(handle: Any, entry: Written) -> PutBack:
    import tensorflow as tf

    def export() -> list[np.ndarray]:
        """Keys and values; copies, since a table may write into the memory that was read."""
        read = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=entry.dtypes[0], Tvalues=entry.dtypes[1])
        return [part.numpy().copy() for part in read]

    before = export()

    def put_back() -> None:
        added = added_keys(before[0], export()[0])
        if len(added):
            tf.raw_ops.LookupTableRemoveV2(table_handle=handle, keys=tf.constant(added, entry.dtypes[0]))
        keys, values = (tf.constant(part, dtype) for part, dtype in zip(before, entry.dtypes, strict=True))
        tf.raw_ops.LookupTableImportV2(table_handle=handle, keys=keys, values=values)

    return put_back


def live_outputs(source: object, batch: Tensors) -> dict[str, np.ndarray]:
    """The outputs of the live model for one batch; see `LiveModel.run`.

    Args:
        source: a model, or what `prepare_source` returned; no SavedModel folder.
        batch: input name -> array of the signature's type.
    """
    return LiveModel(prepare_source(source)).run(batch)


@contextlib.contextmanager
def left_alone(owners: Sequence[object]) -> Iterator[None]:
    """Put back what exporting a model moves: its Python attributes, and the random state of Python, numpy, TensorFlow.

    Code of the model runs when it is traced. What it stores in attributes would be counted twice, or would be a tensor
    of a graph that is gone.

    Args:
        owners: the objects that own the model's variables.
    """
    undo = [_python_random(), _numpy_random(), _tensorflow_random()]
    undo += [_attributes(owner) for owner in _parts(owners)]
    try:
        yield
    finally:
        for put_back in undo:
            put_back()


def _python_random() -> PutBack:
    state = random.getstate()
    return lambda: random.setstate(state)


def _numpy_random() -> PutBack:
    state = np.random.get_state()  # noqa: NPY002 - the global state is what users seed
    return lambda: np.random.set_state(state)  # noqa: NPY002


def _tensorflow_random() -> PutBack:
    """Ops outside of graphs take their seeds from a generator of Python in TensorFlow's context."""
    tf = sys.modules.get("tensorflow")
    context = None if tf is None else sys.modules.get("tensorflow.python.eager.context")
    generator = None if context is None else getattr(context.context(), "_rng", None)
    if generator is None:
        return lambda: None
    state = generator.getstate()
    return lambda: generator.setstate(state)


def _parts(owners: Sequence[object]) -> list[object]:
    """The layers and modules that objects consist of, themselves included."""
    found: dict[int, object] = {}
    waiting = list(owners)
    while waiting:
        part = waiting.pop()
        if id(part) not in found and hasattr(part, "__dict__"):
            found[id(part)] = part
            layers = getattr(part, "_flatten_layers", None)
            waiting += list(layers()) if callable(layers) else []
            modules = getattr(part, "submodules", ())
            waiting += list(modules) if isinstance(modules, list | tuple) else []
    return list(found.values())


_PLAIN = (int, float, complex, str, bytes, bool, type(None), np.generic)


def _attributes(owner: object) -> PutBack:
    """Keep the attributes of an object, and what its lists, sets and dicts hold."""
    held = vars(owner)
    before = dict(held)
    contents = [_contents(value) for value in before.values() if isinstance(value, list | set | dict)]

    def put_back() -> None:
        for name, value in before.items():
            if held.get(name, owner) is not value and not name.startswith(_BOOKKEEPING):
                held[name] = value
        for name in held.keys() - before.keys():
            if not name.startswith("_") and _is_plain_or_symbolic(held[name]):
                del held[name]
        for restore in contents:
            restore()

    return put_back


_BOOKKEEPING = ("_self_", "_tf_", "_keras_", "stop_training")
"""What TensorFlow notes at objects that it saves, and what others may tell a training meanwhile; it may stay."""


def _is_plain_or_symbolic(value: object) -> bool:
    import tensorflow as tf

    return isinstance(value, _PLAIN) or tf.is_symbolic_tensor(value)


def _contents(value: Any) -> PutBack:
    """Keep what a list, set or dict holds. Keras and TensorFlow wrap them, and count changes by their methods."""
    stores = [value, getattr(value, "_storage", None), getattr(value, "__wrapped__", None)]
    kept = [_store(store) for store in stores if isinstance(store, list | set | dict)]

    def put_back() -> None:
        for restore in kept:
            restore()

    return put_back


def _store(store: Any) -> PutBack:
    if not issubclass(type(store), list | set | dict):  # a stand-in, which only says that it is such an object
        return lambda: None
    before = _items(store)

    def put_back() -> None:
        now = _items(store)
        if len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True)):
            return
        half = len(before) // 2
        if isinstance(store, list):
            list.__setitem__(store, slice(None), before)
        elif isinstance(store, dict):
            dict.clear(store)
            dict.update(store, zip(before[:half], before[half:], strict=True))
        else:
            set.clear(store)
            set.update(store, before)

    return put_back


def _items(store: Any) -> list[Any]:
    return [*store, *store.values()] if isinstance(store, dict) else list(store)
