"""What a model becomes before it is written: one function of named tensors, for every kind of model.

Models take a tensor, a list, a dictionary or something nested, and return the same kinds. A served signature is flat:
named tensors in, named tensors out. The rules for names, in this order:

* inputs: the name given to `keras.Input`, else the key in a dictionary of inputs, else the name of the parameter of
  `call` (with `_0`, `_1` ... when it takes several);
* outputs: the key in a dictionary of outputs, else the name of the output layer when there are several, else
  `output_0`, `output_1` ... as in Keras' own export.

Names that Keras makes up (`keras_tensor_17`, `dense_4`) change whenever a notebook's cell is run again; they are no
names in this sense, because a client of version 1 must be able to talk to version 2.

Thread: any; nothing here is mutable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import ModelNotServable
from ..types import Shape, TensorSpec

Structure: TypeAlias = Any
"""A leaf, or a dict, list, tuple or named tuple of structures; leaves are of many types, none of which we import."""

Location: TypeAlias = tuple[str | int, ...]
"""Keys and positions that lead to a leaf."""

_MADE_UP_INPUT = re.compile(r"(?:keras_tensor|input_layer)(?:_\d+)?")


@dataclass(frozen=True, slots=True)
class SingleFile:
    """A model that is one file of another runtime than TensorFlow, which alone can run it.

    Attributes:
        engine: the runtime: `onnx` or `litert`.
        write: writes the file, and what belongs to it, into a version's folder that is there.
    """

    engine: str
    write: Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class ExportSource:
    """Something that can be exported.

    Attributes:
        description: what it is, for messages, such as `Sequential 'digits'`.
        inputs: the inputs in the order in which `call` takes them; empty for a model on disk.
        call: takes one tensor per input, returns output name -> tensor; runs live and can be traced. None for a model
            on disk: there is no live model to compare with.
        tracked: the objects that own the variables and tables which `call` uses.
        path: the SavedModel folder to be copied, or None.
        file: what is written for a model that is no SavedModel and becomes none; None for all others.
        backend: what `call` computes with: Keras' name of it.
        coarsest_dtype: the least exact type that the model computes in, such as `float32` or `float16`.
        notes: what had to be guessed or is left out, one line each; a deploy says them.
        order: the inputs in the order of a list that the model takes, those that are left out too; empty when it takes
            none, such as a model of a dict.
    """

    description: str
    inputs: tuple[TensorSpec, ...] = ()
    call: Callable[..., dict[str, Any]] | None = None
    tracked: tuple[object, ...] = ()
    path: Path | None = None
    file: SingleFile | None = None
    backend: str = "tensorflow"
    coarsest_dtype: str = "float32"
    notes: tuple[str, ...] = ()
    order: tuple[str, ...] = ()


def leaves(structure: Structure) -> Iterator[tuple[Location, Any]]:
    """The leaves of a structure with their paths, such as `(("a", 0), t)` for `{"a": [t]}` and `((), t)` for `t`.

    Keys keep their order. Positions in lists are integers, keys and fields are strings.
    """
    if not _is_nested(structure):
        yield (), structure
        return
    for key, child in _children(structure):
        for path, leaf in leaves(child):
            yield (key, *path), leaf


def pack(structure: Structure, values: Iterable[Any]) -> Structure:
    """A structure of the same form with other leaves, taken in the order of `leaves`."""
    iterator = iter(values)

    def fill(node: Structure) -> Structure:
        if not _is_nested(node):
            return next(iterator)
        children = [fill(child) for _, child in _children(node)]
        if isinstance(node, Mapping):
            return dict(zip(node, children, strict=True))
        if hasattr(node, "_fields"):
            return type(node)(*children)
        return tuple(children) if isinstance(node, tuple) else children

    return fill(structure)


def is_list(structure: Structure) -> bool:
    """Whether a structure is a list of leaves: it has an order, and nothing inside of its parts."""
    is_sequence = isinstance(structure, list | tuple) and not hasattr(structure, "_fields")
    return is_sequence and not any(_is_nested(child) for child in structure)


def name_inputs(structure: Structure, own_names: Sequence[str], parameter: str) -> tuple[str, ...]:
    """Names for the inputs of a model, in the order of `leaves`.

    Args:
        structure: what the model takes.
        own_names: the names that the tensors have by themselves; names made up by Keras and empty ones do not count.
        parameter: the name of the parameter of `call`.
    """
    names = []
    for (path, _), own in zip(leaves(structure), own_names, strict=True):
        if own and not _MADE_UP_INPUT.fullmatch(own):
            names.append(own)
        else:
            names.append(_join(path if len(own_names) > 1 or path[:1] != (0,) else (), parameter))
    return unique(names)


def name_outputs(outputs: Structure, layer_names: Sequence[str] = ()) -> dict[str, Any]:
    """Output name -> tensor for what a model returned.

    Args:
        outputs: what the model returned.
        layer_names: for a functional model with several outputs in a list: the names of the output layers, "" for
            those that Keras made up.

    Raises:
        ModelNotServable: if an output is no dense tensor.
    """
    found = list(leaves(outputs))
    names = [_join(path or (0,), "output") for path, _ in found]
    if len(layer_names) == len(found) > 1 and not isinstance(outputs, Mapping):
        names = [layer or name for layer, name in zip(layer_names, names, strict=True)]
    names = list(unique(names))
    named = dict(zip(names, (leaf for _, leaf in found), strict=True))
    for name, leaf in named.items():
        _check_dense(name, leaf)
    if not named:
        raise ModelNotServable("the model returns nothing", hint="return a tensor, or a dict of tensors, from call()")
    return named


def is_made_up_layer_name(name: str, class_name: str) -> bool:
    """Whether Keras made the name of a layer up from the name of its class, such as `dense_4` of `Dense`."""
    snake = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower()
    return re.fullmatch(rf"{re.escape(snake)}(?:_\d+)?", name) is not None


def free_batch(shape: Sequence[int | None]) -> Shape:
    """A shape with its first dimension left open."""
    return (None, *(None if size is None else int(size) for size in shape[1:])) if len(shape) else ()


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """The names with `_1`, `_2` ... appended to those that were there before."""
    taken: list[str] = []
    for name in names:
        candidate, count = name, 0
        while candidate in taken:
            count += 1
            candidate = f"{name}_{count}"
        taken.append(candidate)
    return tuple(taken)


def _join(path: Location, prefix: str) -> str:
    """A name from a path; `prefix` stands in front when the path has no key to begin with."""
    parts = path if path and isinstance(path[0], str) else (prefix, *path)
    return "_".join(map(str, parts))


def _children(node: Structure) -> list[tuple[str | int, Structure]]:
    if isinstance(node, Mapping):
        return [(str(key), child) for key, child in node.items()]
    if hasattr(node, "_fields"):
        return list(zip(node._fields, node, strict=True))
    return list(enumerate(node))


def _is_nested(node: Structure) -> bool:
    return isinstance(node, Mapping | list | tuple)


def _check_dense(name: str, leaf: object) -> None:
    if hasattr(leaf, "dtype") and hasattr(leaf, "shape") and not type(leaf).__name__.startswith(("Ragged", "Sparse")):
        return
    hints = {
        "RaggedTensor": "return value.to_tensor() instead",
        "SparseTensor": "return tf.sparse.to_dense(value) instead",
    }
    kind = type(leaf).__name__
    raise ModelNotServable(
        f"output {name!r} is a {kind}; a served model returns dense tensors",
        hint=hints.get(kind, "return tensors only, or a dict of them, from call()"),
    )
