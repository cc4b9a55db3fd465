"""SavedModels that others wrote: TF1 and TF2 with lookup tables and assets, and tf-keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfserve_nb.errors import ModelNotFound
from tfserve_nb.serving.engines.saved_model.session import SavedModelServable


def texts(*values: str) -> np.ndarray:
    return np.array([value.encode() for value in values], dtype=object)


def vocabulary(folder: Path) -> str:
    file = folder / "words.txt"
    file.write_text("cat\ndog\n")
    return str(file)


def test_tf2_with_a_table_from_an_asset(tmp_path: Path) -> None:
    import tensorflow as tf

    class Lookup(tf.Module):
        """Words to numbers."""

        def __init__(self) -> None:
            super().__init__()
            init = tf.lookup.TextFileInitializer(
                vocabulary(tmp_path),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            )
            self.table = tf.lookup.StaticHashTable(init, -1)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "words")])
        def __call__(self, words: Any) -> Any:
            """The words' numbers."""
            return {"numbers": self.table.lookup(words)}

    tf.saved_model.save(Lookup(), str(tmp_path / "1"))
    (tmp_path / "words.txt").unlink()

    servable = SavedModelServable(tmp_path / "1")

    answer = servable.run("serving_default", {"words": texts("dog", "cow", "cat")})
    assert answer["numbers"].tolist() == [1, -1, 0]
    servable.close()


def test_tf1_with_a_table_from_an_asset(tmp_path: Path) -> None:
    import tensorflow as tf

    v1: Any = tf.compat.v1
    graph = tf.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        words = v1.placeholder(tf.string, [None], name="words")
        init = tf.lookup.TextFileInitializer(
            vocabulary(tmp_path),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        numbers = tf.lookup.StaticHashTable(init, -1).lookup(words)
        session.run(v1.tables_initializer())
        info = v1.saved_model.build_tensor_info
        signature = v1.saved_model.build_signature_def({"words": info(words)}, {"numbers": info(numbers)}, "any")
        builder = v1.saved_model.Builder(str(tmp_path / "1"))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            assets_collection=graph.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    (tmp_path / "words.txt").unlink()

    servable = SavedModelServable(tmp_path / "1")

    assert servable.run("serving_default", {"words": texts("dog", "cow")})["numbers"].tolist() == [1, -1]
    servable.close()


def test_one_in_text_form(tmp_path: Path) -> None:
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = tf.Module()
    model.double = tf.function(lambda x: {"y": 2.0 * x}, input_signature=[tf.TensorSpec([None], name="x")])
    tf.saved_model.save(model, str(tmp_path), signatures=model.double)
    binary = tmp_path / "saved_model.pb"
    (tmp_path / "saved_model.pbtxt").write_text(text_format.MessageToString(SavedModel.FromString(binary.read_bytes())))
    binary.unlink()

    servable = SavedModelServable(tmp_path)

    assert servable.run("serving_default", {"x": np.float32([1, 2])})["y"].tolist() == [2.0, 4.0]
    servable.close()


def test_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="does not appear to contain a SavedModel bundle"):
        SavedModelServable(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tf_keras(tmp_path: Path, rng: np.random.Generator) -> None:
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(3)])
    model.export(str(tmp_path / "1"))

    servable = SavedModelServable(tmp_path / "1")

    x = rng.random((5, 4), np.float32)
    (name,) = servable.signatures["serving_default"].inputs
    (answer,) = servable.run("serving_default", {name: x}).values()
    np.testing.assert_allclose(answer, model(x), rtol=1e-5)
    servable.close()
