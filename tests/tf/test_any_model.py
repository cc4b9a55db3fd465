"""Any small model: what is served is what the model's own graph computes, alone and beside other requests.

Hypothesis draws Keras graphs and modules: several inputs and outputs, kinds of numbers, text, rows that depend on each
other, state. `--hypothesis-profile=thorough` draws two hundred instead of a few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.converting import convert_here
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import InvalidOption
from tfserve_nb.serving.engines.kinds import NAMES

NUM_CLIENTS = 32
WORDS = np.array([b"red", b"green", b"blue", b"\xff\x00", b"", b"a b c"], dtype=object)
NUMBERS = ("float32", "float16", "float64", "int32", "int64", "uint8", "bool")


@dataclass(frozen=True)
class Input:
    """One input of a model: how many columns, of what."""

    dtype: str
    width: int

    def rows(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Rows of shape (num, width)."""
        shape = (num, self.width)
        if self.dtype == "string":
            return rng.choice(WORDS, size=shape)
        if self.dtype.startswith("float"):
            return rng.uniform(0.1, 2.0, shape).astype(self.dtype)
        return rng.integers(0, 2 if self.dtype == "bool" else 9, shape).astype(self.dtype)


@dataclass(frozen=True)
class Plan:
    """A model to build."""

    inputs: tuple[Input, ...]
    middle: tuple[str, ...]
    num_outputs: int
    source: str
    seed: int

    @property
    def has_state(self) -> bool:
        """Whether a call changes what the next one gets."""
        return "count" in self.middle


@keras.saving.register_keras_serializable("tests")
class Numbers(keras.layers.Layer):
    """Float32 of whatever comes in; a text counts as its length."""

    def call(self, x: Any) -> Any:
        return tf.cast(tf.strings.length(x) if x.dtype == "string" else x, tf.float32)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, "float32")


@keras.saving.register_keras_serializable("tests")
class Share(keras.layers.Layer):
    """Each row as a share of its batch: rows of two requests must not meet."""

    def call(self, x: Any) -> Any:
        return x / (keras.ops.sum(x, axis=0, keepdims=True) + 1.0)


@keras.saving.register_keras_serializable("tests")
class Sorted(keras.layers.Layer):
    """The rows in order of their columns."""

    def call(self, x: Any) -> Any:
        return keras.ops.sort(x, axis=0)


@keras.saving.register_keras_serializable("tests")
class Count(keras.layers.Layer):
    """Adds the number of calls before."""

    def build(self, _: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x: Any) -> Any:
        before = self.calls + 0.0
        self.calls.assign_add(1.0)
        return x + before


MIDDLE: Mapping[str, Callable[[], Any]] = {
    "dense": lambda: keras.layers.Dense(4, "relu"),
    "softmax": keras.layers.Softmax,
    "norm": lambda: keras.layers.LayerNormalization(epsilon=0.1),
    "batch norm": lambda: keras.layers.BatchNormalization(moving_mean_initializer="ones"),
    "dropout": lambda: keras.layers.Dropout(0.5),
    "share": Share,
    "sorted": Sorted,
    "count": Count,
}


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Models of one to three inputs, up to three layers and two outputs."""
    inputs = st.builds(Input, st.sampled_from((*NUMBERS, "string")), st.integers(1, 3))
    return Plan(
        tuple(draw(st.lists(inputs, min_size=1, max_size=3))),
        tuple(draw(st.lists(st.sampled_from(list(MIDDLE)), max_size=3))),
        draw(st.integers(1, 2)),
        draw(st.sampled_from(("functional", "module"))),
        draw(st.integers(0, 99)),
    )


def functional(plan: Plan) -> Any:
    """The plan as a Keras model."""
    keras.utils.set_random_seed(plan.seed)
    inputs = [keras.Input((one.width,), dtype=one.dtype, name=f"in_{place}") for place, one in enumerate(plan.inputs)]
    parts = [Numbers()(tensor) for tensor in inputs]
    x = parts[0] if len(parts) == 1 else keras.layers.Concatenate()(parts)
    for name in plan.middle:
        x = MIDDLE[name]()(x)
    names = [f"out_{place}" for place in range(plan.num_outputs)]
    outputs = {name: keras.layers.Dense(place + 1, name=name)(x) for place, name in enumerate(names)}
    return keras.Model(inputs, outputs if plan.num_outputs > 1 else outputs["out_0"])


class Module(tf.Module):
    """The plan as a module with a signature of its own; it holds the Keras model's layers."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.model = functional(plan)
        specs = [
            tf.TensorSpec([None, one.width], one.dtype, name=f"in_{place}") for place, one in enumerate(plan.inputs)
        ]
        self.__call__ = tf.function(lambda *given: self.model(list(given), training=False), input_signature=specs)


