"""SavedModels as TensorFlow Serving's own tests use them: `y = 0.5 x + 2` with predict, classify and regress."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from .onnx_models import node, onnx_model


def write_half_plus_two(
    path: Path, *, offset: float = 2.0, tags: tuple[str, ...] = ("serve",), name: str = "x"
) -> Path:
    """A TF1 SavedModel: `serving_default` takes `x` float32 `(n, 1)`, the others take `tf.Example`s.

    Args:
        path: the version folder; must not be there yet.
        offset: what is added; tells versions apart.
        name: what `serving_default` calls its input.
        tags: of its one graph.
    """
    import tensorflow as tf

    v1: Any = tf.compat.v1
    info = v1.saved_model.build_tensor_info
    make = v1.saved_model.build_signature_def
    graph = tf.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        examples = v1.placeholder(tf.string, name="tf_example")
        features = {"x": v1.io.FixedLenFeature([1], tf.float32), "x2": v1.io.FixedLenFeature([1], tf.float32, [0.0])}
        parsed = v1.io.parse_example(examples, features)
        x = tf.identity(parsed["x"], name="x")
        half, two, three = (v1.Variable(value, name=name) for name, value in (("a", 0.5), ("b", offset), ("c", 3.0)))
        y = tf.add(half * x, two, name="y")
        y3 = tf.add(half * parsed["x2"], three, name="y3")
        labels = tf.fill(tf.shape(y), "half plus two")
        session.run(v1.global_variables_initializer())
        regress, classify = "tensorflow/serving/regress", "tensorflow/serving/classify"
        signatures = {
            "serving_default": make({name: info(x)}, {"y": info(y)}, "tensorflow/serving/predict"),
            "regress_x_to_y": make({"inputs": info(examples)}, {"outputs": info(y)}, regress),
            "regress_x2_to_y3": make({"inputs": info(examples)}, {"outputs": info(y3)}, regress),
            "classify_x_to_y": make({"inputs": info(examples)}, {"scores": info(y)}, classify),
            "classify_labels": make({"inputs": info(examples)}, {"scores": info(y), "classes": info(labels)}, classify),
        }
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, list(tags), signatures)
        builder.save()
    return path


def write_quick_half_plus_two(path: Path, *, offset: float = 2.0) -> Path:
    """The same for rows that are numbers, as an ONNX file: a server of it imports no TensorFlow, and starts at once.

    Args:
        path: the version folder; must not be there yet.
        offset: what is added; tells versions apart.
    """
    import onnx

    nodes = [node("Mul", "x half", "halves"), node("Add", "halves two", "y")]
    rows, numbers = ("float32", ["batch"]), {"half": np.array(0.5, np.float32), "two": np.array(offset, np.float32)}
    path.mkdir(parents=True)
    onnx.save(onnx_model(nodes, {"x": rows}, {"y": rows}, numbers), path / "model.onnx")
    return path


def write_many_types(path: Path) -> Path:
    """A TF2 SavedModel that gives back what it gets, one signature for each dtype, and one with two inputs."""
    import tensorflow as tf

    class Echo(tf.Module):
        """Identity."""

        @tf.function(autograph=False)
        def half(self, x: Any) -> Any:
            """Float16 out."""
            return {"y": tf.cast(x, tf.float16)}

        @tf.function(autograph=False)
        def pair(self, a: Any, b: Any) -> Any:
            """Two in, two out."""
            return {"sum": a + b, "twice": 2.0 * a}

        @tf.function(autograph=False)
        def slow(self, x: Any) -> Any:
            """Takes a while for large numbers."""
            return {"y": tf.while_loop(lambda i, _: i < x[0], lambda i, s: (i + 1, s + i), (0, 0))[1][None]}

        @tf.function(autograph=False)
        def text(self, s: Any) -> Any:
            """Text out, twice."""
            return {"t": s, "t_bytes": s}

    model = Echo()
    spec = tf.TensorSpec
    signatures = {
        "half": model.half.get_concrete_function(x=spec([None], tf.float32)),
        "pair": model.pair.get_concrete_function(a=spec([None], tf.float32), b=spec([None], tf.float32)),
        "slow": model.slow.get_concrete_function(x=spec([1], tf.int32)),
        "text": model.text.get_concrete_function(s=spec([None], tf.string)),
    }
    for dtype in (tf.int32, tf.int64, tf.uint8, tf.bool, tf.float64, tf.float16):
        echo = tf.function(lambda x: {"y": tf.identity(x)}, autograph=False)
        model.__setattr__(f"echo_{dtype.name}", echo)
        signatures[dtype.name] = echo.get_concrete_function(x=spec(None, dtype))
    tf.saved_model.save(model, str(path), signatures=signatures)
    return path


def write_until_file(path: Path) -> Path:
    """A TF2 SavedModel that runs until there is a file with the path `x[0]`, which it gives back as `y`."""
    import tensorflow as tf

    class UntilFile(tf.Module):
        """Waits."""

        @tf.function(autograph=False)
        def __call__(self, x: Any) -> Any:
            """`x`, in time."""
            is_awaited = lambda _: tf.size(tf.io.matching_files(x[0])) < 1  # noqa: E731
            return {"y": tf.while_loop(is_awaited, lambda y: (y,), (x,))[0]}

    model = UntilFile()
    call = model.__call__.get_concrete_function(x=tf.TensorSpec([1], tf.string))
    tf.saved_model.save(model, str(path), signatures={"serving_default": call})
    return path


if __name__ == "__main__":
    root = Path(sys.argv[1])
    write_half_plus_two(root / "half_plus_two" / "00000123")
    write_half_plus_two(root / "two_versions" / "1")
    write_half_plus_two(root / "two_versions" / "2", offset=3.0)
    write_many_types(root / "many" / "1")
    write_until_file(root / "until_file" / "1")


def write_keras_probe(path: Path, rows: np.ndarray, *, seed: int) -> np.ndarray:
    """A Keras model `(n, 4)` -> `(n, 3)` as plain TensorFlow saves it, with predict, classify and regress.

    Args:
        path: the version folder; must not be there yet.
        rows: float32 `(n, 4)`.
        seed: of its weights.

    Returns:
        What Keras itself answers to the rows, float32 `(n, 3)`; `regress` gives the first column.
    """
    import keras
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(8, activation="gelu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", bias_initializer="normal")(hidden))
    texts = tf.TensorSpec([None], tf.string, name="inputs")

    def answers(examples: tf.Tensor) -> tf.Tensor:
        return model(tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([4], tf.float32)})["x"])

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def predict(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": model(x)}

    @tf.function(input_signature=[texts])
    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": answers(inputs)}

    @tf.function(input_signature=[texts])
    def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": answers(inputs)[:, 0]}

    module = tf.Module()
    module.kept = [variable.value for variable in model.variables]  # TensorFlow does not look into a model of Keras 3
    signatures = {"serving_default": predict, "classify": classify, "regress": regress}
    tf.saved_model.save(module, str(path), signatures)
    file = path / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for name in ("classify", "regress"):  # TensorFlow 2 can save no method but predict
        saved.meta_graphs[0].signature_def[name].method_name = f"tensorflow/serving/{name}"
    file.write_bytes(saved.SerializeToString())
    return np.asarray(model(rows))
