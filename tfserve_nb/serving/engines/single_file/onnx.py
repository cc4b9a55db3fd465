"""An ONNX model as a servable: `model.onnx` in a version folder, run by ONNX Runtime.

There is no TensorFlow behind it: ONNX Runtime's answer is the answer, and its error the error.

Thread: `run` on any, sessions are thread-safe.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any  # ONNX Runtime is untyped here

import numpy as np

from ....errors import DeadlineExceeded, ModelNotServable, NotAvailable, RunFailed, RunRejected, ServingError
from ....export.graph.effects import Effects
from ....export.graph.state import GraphState
from ....export.reasons import shorten
from ....export.signatures import to_signature_defs
from ....export.single_file.onnx_file import INSTALLATION, OnnxFile
from ....export.single_file.source import ONNX_FILE
from ....types import DEFAULT_SIGNATURE, SignatureDefs, SignatureSpec, Tensors, TensorSpec
from ..onnx import open_session
from .single_rows import built_in_rows, run_row_by_row, with_free_rows

LONGEST_RUN_S = 60.0
"""How long a run without a deadline may take where it can be stopped, in seconds."""

_HEAD = re.compile(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ")
_PLACE = re.compile(r"^/\S+:\d+ .*?\) (?=[A-Z])")
"""Where in ONNX Runtime's source an error comes from."""

_NODE = re.compile(r"^Non-zero status code returned while running .*? Status Message: ", re.DOTALL)
_CUSTOM = re.compile(r"(\S+?):(\w+)\(\S*\) is not a registered function/op|No Op registered for (\w+)")
_TOO_NEW = re.compile(
    r"[Oo]pset (\d+) is under development.*?till opset (\d+)|IR version: (\d+), max .*?: (\d+)", re.DOTALL
)
_REJECTED = ("INVALID_ARGUMENT", "RUNTIME_EXCEPTION", "FAIL")
"""What runs end with when a request's values or shapes do not suit the model."""


class OnnxServable:
    """An ONNX model.

    Args:
        path: the version folder, with `model.onnx`.
        num_threads: of one run.

    Raises:
        NotAvailable: if ONNX Runtime is not installed, or cannot load the model; the message has its reason.
    """

    engine = "onnx"
    notes = ("onnx runs it: it is an ONNX model, which TensorFlow Serving cannot load",)

    def __init__(self, path: Path, num_threads: int) -> None:
        self._path = path / ONNX_FILE
        try:
            file = OnnxFile.read(self._path)
        except ModelNotServable as error:
            raise NotAvailable(f"{self._path} could not be loaded: {error.message}", hint=error.hint) from error
        try:
            self._session: Any = open_session(self._path, num_threads)
        except ImportError as error:
            raise NotAvailable(f"{self._path} needs ONNX Runtime, which is not installed", hint=INSTALLATION) from error
        except Exception as error:  # ONNX Runtime's, of several types
            raise _not_loadable(self._path, error) from error
        self._spec = file.signature
        self._outputs = list(file.signature.outputs)
        self._texts = [name for name, spec in self._spec.inputs.items() if spec.dtype == "string"]
        self._has_single_rows = built_in_rows(self._spec) == 1
        served = with_free_rows(self._spec) if self._has_single_rows else self._spec
        self.signatures: Mapping[str, SignatureSpec] = {DEFAULT_SIGNATURE: served}
        self.effects = Effects({DEFAULT_SIGNATURE: GraphState((), file.draws)} if file.draws else {})
        self.is_stoppable = file.has_loops

    @cached_property
    def signature_defs(self) -> SignatureDefs:
        """See `Servable.signature_defs`; made when it is asked for, since TensorFlow's messages take long to import."""
        return to_signature_defs({DEFAULT_SIGNATURE: self._spec}, "onnxruntime_onnx")

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        """Run the signature; see `Servable.run`. A model with a batch of one built in runs once for each row.

        Raises:
            RunRejected: if values or shapes do not suit the model.
            RunFailed: for any other failure.
        """
        if not self.is_stoppable:
            return self._run(inputs, None)
        try:
            return self.run_within(signature, inputs, LONGEST_RUN_S)
        except DeadlineExceeded as error:
            raise RunFailed(f"a run took longer than {LONGEST_RUN_S:g} s and was stopped") from error

    def run_within(self, signature: str, inputs: Tensors, limit_s: float) -> Tensors:
        """The same, stopped after `limit_s` seconds where the model has a loop; see `StoppableServable`."""
        del signature  # there is one
        from onnxruntime import RunOptions

        options = RunOptions()
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            options.terminate = True

        timer = threading.Timer(min(limit_s, threading.TIMEOUT_MAX), stop)
        timer.name, timer.daemon = "tfserve-onnx-limit", True
        timer.start()
        try:
            return self._run(inputs, options)
        except ServingError as error:
            if stopped.is_set():
                raise DeadlineExceeded(f"the run was stopped after {limit_s:.3g} s") from error
            raise
        finally:
            timer.cancel()

    def restore(self) -> None:
        """Nothing: runs change nothing; see `Servable.restore`."""

    def close(self) -> None:
        """Free the session, once no run uses it any more."""
        self._session = None

    def _run(self, inputs: Tensors, options: Any) -> Tensors:
        run = partial(self._run_once, options=options)
        if self._has_single_rows:
            return run_row_by_row(run, self._spec, inputs)
        if self._has_no_rows(inputs):  # one that is made up shows the outputs' other dimensions
            one = {name: _one_row(array) for name, array in inputs.items()}
            return {name: array[:0] for name, array in run(one).items()}
        return run(inputs)

    def _has_no_rows(self, inputs: Tensors) -> bool:
        specs = (*self._spec.inputs.values(), *self._spec.outputs.values())
        arrays = list(inputs.values())
        return (
            bool(arrays)
            and not any(len(array) if array.ndim else 1 for array in arrays)
            and all(spec.is_batched for spec in specs)
        )

    def _run_once(self, inputs: Tensors, options: Any) -> Tensors:
        session = self._session
        if session is None:
            raise NotAvailable(f"{self._path} was unloaded")
        for name, array in inputs.items():
            if not array.size:  # an LSTM or a GRU that gets some ends the process
                shape = list(array.shape)
                raise RunRejected(f"input {name} has the shape {shape}: ONNX Runtime gets no inputs without values")
        fed = {name: inputs[name] for name in self._spec.inputs}
        for name in self._texts:
            fed[name] = _decoded(fed[name], name)
        try:
            values = session.run(self._outputs, fed, options)
        except Exception as error:  # ONNX Runtime's, of several types
            raise _run_error(error) from error
        return {
            name: _array(value, self._spec.outputs[name]) for name, value in zip(self._outputs, values, strict=True)
        }


