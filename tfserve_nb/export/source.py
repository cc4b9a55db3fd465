"""From what a user passes as a model to something that can be exported, or to an error that names the next step.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any  # objects of users

from ..errors import ModelNotServable
from .arrays import given_as
from .endpoint import ExportSource
from .function_source import function_source, is_tf_function, is_tf_module, module_source, owners
from .keras_source import is_keras_object, keras_source
from .layout import list_versions
from .reasons import short_repr, shorten
from .signatures import SAVED_MODEL_FILE, check_portable, read_meta_graph, signatures_of
from .single_file.source import file_of, file_source, is_onnx_model, onnx_source
from .tf_keras_source import is_tf_keras_object, tf_keras_source

KERAS_FILE_SUFFIXES = (".keras", ".h5", ".hdf5")

_ACCEPTED = (
    "a Keras model, a tf.Module, a tf.function, an ONNX model, or the path of a SavedModel, an .onnx or a .tflite file"
)


_OBJECTS: tuple[tuple[Callable[[object], bool], Callable[[Any, object], ExportSource]], ...] = (
    (is_keras_object, keras_source),
    (is_tf_keras_object, lambda model, _: tf_keras_source(model)),
    (is_tf_function, function_source),
    (is_tf_module, module_source),
    (is_onnx_model, lambda model, _: onnx_source(model)),
)
"""What an object may be, and what is made of it and of an example."""


def prepare_source(model: object, *, example: object = None, option: str = "check") -> ExportSource:
    """Find out what a value is and how it is called.

    Args:
        model: a built Keras model (sequential, functional or subclassed), a `tf.Module` or `tf.function` with an
            input signature, an `onnx.ModelProto`, the path of a SavedModel folder, of an `.onnx` or a `.tflite` file,
            or what this function returned before.
        example: a batch of inputs, as the user would pass it to the model. Subclassed Keras models and functions
            without an input signature need it: it shows what they take.
        option: what the example was given with, for messages.

    Returns:
        The source, ready for `export_version` and `verify_against_live`.

    Raises:
        ModelNotServable: if it is nothing that can be served; the message names the value, the hint the next step.
        NotAvailable: if what runs a file is not installed.
        InvalidOption: if the example is no batch of arrays.
        ExportFailed: if a function cannot be traced.
    """
    if isinstance(model, ExportSource):
        return model
    if isinstance(model, str | os.PathLike):
        return _path_source(Path(model).expanduser())
    with given_as(option):
        for is_one, source_of in _OBJECTS:
            if is_one(model):
                return source_of(model, example)
    raise _no_model(model)


def is_model(value: object) -> bool:
    """Whether a value is a model in memory, of a kind that can be exported."""
    kinds = (is_keras_object, is_tf_keras_object, is_tf_function, is_tf_module)
    return any(is_kind(value) for is_kind in kinds)


def owners_of(model: object) -> tuple[object, ...]:
    """The objects whose attributes code of a model may change when it is traced."""
    if isinstance(model, ExportSource):
        return model.tracked
    if isinstance(model, type):
        return ()  # `prepare_source` refuses it: its methods are those of objects that are still to be made
    return owners(model) if is_tf_function(model) else (model,)


def _path_source(path: Path) -> ExportSource:
    """A model on disk: it is copied as it is, so it only has to be one.

    Raises:
        ModelNotServable: if there is none, or it has no signature.
        NotAvailable: if what runs it is not installed.
    """
    if path.name.endswith(KERAS_FILE_SUFFIXES):
        raise ModelNotServable(
            f"{path} is a Keras file, not a SavedModel folder",
            hint=f"load it first: model = keras.saving.load_model({str(path)!r})",
        )
    # os.path, because what is asked for may be no path at all: too long a text, or one with zero bytes.
    if not os.path.exists(path):  # noqa: PTH110
        raise ModelNotServable(
            f"{shorten(str(path))} does not exist; a model is {_ACCEPTED}", hint="check the path: %ls"
        )
    file = file_of(path)
    if file is not None:
        return file_source(file)
    if not os.path.isfile(path / SAVED_MODEL_FILE):  # noqa: PTH113
        versions = list_versions(path) if path.is_dir() else ()
        hint = f"deploy one of its versions: {path / str(versions[-1])}" if versions else f"a model is {_ACCEPTED}"
        raise ModelNotServable(f"{path} is no SavedModel: it holds no {SAVED_MODEL_FILE}", hint=hint)
    meta_graph = read_meta_graph(path)
    description = f"SavedModel {path}"
    if not signatures_of(meta_graph):
        raise ModelNotServable(
            f"{description} has no signature, so no request could reach it",
            hint="save it with one: tf.saved_model.save(module, folder, signatures=module.predict)",
        )
    check_portable(meta_graph, description)
    return ExportSource(description=description, path=path.absolute())


def _no_model(value: object) -> ModelNotServable:
    kind = type(value)
    package = kind.__module__.split(".")[0]
    shown = f" {text}" if (text := short_repr(value)) else ""
    hints = {
        "sklearn": "export it as ONNX, skl2onnx.to_onnx(model, x[:1], options={'zipmap': False}), and deploy that",
        "torch": "export it as ONNX, torch.onnx.export(model, (x,), 'model.onnx'), and deploy the file",
    }
    hint = hints.get(package, f"give {_ACCEPTED}")
    if isinstance(value, type):
        hint = f"that is a class; make a model of it: {value.__name__}(...)"
    elif hasattr(value, "signatures"):
        hint = "deploy the folder that it was loaded from: %deploy 'folder'"
    elif callable(value) and package in {"builtins", "functools"}:
        hint = "make it a tf.function: @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name='x')])"
    return ModelNotServable(f"{kind.__module__}.{kind.__qualname__}{shown} is no model that can be served", hint=hint)
