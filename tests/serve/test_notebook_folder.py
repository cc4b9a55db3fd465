"""What was deployed from a notebook is TensorFlow Serving's: layout, signatures, configuration, warm-up file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.black_box import Start

import tfserve_nb
from tfserve_nb.errors import InvalidOption


def test_a_deployed_folder_is_served_elsewhere(start: Start, tmp_path: Path, rng: np.random.Generator) -> None:
    import keras
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    model = keras.Sequential([keras.layers.Input((4,), name="x"), keras.layers.Dense(3)])
    x = rng.random((5, 4), np.float32)
    try:
        tfserve_nb.deploy(model, "net", base_path=tmp_path, warmup=x[:2])
        handle = tfserve_nb.deploy(model, "net", base_path=tmp_path, label="stable")
        expected = handle.predict(x)
    finally:
        tfserve_nb.shutdown()

    folder = tmp_path / "net"
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
    saved = SavedModel.FromString((folder / "1" / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    signature = graph.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    warmup = folder / "1" / "assets.extra" / "tf_serving_warmup_requests"
    (log,) = [PredictionLog.FromString(one) for one in tf.data.TFRecordDataset(str(warmup)).as_numpy_iterator()]
    (name,) = signature.inputs
    np.testing.assert_array_equal(tf.make_ndarray(log.predict_log.request.inputs[name]), x[:2])

    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "net" base_path: "{folder}" model_platform: "tensorflow" '
        'model_version_policy { all {} } version_labels { key: "stable" value: 2 } } }'
    )
    text_format.Parse(config.read_text(), ModelServerConfig())
    served = start(f"--model_config_file={config}", "--allow_version_labels_for_unavailable_models")
    assert "Number of warmup records read: 1." in served.text
    for target in ("", "/versions/1", "/labels/stable"):
        status, value = served.predict({"instances": x.tolist()}, "net", target)
        assert status == 200
        np.testing.assert_allclose(value["predictions"], expected, rtol=1e-6)

    # Meanwhile the notebook serves the folder too: it deletes nothing that is served elsewhere, and what is loaded
    # needs its folder no more.
    try:
        (handle,) = tfserve_nb.resume(tmp_path)
        with pytest.raises(InvalidOption, match="version 1 of net is not deleted: another process serves it"):
            handle.undeploy(1, delete=True)
        # Both serve both versions, and answer the same.
        assert handle.parity(f"http://127.0.0.1:{served.rest_port}", labels=("stable",), requests=0).is_same
        assert served.stop() == 0
        shutil.rmtree(folder / "1")
        handle.promote(1)
        np.testing.assert_allclose(handle.predict(x), expected, rtol=1e-6)
        handle.promote(2)
        handle.undeploy(1, delete=True)
        handle.undeploy(delete=True)
    finally:
        tfserve_nb.shutdown()
    assert list(folder.iterdir()) == []
