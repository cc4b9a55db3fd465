"""The bodies of `:predict`: row and columnar requests to named tensors, and tensors back to text.

Thread: any; pure functions.

Reference: tensorflow_serving/g3doc/api_rest.md and util/json_tensor.cc.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # JSON values

import numpy as np

from ...errors import InvalidRequest
from ...types import DEFAULT_SIGNATURE, SignatureSpec, Tensors, TensorSpec, tf_name
from ..examples import shape_text
from . import json_columns
from .json_tensors import MAX_RANK, UnsupportedDtype, is_base64, to_array
from .json_text import debug_text, dump, dump_with_nan, parse_object, signature_name


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A parsed predict request whose tensors wait for the signature.

    Attributes:
        signature: the signature's name.
        value: the JSON object.
    """

    signature: str
    value: Mapping[str, Any]

    @property
    def is_row_format(self) -> bool:
        """Whether it has `instances` (the response has `predictions`) and not `inputs` (it has `outputs`)."""
        return "instances" in self.value


def parse_predict(body: bytes) -> PredictRequest:
    """Parse a body as far as no signature is needed.

    Raises:
        InvalidRequest: with TensorFlow Serving's text.
    """
    value = parse_object(body)
    return PredictRequest(signature_name(value) or DEFAULT_SIGNATURE, value)


def to_tensors(request: PredictRequest, signature: SignatureSpec) -> dict[str, np.ndarray]:
    """The tensors of a request.

    Args:
        request: what `parse_predict` returned.
        signature: the one that the request names.

    Returns:
        Input name -> array of exactly the signature's dtype; shapes are not checked here.

    Raises:
        InvalidRequest: with TensorFlow Serving's text.
        UnsupportedDtype: for input dtypes that JSON cannot carry.
    """
    value = request.value
    if not signature.inputs:
        named = value.get("signature_name") or "DEFAULT"
        raise InvalidRequest(f"Failed to get input map for signature: {named}")
    if "instances" in value and "inputs" in value:
        raise InvalidRequest(
            f"JSON Value: {debug_text(value)} Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist "
        )
    if "instances" in value:
        try:
            return _from_rows(value["instances"], request, signature)
        except UnsupportedDtype as error:
            where = "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: "
            raise InvalidRequest(where + error.message) from None
    if "inputs" in value:
        return _from_columns(value["inputs"], signature)
    raise InvalidRequest("Missing 'inputs' or 'instances' key")


def _from_rows(instances: Any, request: PredictRequest, signature: SignatureSpec) -> dict[str, np.ndarray]:
    if not isinstance(instances, list):
        raise InvalidRequest(f"JSON Value: {debug_text(request.value)} Expecting 'instances' to be an list/array")
    if not instances:
        raise InvalidRequest(f"JSON Value: {debug_text(request.value)} No values in 'instances' array")
    if isinstance(instances[0], dict) and not is_base64(instances[0]):
        return _from_objects(instances, signature)
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    (spec,) = signature.inputs.values()
    try:
        return {spec.name: to_array(instances, spec)}
    except InvalidRequest:
        for position, item in enumerate(instances):
            if isinstance(item, dict) and not is_base64(item):
                raise InvalidRequest(f"Expecting value/list but got object at item {position} of input list") from None
        where = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: {}"
        return {spec.name: _stack(instances, spec, where)}


def _from_objects(instances: list[Any], signature: SignatureSpec) -> dict[str, np.ndarray]:
    found = json_columns.from_rows(instances, signature.inputs)
    if found is not None:
        return found
    names = signature.inputs.keys()
    for position, item in enumerate(instances):
        if not isinstance(item, dict) or is_base64(item):
            raise InvalidRequest(f"Expecting object but got list at item {position} of input list")
        if item.keys() != names:
            extra = sorted(item.keys() - names)
            if extra:
                raise InvalidRequest(
                    f"Failed to process element: {position} key: {extra[0]} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: JSON object: does not have named input: {extra[0]}"
                )
            raise InvalidRequest(
                f"Failed to process element: {position} of 'instances' list. JSON object: {debug_text(item)} "
                f"keys must be equal to: {','.join(sorted(names))}"
            )
    tensors = {}
    for name, spec in signature.inputs.items():
        column = [item[name] for item in instances]
        try:
            tensors[name] = to_array(column, spec)
        except InvalidRequest:
            where = f"Failed to process element: {{}} key: {name} of 'instances' list. Error: INVALID_ARGUMENT: {{}}"
            tensors[name] = _stack(column, spec, where)
    return tensors