def _one_row(array: np.ndarray) -> np.ndarray:
    shape = (1, *array.shape[1:])
    return np.full(shape, b"", object) if array.dtype == object else np.zeros(shape, array.dtype)


def _decoded(array: np.ndarray, name: str) -> np.ndarray:
    """Text as ONNX Runtime takes it.

    Raises:
        RunRejected: for bytes that are no text.
    """
    try:
        texts = [one.decode() if isinstance(one, bytes) else str(one) for one in array.ravel()]
    except UnicodeDecodeError as error:
        raise RunRejected(f"input {name} holds bytes that are no UTF-8, and ONNX has text only") from error
    decoded = np.empty(len(texts), object)
    decoded[:] = texts
    return decoded.reshape(array.shape)


def _array(value: Any, spec: TensorSpec) -> np.ndarray:
    """An output; texts as bytes."""
    if spec.dtype != "string":
        return np.asarray(value)
    texts = np.asarray(value, object)
    encoded = np.empty(texts.size, object)
    encoded[:] = [one.encode() if isinstance(one, str) else one for one in texts.ravel()]
    return encoded.reshape(texts.shape)


def _run_error(error: Exception) -> ServingError:
    code = _HEAD.match(str(error))
    is_rejected = code is None or code[1] in _REJECTED
    return (RunRejected if is_rejected else RunFailed)(_in_words(error))


def _not_loadable(path: Path, error: Exception) -> NotAvailable:
    text = str(error)
    custom, too_new = _CUSTOM.search(text), _TOO_NEW.search(text)
    if too_new:
        has, knows = [number for number in too_new.groups() if number]
        what = "opset" if too_new[1] else "IR version"
        return NotAvailable(
            f"{path} is of {what} {has}, and this ONNX Runtime knows up to {knows}",
            hint="pip install --upgrade onnxruntime, or export the model for an older opset",
        )
    if custom:
        operation = custom[3] or f"{custom[2]} of {custom[1].split()[-1]}"
        return NotAvailable(
            f"{path} uses the operation {operation}, which ONNX Runtime does not have",
            hint="export the model without custom operations",
        )
    return NotAvailable(f"{path} could not be loaded: {_in_words(error)}", hint="export it again")


def _in_words(error: Exception) -> str:
    text = _NODE.sub("", _PLACE.sub("", _HEAD.sub("", str(error))))
    return shorten(_PLACE.sub("", text)) or type(error).__name__
