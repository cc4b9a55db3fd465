"""LiteRT (TensorFlow Lite): a graph that TensorFlow's own converter made.

An interpreter holds the memory of one batch size and runs one call at a time, so there is one for each batch size and
thread that calls. As many as `MAX_IDLE` are kept when their run ends. From then on a new size is given to the one that
was used least recently: that takes a tenth of the time of a new one, or less.

Thread: `run` on any.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias  # LiteRT's interpreters and details are untyped

from ...types import SignatureSpec, Tensors
from .engine import EngineKind

MAX_IDLE = 8
"""Interpreters of a signature that wait for their next run: one for each of the usual batch sizes."""

_Shapes: TypeAlias = tuple[tuple[int, ...], ...]


class LitertEngine:
    """One signature, in as many interpreters as are needed.

    Args:
        file: the converted graph.
        signature: what it takes and gives.
        num_threads: of one run.
        gpu: left alone; it runs on the processor.
    """

    name = "litert"

    def __init__(self, file: Path, signature: SignatureSpec, num_threads: int, gpu: int | None = None) -> None:
        del gpu
        self._content = file.read_bytes()
        self.num_threads = num_threads
        self._lock = threading.Lock()
        self._idle: dict[_Shapes, list[Any]] = {}
        interpreter = self._interpreter()
        (key,) = interpreter.get_signature_list()
        runner = interpreter.get_signature_runner(key)
        self._inputs = _indexes(runner.get_input_details(), signature.inputs)
        self._outputs = _indexes(runner.get_output_details(), signature.outputs)

    def run(self, inputs: Tensors) -> Tensors:
        """Run one batch; see `Engine.run`."""
        shapes = tuple([inputs[name].shape for name, _ in self._inputs])
        try:
            interpreter = self._taken(shapes)
            outputs = self._invoke(interpreter, inputs)
        except RuntimeError:
            # LiteRT refuses to run while anything else refers to the interpreter, as a memory profiler does to all
            # objects for a moment. Nothing refers to a new one.
            interpreter = self._sized(self._interpreter(), shapes)
            outputs = self._invoke(interpreter, inputs)
        self._give_back(shapes, interpreter)  # one that failed is not used again
        return outputs

    def _invoke(self, interpreter: Any, inputs: Tensors) -> Tensors:
        for name, index in self._inputs:
            interpreter.set_tensor(index, inputs[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in self._outputs}

    def _taken(self, shapes: _Shapes) -> Any:
        """An interpreter for inputs of these shapes, which nobody else has."""
        with self._lock:
            if shapes in self._idle:
                return self._pop(shapes)
            is_full = sum([len(kept) for kept in self._idle.values()]) >= MAX_IDLE
            interpreter = self._pop(next(iter(self._idle))) if is_full else None
        return self._sized(interpreter or self._interpreter(), shapes)

    def _sized(self, interpreter: Any, shapes: _Shapes) -> Any:
        """The same for inputs of these shapes."""
        for (_, index), shape in zip(self._inputs, shapes, strict=True):
            interpreter.resize_tensor_input(index, shape)
        interpreter.allocate_tensors()
        return interpreter

    def _give_back(self, shapes: _Shapes, interpreter: Any) -> None:
        with self._lock:
            if sum([len(kept) for kept in self._idle.values()]) < MAX_IDLE:
                self._idle[shapes] = [*self._idle.pop(shapes, ()), interpreter]  # those that were used last come last

    def _pop(self, shapes: _Shapes) -> Any:
        """One that waits; the caller holds the lock."""
        interpreter = self._idle[shapes].pop()
        if not self._idle[shapes]:
            del self._idle[shapes]
        return interpreter

    def _interpreter(self) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(model_content=self._content, num_threads=self.num_threads)


def _indexes(details: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The tensors by name; an input that changes no output is not in the graph any more."""
    return [(name, int(details[name]["index"])) for name in wanted if name in details]


KIND = EngineKind(
    name="litert",
    extra="litert",
    packages=("ai-edge-litert", "tensorflow"),
    runtime="ai_edge_litert",
    converter="tensorflow",
    suffix=".tflite",
    needs_sizes=True,
    load=LitertEngine,
)
