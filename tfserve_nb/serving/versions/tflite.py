"""A TensorFlow Lite model as a servable: `model.tflite` in a version folder, run by LiteRT.

Thread: `run` on any; an interpreter runs one call at a time, under a lock.

Reference: tensorflow_serving/servables/tensorflow/tflite_session.cc (`serving_default` from the tensors' names when the
model has no signatures of its own).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # LiteRT's details are plain dicts

import numpy as np

from ...errors import NotAvailable, RunRejected
from ...export.graph.state import GraphState
from ...export.signatures import to_signature_defs
from ...types import DEFAULT_SIGNATURE, SignatureSpec, Tensors, TensorSpec

MODEL_FILE = "model.tflite"


class TfliteServable:
    """A TensorFlow Lite model.

    Args:
        path: the version folder, with `model.tflite`.

    Raises:
        NotAvailable: if LiteRT is not installed, or cannot load the model; the message has its reason.
    """

    def __init__(self, path: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise NotAvailable(
                f"{path / MODEL_FILE} needs LiteRT, which is not installed", hint="pip install 'tfserve_nb[tflite]'"
            ) from error
        try:
            self._interpreter: Any = Interpreter(model_path=str(path / MODEL_FILE))
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise NotAvailable(f"{path / MODEL_FILE} could not be loaded: {error}", hint="convert it again") from error
        self._lock = threading.Lock()
        names = self._interpreter.get_signature_list()
        self._runners = {name: self._interpreter.get_signature_runner(name) for name in names}
        self.signatures: Mapping[str, SignatureSpec] = {
            name: _signature(name, runner.get_input_details(), runner.get_output_details())
            for name, runner in self._runners.items()
        } or {DEFAULT_SIGNATURE: self._made_up_signature()}
        self.signature_defs = to_signature_defs(self.signatures)
        self.outside_ops = ()  # LiteRT has no such ops, and TensorFlow's are not built in
        self.states: Mapping[str, GraphState] = {}

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        """Run one signature; see `Servable.run`.

        Raises:
            RunRejected: if the shapes do not fit, which LiteRT finds out first.
        """
        try:
            with self._lock:
                runner = self._runners.get(signature)
                return runner(**inputs) if runner is not None else self._run_by_names(inputs)
        except (ValueError, RuntimeError) as error:
            raise RunRejected(str(error).splitlines()[0] if str(error) else type(error).__name__) from error

    def restore(self) -> None:
        """Make the variables what they are at the start; see `Servable.restore`."""
        with self._lock:
            self._interpreter.reset_all_variables()

    def close(self) -> None:
        """Free the interpreter, once no run uses it any more; does not wait for one that hangs."""
        self._runners = {}
        self._interpreter = None

    def _made_up_signature(self) -> SignatureSpec:
        inputs = {detail["name"]: detail for detail in self._interpreter.get_input_details()}
        outputs = {detail["name"]: detail for detail in self._interpreter.get_output_details()}
        return _signature(DEFAULT_SIGNATURE, inputs, outputs)

    def _run_by_names(self, inputs: Tensors) -> Tensors:
        interpreter = self._interpreter
        for detail in interpreter.get_input_details():
            array = inputs[detail["name"]]
            interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], inputs[detail["name"]])
        interpreter.invoke()
        details = interpreter.get_output_details()
        return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in details}


def _signature(name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> SignatureSpec:
    return SignatureSpec(
        name,
        {key: _spec(key, detail) for key, detail in sorted(inputs.items())},
        {key: _spec(key, detail) for key, detail in sorted(outputs.items())},
    )


def _spec(name: str, detail: Mapping[str, Any]) -> TensorSpec:
    dtype = np.dtype(detail["dtype"])
    sizes = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    shape = tuple(None if size < 0 else int(size) for size in sizes)
    return TensorSpec(name, "string" if dtype.kind in "OS" else dtype.name, shape, detail["name"])