def _stack(items: list[Any], spec: TensorSpec, where: str) -> np.ndarray:
    """Row by row, so that the error names the row; `where` takes its number and what is wrong with it."""
    arrays: list[np.ndarray] = []
    for position, item in enumerate(items):
        try:
            array = to_array(item, spec)
        except InvalidRequest as error:
            raise InvalidRequest(where.format(position, error.message)) from None
        if array.ndim >= MAX_RANK:
            raise InvalidRequest(where.format(position, f"Too many dimensions: {array.ndim + 1}"))
        if arrays and array.size != arrays[0].size:
            problem = f"Expecting tensor size: {arrays[0].size} but got: {array.size}"
            raise InvalidRequest(where.format(position, problem))
        if arrays and array.shape != arrays[0].shape:
            problem = f"Expecting shape {shape_text(arrays[0])} but got: {shape_text(array)}"
            raise InvalidRequest(where.format(position, problem))
        arrays.append(array)
    return np.stack(arrays)


def _from_columns(inputs: Any, signature: SignatureSpec) -> dict[str, np.ndarray]:
    if isinstance(inputs, dict) and not is_base64(inputs):
        missing = [name for name in signature.inputs if name not in inputs]
        if missing:
            raise InvalidRequest(f"Missing named input: {missing[0]} in 'inputs' object.")
        return json_columns.from_columns(inputs, signature.inputs)
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        )
    (spec,) = signature.inputs.values()
    return {spec.name: to_array(inputs, spec)}


_PLAIN = frozenset(np.dtype(name) for name in ("float32", "float64", "int32", "int64", "uint8", "uint32", "uint64"))
"""What orjson writes as TensorFlow Serving does."""


def to_body(outputs: Tensors, *, is_row_format: bool) -> bytes:
    """The text of a predict response.

    Args:
        outputs: name -> array.
        is_row_format: `{"predictions": [...]}` row by row, or `{"outputs": ...}` column by column.

    Raises:
        InvalidRequest: if an output's dtype cannot be written, or the outputs have no common rows.
    """
    if not outputs:
        raise InvalidRequest("Cannot convert empty tensor map to JSON")
    if len(outputs) == 1:
        (array,) = outputs.values()
        if array.dtype in _PLAIN and array.ndim and array.flags.c_contiguous:
            text = dump(array)
            if b"n" not in text:  # of null, which stands for NaN and infinity here
                return (b'{"predictions":' if is_row_format else b'{"outputs":') + text + b"}"
    if is_row_format:
        _check_rows(outputs)
    has_only_finite = all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in outputs.values())
    columns = {name: _values(name, array, as_numpy=has_only_finite) for name, array in outputs.items()}
    write = dump if has_only_finite else dump_with_nan
    if len(columns) == 1:
        (column,) = columns.values()
        return write({"predictions" if is_row_format else "outputs": column})
    if not is_row_format:
        return write({"outputs": columns})
    names = tuple(columns)
    return write({"predictions": [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]})


def _check_rows(outputs: Tensors) -> None:
    num_rows = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise InvalidRequest(f"Tensor name: {name} has no shape information ")
        if num_rows is not None and len(array) != num_rows:
            raise InvalidRequest(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {num_rows}")
        num_rows = len(array)


def _values(name: str, array: np.ndarray, *, as_numpy: bool) -> Any:
    """An output as something that the JSON writers take."""
    if array.dtype.kind in "OSU":
        return _texts(array.tolist(), is_binary=name.endswith("_bytes"))
    if array.dtype.kind not in "iufb" or array.dtype == np.float16:
        raise InvalidRequest(f"Failed to write JSON value for tensor type: {tf_name(array.dtype.name)}")
    if as_numpy and array.ndim:
        return np.ascontiguousarray(array)  # orjson writes contiguous arrays itself, without a list of Python numbers
    if array.dtype == np.float32:
        return shortest(array)
    return array.tolist()


def shortest(array: np.ndarray) -> Any:
    """float32 numbers as the doubles with the same shortest text, so that 0.1 stays `0.1`."""
    return array.astype("U32").astype(np.float64).tolist()


def _texts(value: Any, *, is_binary: bool) -> Any:
    if isinstance(value, list):
        return [_texts(item, is_binary=is_binary) for item in value]
    data = value if isinstance(value, bytes) else str(value).encode()
    if not is_binary:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass  # TensorFlow Serving writes the raw bytes, which are no JSON
    return {"b64": base64.b64encode(data).decode()}
