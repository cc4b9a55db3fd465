"""ONNX Runtime: a graph that tf2onnx converted.

Inputs and outputs are named `in/NAME` and `out/NAME` in the file: an input and an output may have the same name in a
SavedModel, and may not in ONNX.

Thread: `run` on any, sessions are thread-safe. A run releases the interpreter's lock and uses threads of its own.

Reference: https://onnxruntime.ai/docs/performance/tune-performance/threading.html
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any  # ONNX Runtime is untyped here

from ...types import SignatureSpec, Tensors
from .engine import EngineKind

OPSET = 18
"""The version of ONNX's operators: the newest that tf2onnx writes."""

CUDA = "CUDAExecutionProvider"

_log = logging.getLogger(__name__)

_FATAL = 4
"""What goes wrong in a run is raised; it is no news for the log of a server or the output of a cell."""


def input_name(name: str) -> str:
    """What an input of a signature is called in the file."""
    return f"in/{name}"


def output_name(name: str) -> str:
    """What an output of a signature is called in the file."""
    return f"out/{name}"


def providers(gpu: int | None, available: Collection[str]) -> list[Any]:
    """What ONNX Runtime is asked to run a graph with: CUDA where it can, and the processor for the rest.

    Args:
        gpu: the number of the GPU that a version is for; None for the processor.
        available: the providers that the installed ONNX Runtime has.
    """
    processor = ["CPUExecutionProvider"]
    return processor if gpu is None or CUDA not in available else [(CUDA, {"device_id": gpu}), *processor]


def open_session(file: Path, num_threads: int, gpu: int | None = None) -> Any:
    """An inference session, on the processor unless a GPU is named that ONNX Runtime can use.

    Args:
        file: the graph; files with its weights may lie beside it.
        num_threads: of one run.
        gpu: the number of the GPU.

    Raises:
        Exception: ONNX Runtime's own, of several types.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    options.log_severity_level = _FATAL
    # Inside of a run, threads wait in a busy loop: without it a second thread gains little. Between runs they would
    # take the cores that requests are read and written on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    asked = providers(gpu, onnxruntime.get_available_providers())
    if asked[0] != "CPUExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA's libraries from the packages that TensorFlow brought
    session: Any = onnxruntime.InferenceSession(str(file), options, providers=asked)
    if gpu is not None and CUDA not in session.get_providers():  # without it, it goes on with the processor in silence
        why = "could not be started" if CUDA in onnxruntime.get_available_providers() else "is not in this onnxruntime"
        _log.warning("%s runs on the processor: %s %s (pip install onnxruntime-gpu in its place)", file, CUDA, why)
    return session


class OnnxEngine:
    """One signature in an inference session.

    Args:
        file: the converted graph.
        signature: what it takes and gives.
        num_threads: of one run.
        gpu: the number of the GPU to run on; None for the processor.
    """

    name = "onnx"

    def __init__(self, file: Path, signature: SignatureSpec, num_threads: int, gpu: int | None = None) -> None:
        self.num_threads = num_threads
        self._session = open_session(file, num_threads, gpu)
        used = {one.name for one in self._session.get_inputs()}
        # An input that changes no output is not in the graph any more.
        self._inputs = [(input_name(name), name) for name in signature.inputs if input_name(name) in used]
        self._outputs = [output_name(name) for name in signature.outputs]
        self._names = list(signature.outputs)

    def run(self, inputs: Tensors) -> Tensors:
        """Run one batch; see `Engine.run`."""
        values = self._session.run(self._outputs, {fed: inputs[name] for fed, name in self._inputs})
        return dict(zip(self._names, values, strict=True))


KIND = EngineKind(
    name="onnx",
    extra="onnx",
    packages=("onnxruntime", "onnxruntime-gpu", "tensorflow", "tf2onnx"),
    runtime="onnxruntime",
    converter="tf2onnx",
    suffix=".onnx",
    needs_sizes=False,
    load=OnnxEngine,
    options={"opset": str(OPSET)},
)
