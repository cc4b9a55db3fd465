"""Real models, really served: several inputs and outputs, text, splits, tokens, and switching under load."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import keras
import numpy as np
import pytest
import requests
import tensorflow as tf
from helpers.eventually import eventually

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.api.servers import served
from tfserve_nb.errors import ExportFailed, InvalidOption, RunRejected, ServingError

pytestmark = pytest.mark.usefixtures("own_folder")


def post(handle: Deployment, body: object, path: str = "", token: str | None = None) -> requests.Response:
    """A predict call over HTTP."""
    headers = {"Authorization": f"Bearer {token or handle.token}"}
    return requests.post(f"{handle.rest_url}{path}:predict", json=body, headers=headers, timeout=10)


def scaler(factor: float) -> keras.Model:
    """Multiplies two numbers."""
    return keras.Sequential([keras.Input((2,), name="x"), keras.layers.Rescaling(factor)])


def house_prices(bias: float) -> keras.Model:
    """Two named inputs, two named outputs."""
    area = keras.Input((1,), name="area")
    rooms = keras.Input((3,), name="rooms")
    price = keras.layers.Rescaling(1.0, offset=bias)(area + keras.ops.sum(rooms, axis=1, keepdims=True))
    largest = keras.ops.max(rooms, axis=1)
    return keras.Model([area, rooms], {"price": price, "largest": largest})


def test_a_model_compiled_by_xla_answers_the_same_for_any_number_of_rows() -> None:
    handle = tfserve_nb.deploy(scaler(3.0), "compiled", optimize="xla")
    tfserve_nb.deploy(scaler(3.0), "plain")

    x = np.arange(14, dtype=np.float32).reshape(7, 2)
    for num_rows in (1, 3, 7):
        np.testing.assert_allclose(handle.predict(x[:num_rows]), 3 * x[:num_rows])
    must_compile = b"_XlaMustCompile"
    assert must_compile in Path("tfserve_models/compiled/1/saved_model.pb").read_bytes()
    assert must_compile not in Path("tfserve_models/plain/1/saved_model.pb").read_bytes()


def test_a_version_for_one_device_is_checked_on_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """`device="/CPU:0"` is what users are told to ask for when a GPU has no memory left."""
    asked, real = [], tf.device
    monkeypatch.setattr(tf, "device", lambda name: asked.append(name) or real(name))

    tfserve_nb.deploy(scaler(3.0), "scaled", device="/CPU:0", check=np.ones((4, 2), np.float32))

    assert "/CPU:0" in asked
    assert None not in asked


def test_what_xla_cannot_compile_is_not_served() -> None:
    text = keras.Input((1,), name="text", dtype="string")
    model = keras.Model(text, keras.layers.TextVectorization(vocabulary=["a", "b"])(text))

    with pytest.raises(ServingError, match="(?i)xla|compil"):
        tfserve_nb.deploy(model, "words", optimize="xla")

    assert not served()
    assert not list(Path("tfserve_models").glob("words/*"))


def test_a_saved_model_is_compiled_too() -> None:
    tfserve_nb.deploy(scaler(3.0), "first")

    handle = tfserve_nb.deploy("tfserve_models/first/1", "second", optimize="xla")

    np.testing.assert_allclose(handle.predict(np.ones((2, 2), np.float32)), 3 * np.ones((2, 2)))
    assert b"_XlaMustCompile" in Path("tfserve_models/second/1/saved_model.pb").read_bytes()


def test_two_inputs_two_outputs_a_split_and_a_wrong_token() -> None:
    handle = tfserve_nb.deploy(house_prices(0.0), "houses", label="stable")
    tfserve_nb.deploy(house_prices(100.0), "houses", stage=True)
    row = {"area": [50.0], "rooms": [1.0, 2.0, 3.0]}

    answer = post(handle, {"instances": [row, row]}).json()
    assert answer == {"predictions": [{"price": [56.0], "largest": 3.0}] * 2}
    columns = post(handle, {"inputs": {"area": [[1.0]], "rooms": [[0.0, 0.0, 4.0]]}}, "/versions/2").json()
    assert columns == {"outputs": {"price": [[105.0]], "largest": [4.0]}}

    handle.set_traffic({1: 70, 2: 30})
    counts = Counter(post(handle, {"instances": [row]}).headers["X-TFServe-Version"] for _ in range(200))
    assert 100 < counts["1"] < 180
    assert counts["1"] + counts["2"] == 200

    refused = post(handle, {"instances": [row]}, token="wrong")
    assert (refused.status_code, refused.json()) == (401, {"error": "The token is wrong"})
    outputs = handle.predict({"area": [[1]], "rooms": [[1, 1, 1]]}, label="stable")
    assert {name: array.tolist() for name, array in outputs.items()} == {"price": [[4.0]], "largest": [1.0]}


def test_thousand_switches_under_32_clients_lose_and_confuse_nothing() -> None:
    handle = tfserve_nb.deploy(scaler(1.0), "net")
    tfserve_nb.deploy(scaler(-1.0), "net")
    address = urlsplit(handle.rest_url)
    stop = threading.Event()
    problems: list[str] = []
    answered = [0] * 32

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        headers = {"Authorization": f"Bearer {handle.token}"}
        try:
            while not stop.is_set():
                value = number * 1000 + answered[number] % 1000 + 1
                body = json.dumps({"instances": [[value, value + 0.5]]})
                connection.request("POST", address.path + ":predict", body, headers)
                response = connection.getresponse()
                text = response.read()
                sign = {"1": 1.0, "2": -1.0}.get(response.headers.get("X-TFServe-Version"))
                if response.status != 200 or sign is None:
                    problems.append(f"{response.status} {text[:200]!r}")
                elif json.loads(text) != {"predictions": [[sign * value, sign * (value + 0.5)]]}:
                    problems.append(f"client {number}: {value} gave {text!r}")
                answered[number] += 1
        except OSError as error:
            problems.append(f"client {number}: {error!r}")
        finally:
            connection.close()

    clients = [threading.Thread(target=client, args=(number,)) for number in range(32)]
    for thread in clients:
        thread.start()
    for _ in range(500):
        handle.rollback()
        handle.promote(2)
    stop.set()
    for thread in clients:
        thread.join(20)

    assert problems == []
    assert min(answered) > 0
    # A request is recorded after its answer was written, so the last ones may still be on their way.
    eventually(lambda: sum(one.num_requests for one in handle.metrics().versions.values()) >= sum(answered))
    numbers = handle.metrics().versions
    assert sum(one.num_requests for one in numbers.values()) == sum(answered)
    assert min(one.num_requests for one in numbers.values()) > 0


def test_batched_answers_equal_unbatched_ones(rng: np.random.Generator) -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    handle = tfserve_nb.deploy(model, "conv", max_batch_size=16)
    images = rng.normal(size=(100, 8, 8, 1)).astype(np.float32)
    live = model(images, training=False).numpy()

    together = handle.predict(images)
    alone = np.concatenate([handle.predict(images[row : row + 1]) for row in range(100)])

    np.testing.assert_allclose(together, live, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(alone, live, rtol=1e-4, atol=1e-6)


def test_model_whose_rows_depend_on_each_other_never_shares_a_run() -> None:
    inputs = keras.Input((2,), name="x")
    model = keras.Model(inputs, keras.ops.softmax(inputs, axis=0))
    handle = tfserve_nb.deploy(model, "shares")
    answers: list[Any] = []

    threads = [threading.Thread(target=lambda: answers.append(handle.predict([[1.0, 2.0]]))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert [answer.tolist() for answer in answers] == [[[1.0, 1.0]]] * 16
    assert handle.predict([[0.0, 0.0], [0.0, 0.0]]).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_bad_values_of_one_request_fail_alone_in_a_shared_batch() -> None:
    class Checked(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
        def __call__(self, x):  # noqa: ANN204
            with tf.control_dependencies([tf.debugging.assert_non_negative(x, message="no negative numbers")]):
                return {"root": tf.sqrt(x)}

    handle = tfserve_nb.deploy(Checked(), "roots", check=np.ones((1, 1), np.float32), batch_timeout_micros=100_000)
    outcomes: dict[int, object] = {}

    def ask(value: int) -> None:
        try:
            outcomes[value] = handle.predict([[float(value)]]).tolist()
        except RunRejected as error:
            outcomes[value] = error.message

    threads = [threading.Thread(target=ask, args=(value,)) for value in (4, 9, -1, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert {value: outcomes[value] for value in (4, 9, 16)} == {4: [[2.0]], 9: [[3.0]], 16: [[4.0]]}
    assert "no negative numbers" in str(outcomes[-1])


def test_text_goes_in_and_comes_out() -> None:
    lookup = keras.layers.StringLookup(vocabulary=["cat", "dog"])
    inputs = keras.Input((1,), dtype="string", name="animal")
    handle = tfserve_nb.deploy(keras.Model(inputs, {"index": lookup(inputs)}), "animals")

    assert post(handle, {"instances": [["dog"], ["cow"]]}).json() == {"predictions": [[2], [0]]}
    assert handle.predict([["cat"]]).tolist() == [[1]]


def test_existing_savedmodel_and_tf_function(tmp_path: Path) -> None:
    tf.saved_model.save(
        tf.Module(),
        str(tmp_path / "empty"),
    )
    module = tf.Module()
    module.add = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([None], tf.int64, name="x")])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.add})

    handle = tfserve_nb.deploy(str(tmp_path / "saved"), "saved")
    assert handle.predict(np.array([1, 2])).tolist() == [2, 3]
    function = tfserve_nb.deploy(module.add, "function")
    assert function.predict(np.array([1, 2])).tolist() == [2, 3]
    assert function.rest_url.rsplit("/", 1)[0] == handle.rest_url.rsplit("/", 1)[0]


def test_training_on_does_not_change_what_is_served() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    handle = tfserve_nb.deploy(model, "net")
    before = handle.predict([[1.0]])

    model.set_weights([np.array([[42.0]])])

    np.testing.assert_array_equal(handle.predict([[1.0]]), before)


def test_warm_up_and_check_rows_of_the_user_must_fit() -> None:
    with pytest.raises(InvalidOption, match="warmup: Input x has shape .4, 3., expected float32"):
        tfserve_nb.deploy(scaler(1.0), "net", warmup=np.zeros((4, 3), np.float32))
    with pytest.raises((InvalidOption, ExportFailed)):
        tfserve_nb.deploy(scaler(1.0), "net", check=np.zeros((4, 3), np.float32))
    assert not Path("tfserve_models/net").exists() or not list(Path("tfserve_models/net").glob("[0-9]*"))

    handle = tfserve_nb.deploy(scaler(2.0), "net", warmup=np.ones((4, 2), np.float32), check=[[1.0, 2.0]])
    assert handle.version == 1


def test_switching_to_an_unloaded_version_loads_it_first() -> None:
    handle = tfserve_nb.deploy(scaler(1.0), "net", keep=1)
    tfserve_nb.deploy(scaler(2.0), "net", keep=1)
    for _ in range(200):
        if handle.versions == (2,):
            break
        threading.Event().wait(0.02)
    assert handle.versions == (2,)

    handle.rollback()

    assert handle.predict([[1.0, 1.0]]).tolist() == [[1.0, 1.0]]


def test_nothing_stays_behind_after_shutdown() -> None:
    handle = tfserve_nb.deploy(scaler(1.0), "net")
    handle.predict([[1.0, 1.0]])

    tfserve_nb.shutdown()
    tfserve_nb.shutdown()

    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("tfserve-")]
    assert repr(handle) == "<Deployment net: not served>"
