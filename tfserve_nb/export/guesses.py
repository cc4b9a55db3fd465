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
from .flow.uses import OTHER, TEXT, WHOLE, Use, uses_of

MAX_TRACES = 9
"""Combinations of types that are tried on a model that cannot be traced with its own type; two inputs have as many."""


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
    choices = [(spec.dtype, *(kind for kind in (WHOLE, TEXT) if kind != spec.dtype)) for spec in specs]
    # First all of one kind, which most models are.
    candidates = dict.fromkeys(
        (*zip(*choices, strict=True), *itertools.islice(itertools.product(*choices), MAX_TRACES))
    )
    for dtypes in candidates:
        tried = _of_types(specs, dtypes)
        graph = _traced(call, tried)
        if graph is None:
            continue
        uses = uses_of(graph, len(specs))
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


def rounded_ids(call: Callable[[Sequence[Any]], Any], specs: Sequence[TensorSpec]) -> list[str]:
    """The inputs of floats that the model makes whole numbers of, as they are or shifted, wherever in its graph.

    Args:
        call: takes one tensor per input.
        specs: the inputs, as the model has them.
    """
    is_float = [spec.numpy_dtype.kind not in "biuO" for spec in specs]
    graph = _traced(call, specs) if any(is_float) else None
    if graph is None:
        return []
    found = zip(specs, is_float, uses_of(graph, len(specs)), strict=True)
    return [
        spec.name
        for spec, is_one, uses in found
        if is_one and any(use.kind == WHOLE and use.computed != OTHER for use in uses)
    ]


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


def _type_for(uses: set[Use], spec: TensorSpec) -> str | None:
    """The type for an input that was traced with some type; None when its uses fit several."""
    kinds = {use.kind for use in uses} | {OTHER for use in uses if use.computed}
    if spec.dtype == WHOLE and TEXT in kinds:
        return None
    if spec.dtype in (WHOLE, TEXT) or not kinds & {WHOLE, TEXT}:
        return spec.dtype
    return next(iter(kinds)) if len(kinds) == 1 else None


def _traced(call: Callable[[Sequence[Any]], Any], specs: Sequence[TensorSpec]) -> Any:
    """The graph of a model for inputs of some types; None when it cannot have them."""
    import tensorflow as tf

    signature = [tf.TensorSpec(spec.shape, spec.dtype) for spec in specs]
    function = tf.function(lambda *tensors: call(tensors), input_signature=signature, autograph=False)
    try:
        return function.get_concrete_function().graph
    except Exception:  # noqa: BLE001 - the user's code, with types that it may not be made for
        return None