def variables_of(model: Any) -> list[np.ndarray]:
    """What every variable of a model holds."""
    return [variable.value.numpy() for variable in (model.model if isinstance(model, Module) else model).variables]


def own_graph(model: Any, num_inputs: int) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Run the model as a graph on rows; its variables are as before afterwards."""
    keras_model = model.model if isinstance(model, Module) else model
    run = tf.function(lambda *given: keras_model(list(given) if num_inputs > 1 else given[0], training=False))

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        before = variables_of(model)
        found = run(*(tf.constant(rows[f"in_{place}"]) for place in range(num_inputs)))
        for variable, value in zip(keras_model.variables, before, strict=True):
            variable.assign(value)
        outputs = found if isinstance(found, dict) else {"": found}
        return {name: value.numpy() for name, value in outputs.items()}

    return compute


def check(found: Any, expected: Mapping[str, np.ndarray]) -> None:
    """The answer of `predict`, or of REST, is what the model computes."""
    outputs = found if isinstance(found, Mapping) else {"": found}
    assert sorted(outputs) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(outputs[name], np.float64), value, rtol=1e-4, atol=1e-5, err_msg=name)


def deploy_by(engine: str, model: Any, options: Mapping[str, Any]) -> Deployment:
    """Deploy with an engine; with TensorFlow where that one cannot run the model, which is said."""
    try:
        return tfserve_nb.deploy(model, name="any", engine=engine, **options)
    except InvalidOption as error:
        if f"engine={engine!r} cannot run this model: " not in error.message:
            raise
    return tfserve_nb.deploy(model, name="any", **options)


@pytest.fixture
def _converted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    convert_here(monkeypatch)


@pytest.mark.usefixtures("own_folder", "_converted_here")
@pytest.mark.filterwarnings("ignore:.*softmax over axis -1 of a tensor")
@settings(
    max_examples=max(6, settings.default.max_examples // 10),
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(plan=plans(), gives_rows=st.booleans(), engine=st.sampled_from(NAMES), data=st.data())
def test_what_is_served_is_what_the_model_computes(
    plan: Plan, gives_rows: bool, engine: str, data: st.DataObject
) -> None:
    rng = np.random.default_rng(plan.seed)

    def rows(num: int) -> dict[str, np.ndarray]:
        return {f"in_{place}": one.rows(rng, num) for place, one in enumerate(plan.inputs)}

    def given_to_predict(values: dict[str, np.ndarray]) -> Any:
        return values if len(values) > 1 else values["in_0"]

    model = functional(plan) if plan.source == "functional" else Module(plan)
    compute = own_graph(model, len(plan.inputs))
    before = variables_of(model)
    options = {"check": given_to_predict(rows(5))} if gives_rows else {}
    event(f"{plan.source}, {', '.join(sorted(set(plan.middle)))}")

    served = deploy_by(engine, model, options)
    event(f"{engine} was asked for, {served.engine} runs it")
    try:
        for place, num in enumerate(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))):
            if place and plan.has_state:
                break
            alone = rows(num)
            check(served.predict(given_to_predict(alone)), compute(alone))
        if not plan.has_state:
            asked = [rows(int(num)) for num in rng.integers(1, 6, NUM_CLIENTS)]
            expected = [compute(values) for values in asked]
            with ThreadPoolExecutor(NUM_CLIENTS) as clients:
                answers = list(clients.map(lambda values: served.predict(given_to_predict(values)), asked))
            for found, known in zip(answers, expected, strict=True):
                check(found, known)
        for found, known in zip(variables_of(model), before, strict=True):
            np.testing.assert_array_equal(found, known)
    finally:
        with suppress(tfserve_nb.errors.ServingError):
            served.undeploy(delete=True)
