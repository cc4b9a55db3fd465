"""`predict([a, b])`, as Keras takes it: the order of the model's inputs goes with the version to every door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import InvalidRequest
from tfserve_nb.export.saved_model import export_version
from tfserve_nb.export.signatures import read_signatures

X, Y = np.array([[1.0, 2], [3, 4]], np.float32), np.array([[10.0, 20], [30, 40]], np.float32)


class TwoArguments(keras.Model):
    """`model(zulu, alpha)`."""

    def call(self, zulu: Any, alpha: Any = None) -> Any:
        return zulu - 2 * alpha if alpha is not None else zulu


class OneList(keras.Model):
    """`model([zulu, alpha])`."""

    def call(self, inputs: Any) -> Any:
        return inputs[0] - 2 * inputs[1]


class OneDict(keras.Model):
    """`model({"zulu": zulu, "alpha": alpha})`."""

    def call(self, inputs: Any) -> Any:
        return inputs["zulu"] - 2 * inputs["alpha"]


class Module(tf.Module):
    """`module(zulu, alpha)`."""

    @tf.function(input_signature=[tf.TensorSpec((None, 2), name="zulu"), tf.TensorSpec((None, 2), name="alpha")])
    def __call__(self, zulu: Any, alpha: Any) -> Any:
        return zulu - 2 * alpha


def called(model: Any, *inputs: Any) -> Any:
    model(*inputs)
    return model


def functional(*names: str, kind: Callable[[dict[str, Any]], Any] = lambda inputs: [*inputs.values()]) -> Any:
    """`zulu - 2 * alpha` of inputs in the order given."""
    inputs = {name: keras.Input((2,), name=name) for name in names}
    others = [tensor for name, tensor in inputs.items() if name not in ("zulu", "alpha")]
    return keras.Model(kind(inputs), keras.ops.add(inputs["zulu"] - 2 * inputs["alpha"], sum(others)))


MODELS: dict[str, tuple[Callable[[], Any], Any, tuple[str, ...]]] = {
    "functional": (lambda: functional("zulu", "alpha"), None, ("zulu", "alpha")),
    "names that no tracer takes": (
        lambda: functional("zulu", "Ä b", "alpha"), None, ("zulu", "Ä b", "alpha"),
    ),
    "functional of a dict": (lambda: functional("zulu", "alpha", kind=dict), None, ()),
    "functional of lists in a list": (
        lambda: functional("zulu", "b", "alpha", kind=lambda i: [i["zulu"], [i["b"], i["alpha"]]]), None, (),
    ),
    "call(zulu, alpha)": (lambda: called(TwoArguments(), X, Y), {"alpha": Y, "zulu": X}, ("zulu", "alpha")),
    "call([zulu, alpha])": (lambda: called(OneList(), [X, Y]), None, ("inputs_0", "inputs_1")),
    "call of a dict": (lambda: called(OneDict(), {"zulu": X, "alpha": Y}), None, ()),
    "module": (Module, None, ("zulu", "alpha")),
    "one input": (lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), None, ()),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_version_has_the_order_in_which_the_model_is_called(tmp_path: Path, name: str) -> None:
    make, example, order = MODELS[name]

    exported = export_version(make(), tmp_path, "m", example=example)

    assert read_signatures(exported.path)["serving_default"].order == order
    assert read_signatures(exported.path)["serving_default"].order == order


def test_saved_models_of_others_have_one_where_tensorflow_wrote_it_down(tmp_path: Path) -> None:
    functional("zulu", "alpha").export(tmp_path / "list", verbose=False)
    functional("zulu", "alpha", kind=dict).export(tmp_path / "dict", verbose=False)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        inputs = {name: tf.compat.v1.placeholder(tf.float32, (None, 2)) for name in ("zulu", "alpha")}
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "old"))
        info = tf.compat.v1.saved_model.predict_signature_def(inputs, {"y": inputs["zulu"] - 2 * inputs["alpha"]})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": info})
        builder.save()

    orders = {name: read_signatures(tmp_path / name)["serving_default"].order for name in ("list", "dict", "old")}

    assert orders == {"list": ("zulu", "alpha"), "dict": (), "old": ()}


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Deployment]]:
    """A handle for each home; rows for the check and the warm-up are lists."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("order"))
        kernel = tfserve_nb.deploy(functional("zulu", "alpha"), "kernel", check=[X, Y], warmup=(X, Y))
        isolated = tfserve_nb.deploy(functional("zulu", "alpha"), "alone", check=[X, Y], isolate=True)
        remote = tfserve_nb.connect(kernel.rest_url, kernel.token)
        yield {"kernel": kernel, "isolated": isolated, "remote": remote}
        for handle in (isolated, remote):
            handle._server.models.connection.close()  # type: ignore[attr-defined]  # noqa: SLF001 - a client's
        tfserve_nb.shutdown()


