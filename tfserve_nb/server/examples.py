"""Classify and regress: which signatures they take, and what their outputs mean.

The one input of such a signature takes serialized `tf.Example`s. REST and gRPC share everything here.

Thread: any; pure functions.

Reference: tensorflow_serving/servables/tensorflow/classifier.cc and regressor.cc, whose texts the errors have.
"""

from __future__ import annotations

import numpy as np

from ..errors import InvalidRequest, ServingError
from ..types import SignatureSpec, Tensors, tf_name

INPUTS = "inputs"
CLASSES = "classes"
SCORES = "scores"
REGRESS_OUTPUTS = "outputs"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


class WrongOutput(ServingError):
    """The model's outputs are not what its signature promises."""

    http_status, code = 400, "INVALID_ARGUMENT"


Classes = list[list[tuple[str, float]]]
"""For each example its `(label, score)` pairs."""


def examples_input(signature: SignatureSpec, examples: np.ndarray, *, is_classify: bool) -> Tensors:
    """The input of a classify or regress run.

    Args:
        signature: one of the version's signatures.
        examples: object array `(n,)` of serialized `tf.Example`s.
        is_classify: classify, and not regress.

    Raises:
        InvalidRequest: with TensorFlow Serving's text, for another signature or no examples.
    """
    if len(signature.inputs) != 1:
        raise InvalidRequest("Expected one input Tensor.")
    if INPUTS not in signature.inputs:
        task = "classification" if is_classify else "regression"
        raise InvalidRequest(f"No {task} inputs found in SignatureDef: {describe(signature)}")
    if is_classify:
        if len(signature.outputs) not in (1, 2):
            raise InvalidRequest(f"Expected one or two output Tensors, found {len(signature.outputs)}")
        if not {CLASSES, SCORES} & signature.outputs.keys():
            raise InvalidRequest(
                f'Expected classification signature outputs to contain at least one of "{CLASSES}" or "{SCORES}". '
                f"Signature was: {describe(signature)}"
            )
    elif len(signature.outputs) != 1:
        raise InvalidRequest("Expected one output Tensor.")
    elif REGRESS_OUTPUTS not in signature.outputs:
        raise InvalidRequest(f"No regression outputs found in SignatureDef: {describe(signature)}")
    if not len(examples):
        raise InvalidRequest("Input is empty.")
    return {INPUTS: examples}


def classifications(signature: SignatureSpec, outputs: Tensors, num_examples: int) -> Classes:
    """For each example its `(label, score)` pairs; a label that is not there is "", a score 0.

    Raises:
        WrongOutput: with TensorFlow Serving's text.
    """
    classes = outputs.get(CLASSES) if CLASSES in signature.outputs else None
    scores = outputs.get(SCORES) if SCORES in signature.outputs else None
    for array in (classes, scores):
        if array is not None and array.ndim != 2:
            raise WrongOutput(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array)}")
    if classes is not None:
        if classes.dtype.kind not in "OSU":
            raise WrongOutput(f"Expected classes Tensor of DT_STRING. Got: {_dt(classes)}")
        _check_rows("classes", classes, num_examples)
    if scores is not None:
        if scores.dtype != np.float32:
            raise WrongOutput(f"Expected scores Tensor of DT_FLOAT. Got: {_dt(scores)}")
        _check_rows("scores", scores, num_examples)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise WrongOutput(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    num_classes = (classes if classes is not None else scores).shape[1]  # type: ignore[union-attr]
    return [
        [
            (
                "" if classes is None else _text(classes[row, column]),
                0.0 if scores is None else float(scores[row, column]),
            )
            for column in range(num_classes)
        ]
        for row in range(num_examples)
    ]


def regressions(outputs: Tensors, num_examples: int) -> list[float]:
    """One value for each example.

    Raises:
        WrongOutput: with TensorFlow Serving's text.
    """
    array = outputs.get(REGRESS_OUTPUTS)
    if array is None:
        raise WrongOutput(f"Could not find output tensor '{REGRESS_OUTPUTS}'")
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1):
        raise WrongOutput(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {shape_text(array)}"
        )
    if len(array) != num_examples:
        raise WrongOutput(f"Input batch size did not match output batch size: {num_examples} vs. {len(array)}")
    if array.dtype != np.float32:
        raise WrongOutput(f"Expected output Tensor of DT_FLOAT.  Got: {_dt(array)}")
    values: list[float] = array.reshape(-1).tolist()
    return values


def shape_text(array: np.ndarray) -> str:
    """A shape as TensorFlow prints it, such as `[2,3]`."""
    return f"[{','.join(str(size) for size in array.shape)}]"


def describe(signature: SignatureSpec) -> str:
    """A signature in one line."""
    inputs = ", ".join(f"{name}: {spec}" for name, spec in signature.inputs.items())
    outputs = ", ".join(f"{name}: {spec}" for name, spec in signature.outputs.items())
    return f"inputs {{{inputs}}} outputs {{{outputs}}} method_name: {signature.method_name}"


def _check_rows(name: str, array: np.ndarray, num_examples: int) -> None:
    if len(array) != num_examples:
        raise WrongOutput(f"Expected {name} output batch size of {num_examples}. Got: {len(array)}")


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _dt(array: np.ndarray) -> str:
    """An array's type as TensorFlow's enum spells it, such as `DT_INT32`."""
    return f"DT_{tf_name(array.dtype.name).upper()}"
