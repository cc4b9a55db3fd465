"""The model that all servers of the comparison answer with: one signature of a SavedModel, NumPy in and NumPy out.

Each peer imports this in its own virtual environment. `BENCH_MODEL` is the version's folder: TensorFlow runs its
signature, called as its documentation shows, unless `BENCH_ONNX` names a file for ONNX Runtime with its defaults.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

MAX_BATCH_SIZE = 64


class TensorFlowModel:
    """A SavedModel in TensorFlow.

    Args:
        path: the version's folder.
    """

    def __init__(self, path: str) -> None:
        import tensorflow as tf

        self._constant = tf.constant
        self._loaded = tf.saved_model.load(path)
        self._function = self._loaded.signatures["serving_default"]
        specs = self._function.structured_input_signature[1]
        self.shapes = {name: tuple(spec.shape[1:]) for name, spec in specs.items()}
        self.dtypes = {name: np.dtype(spec.dtype.as_numpy_dtype) for name, spec in specs.items()}
        (self._output,) = self._function.structured_outputs

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Run a batch: name -> `(b, ...)` in, `(b, k)` out."""
        given = {name: self._constant(rows) for name, rows in inputs.items()}
        return self._function(**given)[self._output].numpy()


class OnnxModel:
    """The same graph in ONNX Runtime.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        dtypes = {"tensor(float)": "float32", "tensor(int32)": "int32"}
        self.shapes = {one.name: tuple(one.shape[1:]) for one in self._session.get_inputs()}
        self.dtypes = {one.name: np.dtype(dtypes[one.type]) for one in self._session.get_inputs()}

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Run a batch: name -> `(b, ...)` in, `(b, k)` out."""
        return self._session.run(None, inputs)[0]


class Model:
    """The model of this run of the benchmark.

    Attributes:
        shapes: input -> its shape without rows.
        dtypes: input -> its dtype.
    """

    def __init__(self) -> None:
        onnx = os.environ.get("BENCH_ONNX")
        self._model = OnnxModel(onnx) if onnx else TensorFlowModel(os.environ["BENCH_MODEL"])
        self.shapes, self.dtypes = self._model.shapes, self._model.dtypes
        for size in (1, 2, 4, 8, 16, 32, 64):
            self.run({name: np.zeros((size, *shape), self.dtypes[name]) for name, shape in self.shapes.items()})

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Run a batch: name -> `(b, ...)` in, `(b, k)` out."""
        given = {name: np.ascontiguousarray(inputs[name], dtype) for name, dtype in self.dtypes.items()}
        return self._model.run(given)

    def run_rows(self, rows: np.ndarray) -> np.ndarray:
        """The same with all inputs in one array, whose columns are the inputs when there are several."""
        if len(self.shapes) == 1:
            return self.run(dict.fromkeys(self.shapes, rows))
        return self.run({name: rows[:, place : place + 1] for place, name in enumerate(column_names())})


def column_names() -> list[str]:
    """The inputs in the order of the columns that clients send."""
    return os.environ["BENCH_COLUMNS"].split(",")
