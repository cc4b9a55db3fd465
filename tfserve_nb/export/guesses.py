"""What Keras did not record of a model's inputs, from what the model's graph does with them.

Keras records the shape of what a subclassed model was called with, and no type. The type that the model computes in is
a guess, and a bad one for ids and text: float32 rounds whole numbers above 2**24. So the model is traced, and an input
that does nothing but become integers or text (in front of an `Embedding`, a `StringLookup`, a `TextVectorization`) gets
that type. One that the model also computes with, or that it hashes, which it does to both, is not guessed but refused.

Thread: the one that owns the model, usually the kernel's main thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any  # TensorFlow's graphs

from ..errors import ModelNotServable
from ..types import TensorSpec

MAX_TRACES = 9
"""Combinations of types that are tried on a model that cannot be traced with its own type; two inputs have as many."""

_WHOLE, _TEXT, _OTHER = "int64", "string", "numbers"

_ID_BYTES = 4
"""Integers that are smaller are pixels, not ids."""

_PASSING = frozenset(
    {
        "BroadcastTo",
        "ConcatV2",
        "EnsureShape",
        "ExpandDims",
        "GatherV2",
        "Identity",
        "Pack",
        "PreventGradient",
        "Reshape",
        "Slice",
        "Snapshot",
        "Split",
        "SplitV",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "Tile",
        "Transpose",
        "Unpack",
    }
)
"""Operations that hand the values on as they are."""

_COMPUTING = frozenset(
    {
        "Abs",
        "Add",
        "AddN",
        "AddV2",
        "Ceil",
        "ClipByValue",
        "Div",
        "DivNoNan",
        "Floor",
        "FloorDiv",
        "FloorMod",
        "Maximum",
        "Minimum",
        "Mod",
        "Mul",
        "Neg",
        "RealDiv",
        "Relu",
        "Rint",
        "Round",
        "Select",
        "SelectV2",
        "Sign",
        "Square",
        "Sub",
        "TruncateDiv",
        "TruncateMod",
    }
)
"""Operations on each value. Behind them whole numbers may have been meant, or numbers that are rounded."""

_SHARED = {
    "AsString": {_TEXT, _OTHER},
    "SparseCross": {_TEXT, _WHOLE},
    "SparseCrossHashed": {_TEXT, _WHOLE},
    "SparseCrossV2": {_TEXT, _WHOLE},
}
"""Operations that take several types -> which."""

_ASIDE = frozenset(
    {
        "Assert",
        "CheckNumerics",
        "Equal",
        "IsNan",
        "NoOp",
        "NotEqual",
        "OnesLike",
        "Print",
        "PrintV2",
        "Rank",
        "Shape",
        "ShapeN",
        "Size",
        "ZerosLike",
    }
)
"""Operations that tell nothing about a type: of shapes, and of masks."""


def with_guessed_types(
    call: Callable[[Sequence[Any]], Any], specs: Sequence[TensorSpec], description: str, hint: str
) -> tuple[TensorSpec, ...]:
    """Inputs with the types that the model's own graph shows.

    Args:
        call: takes one tensor per input.
        specs: the inputs with the type that the model computes in.
        description: the model, for messages.
        hint: what to do when a type cannot be told.

    Returns:
        The inputs; as they were given when the model cannot be traced with any types, which its export then says.

    Raises:
        ModelNotServable: naming an input that becomes integers or text, and that could be of another type as well.
    """
    choices = [(spec.dtype, *(kind for kind in (_WHOLE, _TEXT) if kind != spec.dtype)) for spec in specs]
    # First all of one kind, which most models are.
    candidates = dict.fromkeys(
        (*zip(*choices, strict=True), *itertools.islice(itertools.product(*choices), MAX_TRACES))
    )
    for dtypes in candidates:
        tried = _of_types(specs, dtypes)
        graph = _traced(call, tried)
        if graph is None:
            continue
        uses = [_uses(tensor, graph) for tensor in graph.inputs[: len(specs)]]
        wanted = [_type_for(use, spec) for spec, use in zip(tried, uses, strict=True)]
        unclear = [spec.name for spec, dtype in zip(specs, wanted, strict=True) if dtype is None]
        found = tried if unclear else _of_types(specs, [str(dtype) for dtype in wanted])
        if not unclear and (found == tried or _traced(call, found) is not None):
            return found
        name = next(iter(unclear), specs[0].name)
        raise ModelNotServable(
            f"the type of input {name!r} of {description} is not known: Keras recorded its shape only, and what the "
            "model does with it fits more than one type",
            hint=hint,
        )
    return tuple(specs)


def takes_any_batch(call: Callable[[Sequence[Any]], Any], specs: Sequence[TensorSpec]) -> bool:
    """Whether a model that was made for a fixed number of rows computes with any.

    Args:
        call: takes one tensor per input.
        specs: the inputs, with a free dimension 0.
    """
    graph = _traced(call, specs)
    return graph is not None and all(output.shape.rank and output.shape[0] is None for output in graph.outputs)


def _of_types(specs: Sequence[TensorSpec], dtypes: Sequence[str]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, dtype=dtype) for spec, dtype in zip(specs, dtypes, strict=True))


def _type_for(uses: set[str], spec: TensorSpec) -> str | None:
    """The type for an input that was traced with some type; None when its uses fit several."""
    if spec.dtype == _WHOLE and _TEXT in uses:
        return None
    if spec.dtype in (_WHOLE, _TEXT) or not uses & {_WHOLE, _TEXT}:
        return spec.dtype
    return next(iter(uses)) if len(uses) == 1 else None


def _traced(call: Callable[[Sequence[Any]], Any], specs: Sequence[TensorSpec]) -> Any:
    """The graph of a model for inputs of some types; None when it cannot have them."""
    import tensorflow as tf

    signature = [tf.TensorSpec(spec.shape, spec.dtype) for spec in specs]
    function = tf.function(lambda *tensors: call(tensors), input_signature=signature, autograph=False)
    try:
        return function.get_concrete_function().graph
    except Exception:  # noqa: BLE001 - the user's code, with types that it may not be made for
        return None


def _uses(tensor: Any, graph: Any) -> set[str]:
    """What the values of an input become: `int64`, `string` or `numbers`."""
    outputs = {id(output) for output in graph.outputs}
    found: set[str] = set()
    waiting, seen = [(tensor, False)], set()
    while waiting:
        value, is_computed = waiting.pop()
        if (id(value), is_computed) in seen:
            continue
        seen.add((id(value), is_computed))
        if id(value) in outputs:
            found.add(_OTHER)
        for operation in value.consumers():
            kind = operation.type
            if kind in _PASSING or kind in _COMPUTING:
                waiting += [(output, is_computed or kind in _COMPUTING) for output in operation.outputs]
            elif kind == "Cast":
                found |= _uses_of_cast(operation)
            elif kind not in _ASIDE:
                found |= _SHARED.get(kind, {_OTHER})
        if is_computed:
            found.add(_OTHER)
    return found


def _uses_of_cast(operation: Any) -> set[str]:
    dtype = operation.get_attr("DstT")
    if dtype.is_integer and dtype.size >= _ID_BYTES:
        # `Hashing` writes whole numbers as text, and hashes that.
        return {_WHOLE, _TEXT} if _is_written_as_text(operation.outputs[0]) else {_WHOLE}
    return {_TEXT if dtype.name == "string" else _OTHER}


def _is_written_as_text(tensor: Any) -> bool:
    return any(
        user.type == "AsString" or (user.type in _PASSING and any(_is_written_as_text(out) for out in user.outputs))
        for user in tensor.consumers()
    )
