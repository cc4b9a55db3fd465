"""Trace a model and write the SavedModel: the one place that calls Keras' and TensorFlow's exporters.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import contextlib
import keyword
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ExportFailed, ServingError
from ..types import DEFAULT_SIGNATURE, Progress, ProgressEvent
from .backends.jax import as_tensorflow
from .endpoint import ExportSource
from .reasons import innermost
from .signatures import SAVED_MODEL_FILE, read_saved_model

_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LOGGERS = ("tensorflow", "absl")
_OWN_SIGNATURES = threading.Lock()


def write_traced(source: ExportSource, folder: Path, progress: Progress) -> None:
    """Write a live model into a new folder, with the single signature `serving_default`.

    Args:
        source: a source with a `call`.
        folder: must not exist.
        progress: called with each step, on this thread.

    Raises:
        ExportFailed: if the model cannot be traced.
        Exception: what TensorFlow raises when it cannot write; the caller translates it.
    """
    import tensorflow as tf

    names = [spec.name for spec in source.inputs]
    aliases = plain_names(names)
    with _quiet():
        progress(ProgressEvent("exporting", 0, 2, "tracing"))
        specs = [
            tf.TensorSpec(spec.shape, spec.dtype, name=alias)
            for spec, alias in zip(source.inputs, aliases, strict=True)
        ]
        # Gradients are for training; without them the files are smaller and more models can be saved.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        write = _traced_by_jax if source.backend == "jax" else _traced_by_tensorflow
        write_out = write(source, aliases, specs, options)
        progress(ProgressEvent("exporting", 1, 2, "writing"))
        write_out(str(folder))
    rename_inputs(folder, dict(zip(aliases, names, strict=True)))
    progress(ProgressEvent("exporting", 2, 2))


def _traced_by_tensorflow(
    source: ExportSource, aliases: Sequence[str], specs: Sequence[Any], options: Any
) -> Callable[[str], None]:
    """Trace a model; what is returned writes it into a folder."""
    from keras.export import ExportArchive

    archive = ExportArchive()
    for resource in source.tracked:
        archive.track(resource)
    _hold_each_variable_once(archive)
    call, signature = _as_called(source, aliases, specs)
    _trace(archive.add_endpoint(DEFAULT_SIGNATURE, call, input_signature=signature), source)

    def write_out(folder: str) -> None:
        with _own_signatures_optional():
            archive.write_out(folder, options=options, verbose=False)

    return write_out


def _traced_by_jax(
    source: ExportSource, aliases: Sequence[str], specs: Sequence[Any], options: Any
) -> Callable[[str], None]:
    """The same for Keras on JAX, whose archive would write every variable that does not train in every run."""
    import tensorflow as tf

    traceable, variables = as_tensorflow(source)
    call, signature = _as_called(traceable, aliases, specs)
    endpoint = tf.function(call, input_signature=signature, autograph=False)
    _trace(endpoint, source)
    root = tf.train.Checkpoint(variables=variables, endpoint=endpoint)
    signatures = {DEFAULT_SIGNATURE: endpoint}
    return lambda folder: tf.saved_model.save(root, folder, signatures=signatures, options=options)


def _as_called(
    source: ExportSource, aliases: Sequence[str], specs: Sequence[Any]
) -> tuple[Callable[..., Any] | None, list[Any]]:
    """The function that is written and its arguments: one each, or a dict when the model takes no list of inputs.

    TensorFlow writes down how a function takes its arguments; `signatures` reads from that in which order.
    """
    call = source.call
    if source.order or len(aliases) == 1 or call is None:
        return call, list(specs)
    return lambda named: call(*(named[alias] for alias in aliases)), [dict(zip(aliases, specs, strict=True))]


def plain_names(names: Sequence[str]) -> list[str]:
    """Names that TensorFlow's tracer keeps as they are, in place of those that it would change or choke on.

    The tracer makes Python parameters and, in lower case, arguments of graph functions out of input names: spaces,
    accents, Python's keywords and names that differ in case only do not survive that.

    Example:
        >>> plain_names(["age", "Age", "petal width (cm)"])
        ['age', 'input_1', 'input_2']
    """
    taken = {name.lower() for name in names} | {"self"}
    used: set[str] = {"self"}
    plain = []
    for position, name in enumerate(names):
        alias = name
        if not _PLAIN_NAME.fullmatch(name) or keyword.iskeyword(name) or name.lower() in used:
            alias = f"input_{position}"
            while alias in taken | used:
                alias += "_"
        used.add(alias.lower())
        plain.append(alias)
    return plain


def rename_inputs(folder: Path, names: Mapping[str, str]) -> None:
    """Give the inputs of `serving_default` the names that the model has for them.

    Args:
        folder: a SavedModel folder.
        names: name in the file -> wanted name.
    """
    changed = {old: new for old, new in names.items() if old != new}
    if not changed:
        return
    saved_model = read_saved_model(folder)
    for meta_graph in saved_model.meta_graphs:
        inputs = meta_graph.signature_def[DEFAULT_SIGNATURE].inputs
        found = {name: inputs.pop(name) for name in list(inputs)}
        for name, info in found.items():
            inputs[changed.get(name, name)].CopyFrom(info)
        # The same names once more, for readers that call the signature from Python (tf.saved_model.load).
        for node in meta_graph.object_graph_def.nodes:
            keywords = node.bare_concrete_function.argument_keywords
            if node.WhichOneof("kind") == "bare_concrete_function" and set(keywords) <= set(names):
                keywords[:] = [changed.get(name, name) for name in keywords]
    (folder / SAVED_MODEL_FILE).write_bytes(saved_model.SerializeToString(deterministic=True))


def _hold_each_variable_once(archive: Any) -> None:
    """Have the archive list the variables that the graph uses, and not Keras' shells around them.

    TensorFlow writes and loads a shell as one more variable beside the one inside of it. The lists keep their names:
    the weights are found below them, in the checkpoint (`variables/0`) and in what `tf.saved_model.load` returns.
    """
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        archive.add_variable_collection(name, [_innermost_variable(one) for one in getattr(archive, name)])


def _innermost_variable(variable: Any) -> Any:
    """The variable inside of one of Keras; of one with a copy on each device the first copy, as in the graph."""
    import keras

    found = variable.value if isinstance(variable, keras.Variable) else variable
    strategy = getattr(found, "distribute_strategy", None)
    return found if strategy is None else strategy.experimental_local_results(found)[0]


_CODE_HINT = "use TensorFlow or keras.ops on the tensors in call(), no numpy and no Python if or float() on values"


def _trace(endpoint: Any, source: ExportSource) -> None:
    """Trace now, so that an error of the model is not taken for an error of the disk.

    Raises:
        ExportFailed: if the model's code cannot be traced.
    """
    try:
        endpoint.get_concrete_function()
    except ServingError:
        raise
    except Exception as error:
        raise ExportFailed(
            f"{source.description} cannot be traced: {innermost(error)}",
            # What was guessed or left out is a likelier cause than the code, which ran when it was called.
            hint="; ".join((*source.notes, _CODE_HINT)),
        ) from error


@contextlib.contextmanager
def _own_signatures_optional() -> Iterator[None]:
    """Let models be written that cannot be called as Keras would call them.

    While Keras looks for tables, it traces every model, and the models inside of it, with the first argument of
    `call()` alone. A body that needs another one fails there. That signature is not written, so it may be missing.
    """
    import keras

    attribute = "_default_save_signature"
    owner: Any = next((kind for kind in keras.Model.__mro__ if isinstance(vars(kind).get(attribute), property)), None)
    if owner is None:
        yield
        return

    def traced(model: Any) -> Any:
        try:
            signature = original.fget(model)
            if signature is not None:
                signature.get_concrete_function()
        except Exception:  # noqa: BLE001 - the user's code, called in a way that it may not be made for
            return None
        return signature

    # The class is shared by all threads that export.
    with _OWN_SIGNATURES:
        original = vars(owner)[attribute]
        setattr(owner, attribute, property(traced))
        try:
            yield
        finally:
            setattr(owner, attribute, original)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the chatter of the exporters in this thread out of the notebook; errors still come through."""
    this_thread = threading.get_ident()

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or record.thread != this_thread

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(is_wanted)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_wanted)
