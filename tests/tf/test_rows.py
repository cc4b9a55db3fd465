"""Rows that belong together are neither cut nor mixed, through every door; and rows that do not, share runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import keras
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.notebook.overview import Overview

SPEC = [tf.TensorSpec([None, 2], tf.float32, name="x")]


class Couplings(tf.Module):
    """One signature for each way in which rows may belong together."""

    @tf.function(input_signature=SPEC)
    def share(self, x):  # noqa: ANN201
        return {"y": x / tf.reduce_sum(x, axis=0)}

    @tf.function(input_signature=SPEC)
    def scaled(self, x):  # noqa: ANN201
        return {"y": 3 * x}

    @tf.function(input_signature=SPEC)
    def chosen(self, x):  # noqa: ANN201
        """Made-up rows are all chosen."""
        return {"y": tf.boolean_mask(x, x[:, 0] > -1e20)}

    @tf.function(input_signature=SPEC)
    def crowded(self, x):  # noqa: ANN201
        return {"y": tf.cond(tf.shape(x)[0] > 8, lambda: x - tf.reduce_mean(x, axis=0), lambda: x)}

    @tf.function(input_signature=SPEC)
    def total(self, x):  # noqa: ANN201
        return {"y": tf.sort(x, axis=0), "total": tf.reduce_sum(x)}

    @property
    def signatures(self) -> dict[str, Any]:
        """By name."""
        return {"serving_default": self.share, **{name: getattr(self, name) for name in NAMES[1:]}}


NAMES = ("serving_default", "scaled", "chosen", "crowded", "total")


DOORS = ("predict", "rest", "v2", "grpc")


pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(scope="module")
def expected() -> Callable[[str, np.ndarray], dict[str, np.ndarray]]:
    """What the model itself answers."""
    signatures = Couplings().signatures
    return lambda name, x: {key: value.numpy() for key, value in signatures[name](tf.constant(x)).items()}


def ask(served: Deployment, door: str, name: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """The answer through one door."""
    if door == "predict":
        answer = served.predict(x, signature=name)
        return answer if isinstance(answer, dict) else {"y": answer}
    headers = {"Authorization": f"Bearer {served.token}"}
    if door == "rest":
        body = {"signature_name": name, "inputs": x.tolist()}
        outputs = requests.post(f"{served.rest_url}:predict", json=body, headers=headers, timeout=60).json()["outputs"]
        return {key: np.asarray(value) for key, value in (outputs if name == "total" else {"y": outputs}).items()}
    if door == "v2":
        url = f"{served.rest_url.replace('/v1/', '/v2/')}/infer"
        tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
        body = {"inputs": [tensor], "parameters": {"signature_name": name}}
        outputs = requests.post(url, json=body, headers=headers, timeout=60).json()["outputs"]
        return {one["name"]: np.asarray(one["data"]).reshape(one["shape"]) for one in outputs}
    message = PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = served.name, name
    message.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    with grpc.insecure_channel(served.grpc_address) as channel:
        metadata = (("authorization", f"Bearer {served.token}"),)
        response = PredictionServiceStub(channel).Predict(message, timeout=60, metadata=metadata)
    return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}


def asked_for() -> list[tuple[str, np.ndarray]]:
    """Signatures and rows: few and many, and some that show what made-up rows did not."""
    random = np.random.default_rng(0)
    asked = [(name, random.uniform(1, 2, (1 + number % 3, 2))) for number in range(5) for name in NAMES]
    asked += [(name, random.uniform(1, 2, (40, 2))) for name in NAMES]
    asked += [
        ("chosen", np.array([[-1e30, 1], [1, 1], [-1e30, 2]])),
        ("chosen", np.array([[1, 1]] + 39 * [[-1e30, 1]])),
    ]
    return [(name, x.astype(np.float32)) for name, x in asked]


@pytest.mark.parametrize("options", [{}, {"isolate": True, "workers": 1}], ids=["kernel", "isolated with a worker"])
def test_every_door_answers_as_the_model_does_alone_and_among_others(
    expected: Callable[[str, np.ndarray], dict[str, np.ndarray]], tmp_path: Path, options: dict[str, Any]
) -> None:
    module = Couplings()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.signatures)
    served = tfserve_nb.deploy(
        tmp_path / "saved", "coupled", grpc_port=0, max_batch_size=16, batch_timeout_micros=2000, **options
    )
    asked = [(door, name, x) for door in DOORS for name, x in asked_for()]
    answers: list[dict[str, np.ndarray]] = [{}] * len(asked)

    def work(first: int) -> None:
        for number in range(first, len(asked), 16):
            answers[number] = ask(served, *asked[number])

    threads = [threading.Thread(target=work, args=(first,)) for first in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)

    for (door, name, x), answer in zip(asked, answers, strict=True):
        for key, value in expected(name, x).items():
            text = f"{door}, {name}, {len(x)} rows"
            np.testing.assert_allclose(answer.get(key), value, rtol=1e-5, atol=1e-6, err_msg=text)
    # More than a handle of another process sends at once, if rows may be cut.
    np.testing.assert_allclose(served.predict(np.ones((5000, 2), np.float32)).sum(axis=0), 1, rtol=1e-4)
    (status,) = served.status().versions
    overview = repr(Overview((served,)))
    assert status.alone.keys() == set(NAMES) - {"scaled"}
    assert "requests run one at a time: the outputs for a row depend on the rows beside it" in overview
    assert "requests for total run one at a time: output total (float32[]) does not count rows" in overview


def pixels(value: int) -> bytes:
    """A small picture."""
    return bytes(tf.io.encode_png(np.full((2, 2, 1), value, np.uint8)).numpy())


class Pictures(tf.Module):
    """Mean brightness of pictures, alone or as a share of all of them: made-up bytes are no pictures."""

    def __init__(self, *, is_share: bool) -> None:
        super().__init__()
        self.is_share = is_share

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="png")])
    def __call__(self, png):  # noqa: ANN204
        means = tf.map_fn(
            lambda data: tf.reduce_mean(tf.cast(tf.io.decode_png(data), tf.float32)),
            png,
            fn_output_signature=tf.float32,
        )
        return {"v": means / tf.reduce_sum(means) if self.is_share else means}


@pytest.mark.parametrize(
    ("is_share", "options", "reason"),
    [
        (
            False,
            {"force": True},
            "give two or more different ones (%deploy --check VAR or --warmup VAR, elsewhere assets.extra/",
        ),
        (False, {"check": [pixels(1), pixels(9)]}, ""),
        (False, {"warmup": [pixels(1), pixels(9)]}, ""),
        (True, {"check": [pixels(1), pixels(9)]}, "depend on the rows beside it (seen with the rows of --check)"),
        (True, {"warmup": [pixels(1), pixels(9)]}, "depend on the rows beside it (seen with warm-up rows)"),
    ],
)
def test_rows_of_the_user_decide_where_made_up_rows_fail(is_share: bool, options: dict[str, Any], reason: str) -> None:
    events: list[str] = []
    handle = tfserve_nb.deploy(
        Pictures(is_share=is_share), "pictures", max_batch_size=4, progress=lambda event: events.append(event.detail),
        **options,
    )  # fmt: skip

    alone = handle.status().versions[0].alone

    assert reason in alone.get("serving_default", "")
    assert bool(alone) == bool(reason)
    assert any(reason in detail for detail in events), "the summary of the deploy says so"
    values = np.arange(1, 11)
    expected = values / values.sum() if is_share else values
    np.testing.assert_allclose(handle.predict([pixels(value) for value in values]), expected, rtol=1e-6)


def test_texts_of_different_lengths_stay_together() -> None:
    words = keras.layers.TextVectorization(vocabulary=["a", "b"])
    model = keras.Sequential([keras.Input((), dtype="string"), words])
    handle = tfserve_nb.deploy(model, "texts", max_batch_size=4)
    texts = [" ".join("ab"[: 1 + number % 2] * (1 + number % 5)) for number in range(10)]

    np.testing.assert_array_equal(handle.predict(texts), words(texts))


def test_captured_requests_are_evidence_for_the_next_version() -> None:
    class Rare(tf.Module):
        @tf.function(input_signature=SPEC)
        def __call__(self, x):  # noqa: ANN204
            return {"y": tf.cond(tf.reduce_any(x == 42.0), lambda: x - tf.reduce_mean(x, axis=0), lambda: x)}

    handle = tfserve_nb.deploy(Rare(), "pictures", max_batch_size=4)
    handle.capture()
    handle.predict([[42.0, 1.0], [2.0, 3.0]])
    tfserve_nb.deploy(Rare(), "pictures", max_batch_size=4)

    alone = {status.version: status.alone for status in handle.status().versions}
    assert alone[1] == {}
    assert "seen with captured requests" in alone[2]["serving_default"]
