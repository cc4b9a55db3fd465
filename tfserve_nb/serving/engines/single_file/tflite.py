"""A TensorFlow Lite model as a servable: `model.tflite` in a version folder, run by LiteRT.

Thread: `run` on any; an interpreter runs one call at a time, under a lock.

Reference: tensorflow_serving/servables/tensorflow/tflite_session.cc (a single stored `SignatureDef` is
`serving_default` whatever its key; without one the tensors' names are those of the inputs and outputs).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any  # LiteRT's details are plain dicts

import numpy as np

from ....errors import NotAvailable, RunRejected
from ....export.signatures import to_signature_defs
from ....export.single_file.source import TFLITE_FILE
from ....types import DEFAULT_SIGNATURE, SignatureSpec, Tensors, TensorSpec, in_order
from .single_rows import built_in_rows, run_row_by_row, with_free_rows
from .tflite_file import TfliteFile


class TfliteServable:
    """A TensorFlow Lite model.

    Args:
        path: the version folder, with `model.tflite`.

    Raises:
        NotAvailable: if LiteRT is not installed, or cannot load the model; the message has its reason.
    """

    engine = "litert"
    notes = (
        "litert runs it: it is a TensorFlow Lite model, which TensorFlow Serving loads with --prefer_tflite_model",
    )

    def __init__(self, path: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise NotAvailable(
                f"{path / TFLITE_FILE} needs LiteRT, which is not installed", hint="pip install 'tfserve_nb[tflite]'"
            ) from error
        self._make: Callable[[], Any] = partial(Interpreter, model_path=str(path / TFLITE_FILE))
        self._path = path / TFLITE_FILE
        self._lock = threading.Lock()
        self._start()
        self.signatures: Mapping[str, SignatureSpec] = {
            name: with_free_rows(one.spec) if one.has_batch_of_one else one.spec
            for name, one in self._signatures.items()
        }
        specs = {name: one.spec for name, one in self._signatures.items()}
        self.signature_defs = to_signature_defs(specs, "tensorflow_lite")
        self.effects = self._file.effects()

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        """Run one signature; see `Servable.run`. A model with a batch of one built in runs once for each row.

        Raises:
            RunRejected: if the shapes do not fit, which LiteRT finds out first.
        """
        called, interpreter = self._signatures[signature], self._interpreter
        try:
            with self._lock:
                if not called.has_batch_of_one:
                    return _checked(called, inputs, _run(interpreter, called, inputs))
                return run_row_by_row(partial(_run, interpreter, called), called.spec, inputs)
        except (ValueError, RuntimeError) as error:
            raise RunRejected(str(error).splitlines()[0] if str(error) else type(error).__name__) from error

    def restore(self) -> None:
        """Make the variables what they are at the start; see `Servable.restore`.

        All runs of a version share one interpreter, and with it the state. LiteRT can reset only one kind of variable.
        """
        if self.effects.lasting:
            with self._lock:
                self._start()

    def _start(self) -> None:
        """Load the model: with the variables that its file has."""
        try:
            self._interpreter: Any = self._make()
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise NotAvailable(f"{self._path} could not be loaded: {error}", hint="convert it again") from error
        self._file = TfliteFile(self._path)
        names = self._interpreter.get_signature_list()
        self._signatures = {name: self._own(name) for name in names} or self._others()

    def close(self) -> None:
        """Free the interpreter, once no run uses it any more; does not wait for one that hangs."""
        self._signatures = {}
        self._interpreter = None

    def _own(self, name: str) -> _Called:
        """A signature of the model's own."""
        runner = self._interpreter.get_signature_runner(name)
        return _Called(_signature(name, runner.get_input_details(), runner.get_output_details()), runner)

    def _others(self) -> dict[str, _Called]:
        """The signatures that an older converter stored beside the model, or else one of the tensors' names."""
        inputs = {detail["name"]: detail for detail in self._interpreter.get_input_details()}
        outputs = {detail["name"]: detail for detail in self._interpreter.get_output_details()}
        found = {}
        for name, definition in self._file.stored_signature_defs().items():
            try:
                taken = {key: inputs[_tensor_name(info)] for key, info in definition.inputs.items()}
                given = {key: outputs[_tensor_name(info)] for key, info in definition.outputs.items()}
            except KeyError as error:
                raise NotAvailable(
                    f"{self._path}: signature {name!r} names the tensor {error}, which the model does not have",
                    hint="convert it again",
                ) from None
            spec = replace(_signature(name, taken, given), method_name=definition.method_name)
            found[name] = _Called(spec, None, taken, given)
        if len(found) == 1:
            (only,) = found.values()
            found.setdefault(DEFAULT_SIGNATURE, replace(only, spec=replace(only.spec, name=DEFAULT_SIGNATURE)))
        return found or {
            DEFAULT_SIGNATURE: _Called(_signature(DEFAULT_SIGNATURE, inputs, outputs), None, inputs, outputs)
        }


@dataclass(frozen=True, slots=True)
class _Called:
    """How a signature is called.

    Attributes:
        spec: with the shapes of the file.
        runner: LiteRT's, for a signature of the model's own; None for one of the interpreter's tensors.
        inputs: name -> LiteRT's detail of the tensor, without a runner.
        outputs: the same.
    """

    spec: SignatureSpec
    runner: Any
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int | None:
        """The number of rows that is built in; None when it is free."""
        return built_in_rows(self.spec)

    @property
    def has_batch_of_one(self) -> bool:
        """Whether the model was converted for single rows."""
        return self.batch == 1


def _run(interpreter: Any, called: _Called, inputs: Tensors) -> Tensors:
    if called.runner is not None:
        found = called.runner(**inputs)
        return {name: found[name] for name in called.spec.outputs}
    for name, detail in called.inputs.items():
        interpreter.resize_tensor_input(detail["index"], inputs[name].shape)
    interpreter.allocate_tensors()
    for name, detail in called.inputs.items():
        interpreter.set_tensor(detail["index"], inputs[name])
    interpreter.invoke()
    return {name: interpreter.get_tensor(called.outputs[name]["index"]) for name in called.spec.outputs}


def _checked(called: _Called, inputs: Tensors, outputs: Tensors) -> Tensors:
    """The outputs, when they have a row for each row of the inputs of a model that has a number of rows built in.

    Raises:
        RunRejected: if they have not.
    """
    if called.batch is not None:
        counts = {len(array) for array in (*inputs.values(), *outputs.values()) if array.ndim}
        if len(counts) > 1:
            raise RunRejected(
                f"the model has {called.batch} rows built in, and the inputs have {max(map(len, inputs.values()))}",
                hint=f"send {called.batch} rows",
            )
    return outputs


def _tensor_name(info: Any) -> str:
    """The tensor of a `TensorInfo`: TensorFlow's names have `:0` behind them, TensorFlow Lite's have not."""
    name: str = info.name.split(":")[0]
    return name


def _signature(name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> SignatureSpec:
    return SignatureSpec(
        name,
        {key: _spec(key, inputs[key]) for key in in_order(inputs)},
        {key: _spec(key, outputs[key]) for key in in_order(outputs)},
    )


def _spec(name: str, detail: Mapping[str, Any]) -> TensorSpec:
    dtype = np.dtype(detail["dtype"])
    sizes = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    shape = tuple(None if size < 0 else int(size) for size in sizes)
    return TensorSpec(name, "string" if dtype.kind in "OS" else dtype.name, shape, detail["name"])
