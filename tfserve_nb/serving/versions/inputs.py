"""Whether tensors fit a signature, or an error with the reason, before they join a batch.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from ...errors import InvalidRequest
from ...types import SignatureSpec, Tensors, TensorSpec, tf_name

Check: TypeAlias = Callable[[Tensors], int | None]
"""Checks the inputs of one signature: the number of rows, or None for a request that cannot share a run."""


def signature_named(signatures: Mapping[str, SignatureSpec], name: str) -> SignatureSpec:
    """The signature of a name.

    Raises:
        InvalidRequest: if there is none; the hint names those that there are.
    """
    found = signatures.get(name)
    if found is None:
        names = ", ".join(map(repr, signatures))
        raise InvalidRequest(
            f'Serving signature name: "{name}" not found in signature def',
            hint=f"d.predict(x, signature={next(iter(map(repr, signatures)), 'NAME')}); there are: {names or 'none'}",
        )
    return found


def has_one_shape(signature: SignatureSpec) -> bool:
    """Whether dimension 0 counts rows and all other dimensions are known, for all inputs."""
    return all(
        spec.is_batched and spec.shape is not None and None not in spec.shape[1:] for spec in signature.inputs.values()
    )


def check_of(signature: SignatureSpec, *, checks_shapes: bool) -> Check:
    """The check for each request of a signature; fast for requests that fit."""
    if not checks_shapes:
        return lambda inputs: check_types(signature, inputs)
    if not signature.inputs or not has_one_shape(signature):
        return lambda inputs: check_inputs(signature, inputs)
    wanted = [(name, spec.numpy_dtype, (spec.shape or ())[1:]) for name, spec in signature.inputs.items()]

    def check(inputs: Tensors) -> int:
        rows: int | None = None
        for name, dtype, inner in wanted:
            array = inputs.get(name)
            if array is None or array.dtype != dtype:
                break
            shape = array.shape
            if not shape or shape[1:] != inner or (rows is not None and shape[0] != rows):
                break
            rows = shape[0]
        else:
            if rows is not None and len(inputs) == len(wanted):
                return rows
        return check_inputs(signature, inputs)

    return check


def check_inputs(signature: SignatureSpec, inputs: Tensors) -> int:
    """Check names, dtypes and shapes of a request.

    Args:
        signature: what the version takes.
        inputs: name -> array.

    Returns:
        The number of rows: dimension 0, equal for all inputs; 1 for a signature without a free dimension 0.

    Raises:
        InvalidRequest: naming the tensor, what was expected and what came.
    """
    if inputs.keys() != signature.inputs.keys():
        raise _wrong_names(signature, inputs)
    num_rows: int | None = None
    for name, spec in signature.inputs.items():
        array = inputs[name]
        _check_tensor(spec, array)
        if not spec.is_batched:
            continue
        if array.ndim == 0:
            raise InvalidRequest(f"Input {name} is a scalar, but the first dimension counts rows")
        if num_rows is not None and num_rows != len(array):
            raise InvalidRequest(
                "Batching Run() input tensors must have equal 0th-dimension size: "
                f"{name} has {len(array)} rows, others have {num_rows}",
                hint="give all inputs the same number of rows",
            )
        num_rows = len(array)
    return 1 if num_rows is None else num_rows


def check_types(signature: SignatureSpec, inputs: Tensors) -> int | None:
    """Check names and dtypes only, and leave the shapes to the graph, as TensorFlow Serving does.

    Returns:
        The number of rows when all inputs have the same dimension 0; else None: such a request cannot share a run.

    Raises:
        InvalidRequest: naming the tensor, what was expected and what came.
    """
    if inputs.keys() != signature.inputs.keys():
        raise _wrong_names(signature, inputs)
    sizes = set()
    for position, (name, spec) in enumerate(signature.inputs.items()):
        array = inputs[name]
        if array.dtype != spec.numpy_dtype:
            raise InvalidRequest(
                f"Expects arg[{position}] to be {tf_name(spec.dtype)} but {tf_name(array.dtype.name)} is provided",
                hint=f"input {name} is {spec}",
            )
        sizes.add(len(array) if array.ndim else None)
    return sizes.pop() if len(sizes) == 1 else None


def _wrong_names(signature: SignatureSpec, inputs: Tensors) -> InvalidRequest:
    extra = sorted(inputs.keys() - signature.inputs.keys())
    missing = sorted(signature.inputs.keys() - inputs.keys())
    return InvalidRequest(
        f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} "
        f"len({{{','.join(sorted(inputs))}}}) != len({{{','.join(sorted(signature.inputs))}}}). "
        f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}.",
        hint=f"the inputs of {signature.name} are {_listed(signature)}",
    )


def _check_tensor(spec: TensorSpec, array: np.ndarray) -> None:
    if array.dtype != spec.numpy_dtype:
        raise InvalidRequest(f"Input {spec.name} has dtype {array.dtype}, expected {spec}")
    if spec.shape is None:
        return
    fits = array.ndim == len(spec.shape) and all(
        expected is None or expected == size for expected, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        shape = ", ".join(str(size) for size in array.shape)
        raise InvalidRequest(f"Input {spec.name} has shape [{shape}], expected {spec} (? is any size)")


def _listed(signature: SignatureSpec) -> str:
    return ", ".join(f"{name}: {spec}" for name, spec in signature.inputs.items())