@pytest.mark.parametrize("home", ["kernel", "isolated", "remote"])
def test_a_list_of_arrays_is_taken_in_every_home(homes: dict[str, Deployment], home: str) -> None:
    handle = homes[home]

    for value in ([X, Y], (X, Y), [tf.constant(X), Y.tolist()], {"alpha": Y, "zulu": X}):
        np.testing.assert_array_equal(handle.predict(value), X - 2 * Y)
    with pytest.raises(InvalidRequest, match="may be 2 inputs or 2 rows"):
        handle.predict([X.tolist(), Y.tolist()])
    with pytest.raises(InvalidRequest, match="does not fit a model with 2 inputs"):
        handle.predict([X, Y, X])


@pytest.mark.parametrize("home", ["kernel", "isolated"])
def test_benchmarks_and_experiments_take_it_too(homes: dict[str, Deployment], home: str) -> None:
    handle = homes[home]

    result = handle.benchmark(values=[X, Y], closed=1, seconds=0.2, warmup_s=0)
    assert "given" in result.payload
    assert result.summary.is_valid
    with pytest.raises(InvalidRequest, match="may be 2 inputs or 2 rows"):
        handle.benchmark(values=[X.tolist(), Y.tolist()], closed=1, seconds=0.2)


def test_versions_that_disagree_on_the_order_get_no_list_read_for_the_other(homes: dict[str, Deployment]) -> None:
    kernel, remote = homes["kernel"], homes["remote"]
    np.testing.assert_array_equal(remote.predict([X, Y]), X - 2 * Y)
    first = kernel.version

    equal = tfserve_nb.deploy(functional("zulu", "alpha"), "kernel").version
    assert kernel.diff(first, equal, rows=[X, Y]).rows_from == "given rows"
    second = tfserve_nb.deploy(functional("alpha", "zulu"), "kernel").version
    try:
        for handle in (kernel, remote):
            np.testing.assert_array_equal(handle.predict([Y, X]), X - 2 * Y)
        with pytest.raises(InvalidRequest, match=r"in different orders \(zulu, alpha and alpha, zulu\)"):
            kernel.diff(first, second, rows=[X, Y])
        changed = kernel.diff(first, second).signatures[0].details
        assert changed == ("inputs as a list: zulu, alpha → alpha, zulu",)
    finally:
        kernel.rollback(to=first)


def test_a_model_of_a_dict_takes_no_list(homes: dict[str, Deployment]) -> None:
    model = functional("zulu", "alpha", kind=dict)

    with pytest.raises(tfserve_nb.errors.InvalidOption, match="check: the list .*of which no order is known"):
        tfserve_nb.deploy(model, "dicts", check=[X, Y])
    handle = tfserve_nb.deploy(model, "dicts")
    with pytest.raises(InvalidRequest, match="of which no order is known") as caught:
        handle.predict([X, Y])

    assert caught.value.hint == "give a dict: {'alpha': ..., 'zulu': ...}"
