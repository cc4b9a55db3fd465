"""Variants of a version: the same answers within what each may lose, for every kind of model and every loader."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import hypothesis.extra.numpy
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.converting import convert_here, probe_here
from helpers.model_case import Case
from hypothesis import given
from hypothesis import strategies as st

import tfserve_nb
from tfserve_nb.api import optimize
from tfserve_nb.dashboards.pages.versions import versions_table
from tfserve_nb.errors import InvalidOption, VariantFailed
from tfserve_nb.export.graph.effects import effects_of
from tfserve_nb.export.graph.live import live_outputs
from tfserve_nb.export.layout import folder_bytes
from tfserve_nb.export.provenance.variant import read_variant
from tfserve_nb.export.saved_model import export_version
from tfserve_nb.export.signatures import read_meta_graph, read_signatures
from tfserve_nb.export.source import prepare_source
from tfserve_nb.export.variants import bfloat16, tflite
from tfserve_nb.export.variants.packing import to_float16, to_int8
from tfserve_nb.export.variants.variants import VARIANTS
from tfserve_nb.export.variants.write import write_variant
from tfserve_nb.export.weights import Packed, Weights
from tfserve_nb.serving.engines.saved_model.session import SavedModelServable
from tfserve_nb.types import ProgressEvent, VariantMeasurement
from tfserve_nb.variants.measure import MadeVariant

layers = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 16)).astype(np.float32)
IMAGES = RANDOM.normal(size=(3, 12, 12, 3)).astype(np.float32)
IDS = RANDOM.integers(0, 50, size=(4, 7)).astype(np.int32)
WORDS = np.array([[b"red"], [b"blue"], [b"pink"], [b"red"]], dtype=object)
SPEC = tf.TensorSpec([None, 16], tf.float32, name="x")

LOSES = {"float32": 0.0, "float16": 3e-3, "int8": 5e-2, "xla": 1e-5}
"""Variant -> what its answers may be off by, as a part of the largest number of the output."""

pytestmark = [
    pytest.mark.usefixtures("own_folder"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of tf_keras
]


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    keras.utils.set_random_seed(1)


def dense() -> Case:
    stack = [layers.Dense(64, "relu"), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(8, "softmax")]
    model = keras.Sequential([keras.Input((16,), name="x"), *stack])
    model.compile("adam", "categorical_crossentropy")
    # What a training leaves behind, without one: the optimizer's state, and statistics.
    model.optimizer.build(model.trainable_variables)
    model(X, training=True)
    return Case(model, (X,))


def convolutions() -> Case:
    stack = [
        layers.Conv2D(16, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3, activation="relu"),
        layers.SeparableConv2D(32, 3),
        layers.GlobalAveragePooling2D(),
        layers.Dense(10),
    ]
    return Case(keras.Sequential([keras.Input((12, 12, 3), name="x"), *stack]), (IMAGES,))


def recurrent() -> Case:
    stack = [layers.Embedding(50, 16), layers.LSTM(16, return_sequences=True), layers.GRU(16), layers.Dense(4)]
    return Case(keras.Sequential([keras.Input((7,), dtype="int32", name="x"), *stack]), (IDS,))


def attention() -> Case:
    x = keras.Input((7,), dtype="int32", name="x")
    y = layers.Embedding(50, 32)(x)
    y = layers.LayerNormalization()(y + layers.MultiHeadAttention(4, 8)(y, y))
    return Case(keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(y))), (IDS,))


def shared_and_nested() -> Case:
    twice = layers.Dense(16)
    inner = keras.Sequential([keras.Input((16,)), layers.Dense(16), layers.BatchNormalization()])
    x = keras.Input((16,), name="x")
    return Case(keras.Model(x, twice(inner(twice(x)))), (X,))


class Tied(layers.Layer):  # type: ignore[misc]
    """A layer of the user's own: multiplies with a matrix and with its transpose."""

    def build(self, shape: Any) -> None:
        self.matrix = self.add_weight(shape=(shape[-1], 24), name="matrix")

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(keras.ops.matmul(x, self.matrix), keras.ops.transpose(self.matrix))


class Subclassed(keras.Model):  # type: ignore[misc]
    """Has a variable that Keras does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = Tied()
        self.factor = tf.Variable(tf.ones((16, 16)) * 0.5, trainable=False)

    def call(self, x: Any) -> Any:
        return self.tied(x) @ self.factor


def subclassed() -> Case:
    model = Subclassed()
    model(X)
    return Case(model, (X,))


def tables() -> Case:
    word = keras.Input((1,), dtype="string", name="word")
    ids = layers.StringLookup(vocabulary=["red", "blue"])(word)
    y = layers.Flatten()(layers.Embedding(50, 16)(ids))
    return Case(keras.Model(word, layers.Dense(20)(y)), (WORDS,))


def noisy_states() -> Case:
    lstm = layers.LSTM(16, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(16, 2, 16)), lstm, layers.Dense(16)])
    return Case(model, (RANDOM.normal(size=(16, 2, 16)).astype(np.float32),))


class Module(tf.Module):
    """Has a variable of its own and a Keras model."""

    def __init__(self) -> None:  # pylint: disable=super-init-not-called
        self.own = tf.Variable(tf.random.normal((16, 24)))
        self.model = keras.Sequential([keras.Input((16,)), layers.Dense(24)])

    @tf.function(input_signature=[SPEC])
    def __call__(self, x: Any) -> Any:
        """Both."""
        return x @ self.own + self.model(x)


def function() -> Case:
    own = tf.Variable(tf.random.normal((16, 24)))

    @tf.function(input_signature=[SPEC])
    def product(x: Any) -> Any:
        return x @ own

    return Case(product, (X,))


def of_tf_keras() -> Case:
    import tf_keras

    stack = [tf_keras.Input((16,), name="x"), tf_keras.layers.Dense(64), tf_keras.layers.BatchNormalization()]
    return Case(tf_keras.Sequential(stack), (X,))


def held_twice() -> Case:
    """A folder as Keras itself writes it."""
    archive = keras.export.ExportArchive()
    model = dense().model
    archive.track(model)
    archive.add_endpoint("serving_default", model.__call__, input_signature=[SPEC])
    archive.write_out("twice", verbose=False)
    return Case("twice", (X,))


def of_tensorflow_1() -> Case:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 16], name="x")
        matrix = v1.get_variable("matrix", [16, 24], use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, "first", {"x": x}, {"y": x @ matrix})
    return Case("first", (X,))


CASES: dict[str, Callable[[], Case]] = {
    "dense": dense,
    "convolutions": convolutions,
    "recurrent": recurrent,
    "attention": attention,
    "shared and nested": shared_and_nested,
    "subclassed": subclassed,
    "tables": tables,
    "stateful": noisy_states,
    "module": lambda: Case(Module(), (X,)),
    "function": function,
    "tf_keras": of_tf_keras,
    "held twice": held_twice,
    "TensorFlow 1": of_tensorflow_1,
}

NOT_COMPILED = {"tables", "TensorFlow 1"}
"""What XLA cannot compile: text, and graphs without functions."""


Exported: TypeAlias = tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]


def exported(case: Case) -> Exported:
    """A plain version of a model, rows for it, and its answers for them."""
    source = prepare_source(case.model, example=None if isinstance(case.model, str) else case.rows[0])
    path = export_version(source, "models", "model").path.absolute()
    (signature,) = read_signatures(path).values()
    names = [spec.name for spec in source.inputs] or list(signature.inputs)
    rows = dict(zip(names, case.rows, strict=True))
    expected = live_outputs(source, rows) if source.call else run_session(path, rows)
    return path, rows, expected


def run_session(path: Path, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As TensorFlow Serving does: a session that runs the restore and the init op."""
    servable = SavedModelServable(path)
    try:
        return dict(servable.run("serving_default", rows))
    finally:
        servable.close()


def run_loaded(path: Path, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As TensorFlow's own loader for Python does."""
    loaded = tf.saved_model.load(str(path))
    found = loaded.signatures["serving_default"](**{name: tf.constant(array) for name, array in rows.items()})
    return {name: value.numpy() for name, value in found.items()}


@pytest.fixture(scope="module")
def version_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """The plain version of a case, made once for all variants of it."""

    @cache
    def make(name: str) -> Exported:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("version"))
            return exported(CASES[name]())

    return make


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, variant) for name in CASES for variant in LOSES if variant != "xla" or name not in NOT_COMPILED],
)
def test_each_loader_answers_as_the_live_model_within_what_the_variant_loses(
    version_of: Callable[[str], Exported], name: str, variant: str
) -> None:
    path, rows, expected = version_of(name)

    written = write_variant(variant, path, Path("variant"))

    assert read_variant(written.path).name == variant
    for run in (run_session, run_loaded):
        found = run(written.path, rows)
        assert found.keys() == expected.keys()
        for output, values in expected.items():
            allowed = LOSES[variant] * np.abs(values).max() + 1e-6
            np.testing.assert_allclose(found[output], values, rtol=1e-5, atol=allowed)
    before, now = (effects_of(read_meta_graph(folder), folder).notes for folder in (path, written.path))
    assert bool(now) == bool(before)
    assert read_signatures(written.path) == read_signatures(path)


SIZES = {"float16": 0.6, "int8": 0.35}
"""Variant -> the part of the plain version's files that it may take."""


@pytest.mark.parametrize("variant", SIZES)
def test_files_are_as_small_as_is_said(variant: str) -> None:
    stack = [layers.Dense(512, "relu"), layers.Dense(512, "relu"), layers.Dense(10)]
    path, _, _ = exported(Case(keras.Sequential([keras.Input((16,), name="x"), *stack]), (X,)))

    written = write_variant(variant, path, Path("variant"))

    assert written.num_bytes == folder_bytes(Path("variant"))
    assert written.num_bytes < SIZES[variant] * folder_bytes(path)


def test_the_live_model_and_the_plain_version_stay_as_they_are() -> None:
    case = dense()
    before = [np.array(one) for one in case.model.get_weights()]
    path, _, _ = exported(case)
    files = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    for variant in LOSES:
        write_variant(variant, path, Path(variant))

    assert [one.tobytes() for one in case.model.get_weights()] == [one.tobytes() for one in before]
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == files


def test_what_weights_are_read_as_is_what_servers_compute_with() -> None:
    path, _, _ = exported(dense())
    for variant, pack in (("float16", to_float16), ("int8", to_int8)):
        plain, packed = Weights(path), Weights(write_variant(variant, path, Path(variant)).path)

        assert [one.name for one in packed.model_variables] == [one.name for one in plain.model_variables]
        for one in plain.model_variables:
            stored = pack(plain.read(one.key)) if len(one.shape) > 1 and one.num_values >= 256 else plain.read(one.key)
            expected = stored if isinstance(stored, np.ndarray) else stored.unpacked()
            np.testing.assert_array_equal(packed.read(one.key), expected)


def test_shared_weights_are_stored_once_and_state_and_statistics_are_left_alone() -> None:
    path, _, _ = exported(noisy_states())
    stateful = Weights(write_variant("int8", path, Path("stateful")).path)
    reader = tf.train.load_checkpoint("stateful/variables/variables")
    kept = [key for key in stateful.variables if reader.has_tensor(key)]
    shared = Weights(write_variant("int8", exported(shared_and_nested())[0], Path("shared")).path)

    parts = {part for one in stateful.variables.values() for part in one.name.split("/")}
    assert "kernel" in parts
    assert any(part.startswith("lstm") for part in parts)  # Keras counts the layers of a process
    assert len([key for key in kept if stateful.variables[key].shape == (16, 16)]) == 2  # both states
    assert len([one for one in shared.model_variables if one.name.endswith("kernel")]) == 2


def test_a_loaded_variant_can_be_trained_and_saved_again() -> None:
    path, rows, expected = exported(Case(keras.Sequential([keras.Input((16,), name="x"), layers.Dense(24)]), (X,)))
    loaded = tf.saved_model.load(str(write_variant("float16", path, Path("variant")).path))

    for one in loaded.trainable_variables:
        one.assign(2.0 * one)
    tf.saved_model.save(loaded, "again", signatures=loaded.signatures["serving_default"])

    assert sorted(one.shape.rank for one in loaded.trainable_variables) == [1, 2]
    (output,) = expected.values()
    for run in (run_session, run_loaded):
        (found,) = run(Path("again"), rows).values()
        np.testing.assert_allclose(found, 2.0 * output, rtol=1e-2, atol=1e-2)


def test_variants_of_one_model_can_be_loaded_side_by_side() -> None:
    path, rows, _ = exported(function())
    loaded = [tf.saved_model.load(str(write_variant(name, path, Path(name)).path)) for name in ("float16", "int8")]

    answers = [one.signatures["serving_default"](**rows) for one in loaded]

    (first,), (second,) = (one.values() for one in answers)
    assert not np.array_equal(first, second)


def spoiled(value: float) -> Case:
    """Two matrices, of which one holds something that cannot be packed."""
    model = keras.Sequential([keras.Input((16,), name="x"), layers.Dense(32, "relu"), layers.Dense(16)])
    kernel, *_ = model.layers[1].get_weights()
    kernel[0, 0] = value
    model.layers[1].set_weights([kernel, np.zeros(16, np.float32)])
    return Case(model, (X,))


@pytest.mark.parametrize(
    ("variant", "value", "why"),
    [
        ("float16", 1e5, "it holds 1e\\+05, and float16 ends at 65504"),
        ("int8", np.inf, "it holds NaN or infinity"),
        ("int8", np.nan, "it holds NaN or infinity"),
    ],
)
def test_a_weight_that_cannot_be_packed_stays_and_is_named(variant: str, value: float, why: str) -> None:
    path, rows, _ = exported(spoiled(value))

    written = write_variant(variant, path, Path("variant"))

    assert re.fullmatch(f"\\S*dense\\S*/kernel stays float32: {why}", written.notes[0])
    reader = tf.train.load_checkpoint("variant/variables/variables")
    dtypes = sorted(dtype.name for dtype in reader.get_variable_to_dtype_map().values())
    assert dtypes.count(variant) == 1
    np.testing.assert_allclose(
        run_loaded(written.path, rows)["output_0"], run_session(written.path, rows)["output_0"], rtol=1e-5, atol=1e-5
    )


def test_tiny_weights_are_no_float16() -> None:
    assert to_float16(np.full((16, 16), 1e-7, np.float32)) == (
        "it holds nothing above 1e-07, where float16 has too few numbers"
    )
    assert isinstance(to_float16(np.zeros((16, 16), np.float32)), Packed)
    np.testing.assert_array_equal(to_int8(np.zeros((16, 16), np.float32)).unpacked(), 0.0)  # type: ignore[union-attr]


@given(
    hypothesis.extra.numpy.arrays(
        np.float32,
        hypothesis.extra.numpy.array_shapes(min_dims=2, max_dims=4, max_side=9),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_int8_is_off_by_half_a_step_of_its_scale(weight: np.ndarray) -> None:
    packed = to_int8(weight)

    assert isinstance(packed, Packed)
    assert packed.scale is not None
    assert np.abs(packed.values.astype(np.int32)).max(initial=0) <= 127
    assert (np.abs(packed.unpacked() - weight) <= 0.501 * packed.scale).all()


@pytest.mark.parametrize(
    ("model", "variant", "why"),
    [
        (
            lambda: keras.Sequential([keras.Input((2,)), layers.Dense(1)]),
            "float16",
            "nothing of this model can be stored",
        ),
        (lambda: of_tensorflow_1().model, "xla", "its graph has no function that XLA could compile"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(model: Any, variant: str, why: str) -> None:
    path = export_version(model(), "models", "model").path

    with pytest.raises(InvalidOption, match=why):
        write_variant(variant, path, Path("variant"))

    assert not Path("variant").exists()


def test_a_variant_is_made_of_plain_versions_only() -> None:
    path, _, _ = exported(function())
    first = write_variant("float16", path, Path("first")).path

    with pytest.raises(InvalidOption, match=r"first is a variant already \(float16\)"):
        write_variant("int8", first, Path("second"))


# ---------------------------------------------------------------- deployed


def outlier() -> tuple[Any, np.ndarray]:
    """A classifier that int8 makes useless: each row and column of its matrix holds numbers that are much larger.

    What they add cancels out in the rows given, so that the small numbers decide.
    """
    model = keras.Sequential([keras.Input((32,), name="x"), layers.Dense(16, use_bias=False)])
    kernel = RANDOM.normal(size=(32, 16)).astype(np.float32)
    kernel[range(32), [place % 16 for place in range(32)]] = 1000.0
    model.layers[0].set_weights([kernel])
    half = RANDOM.normal(size=(40, 16)).astype(np.float32)
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    return model, np.concatenate([half, -half], axis=1)


def test_a_variant_that_answers_otherwise_is_not_deployed_and_the_version_before_answers_on() -> None:
    model, rows = outlier()
    handle = tfserve_nb.deploy(model, "net")
    before = handle.predict(rows)

    with pytest.raises(VariantFailed, match="(?s)int8 was not deployed: .* of 40 rows .*output_0 +scores") as caught:
        tfserve_nb.deploy(model, "net", optimize="int8", check=rows)

    assert "--tolerance" in caught.value.hint
    assert handle.versions == (1,)
    assert [entry.name for entry in Path("tfserve_models/net").iterdir()] == ["1"]
    np.testing.assert_array_equal(handle.predict(rows), before)
    assert tfserve_nb.deploy(model, "net", optimize="float16", check=rows).variant == "float16"


@pytest.mark.parametrize(
    ("variant", "isolate"), [("float16", False), ("int8", False), ("xla", False), ("float16", True)]
)
def test_a_deployed_variant_says_what_it_is_wherever_one_looks(
    monkeypatch: pytest.MonkeyPatch, variant: str, isolate: bool
) -> None:
    events: list[ProgressEvent] = []
    model = dense().model
    right = model.predict(X, verbose=0).argmax(axis=1)
    options = {"optimize": variant, "check": X, "labels": right, "max_batch_size": 8}  # XLA compiles for each size
    if isolate:  # its server starts without TensorFlow
        convert_here(monkeypatch)
        options["engine"] = "onnx"

    handle = tfserve_nb.deploy(model, "net", isolate=isolate, progress=events.append, **options)

    said = next(event.detail for event in events if event.phase == "optimizing" and event.done)
    assert said.startswith(f"{variant}: 6 of 6 rows agree (the rows of --check), largest difference ")
    assert "accuracy 1 (before 1)" in said
    (status,) = handle.status().versions
    assert (status.variant, handle.variant, handle.provenance(1).variant) == (variant,) * 3
    assert any(note.startswith(f"{variant}: 6 of 6 rows agree") for note in status.notes)
    np.testing.assert_allclose(handle.predict(X), model(X), atol=1e-2)
    assert variant in versions_table(handle.status(), handle.metrics())
    tfserve_nb.shutdown()
    (again,) = tfserve_nb.resume(isolate=isolate)
    assert again.variant == variant


@pytest.mark.parametrize("engine", ["onnx", "litert"])
@pytest.mark.parametrize("variant", ["float16", "int8"])
def test_engines_run_a_variant(monkeypatch: pytest.MonkeyPatch, variant: str, engine: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "litert": "ai_edge_litert"}[engine])
    convert_here(monkeypatch)
    model = dense().model

    handle = tfserve_nb.deploy(model, "net", optimize=variant, engine=engine, check=X)

    assert (handle.variant, handle.engine) == (variant, engine)
    with_engine = handle.predict(X)
    handle.set_engine("tensorflow")
    np.testing.assert_allclose(handle.predict(X), with_engine, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(with_engine, model(X), atol=1e-2)


def test_a_callback_deploys_variants() -> None:
    model = dense().model

    model.fit(X, np.eye(8)[:6], verbose=0, callbacks=[tfserve_nb.DeployCallback("net", optimize="int8", check=X)])

    assert [one.variant for one in tfserve_nb.deployment("net").status().versions] == ["int8"]


def test_without_rows_of_the_user_the_agreement_is_unknown_and_that_is_said() -> None:
    handle = tfserve_nb.deploy(dense().model, "net", optimize="float16")

    (status,) = handle.status().versions
    (said,) = [note for note in status.notes if note.startswith("float16: ")]
    assert "agreement unknown, since only made-up rows were compared" in said


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"optimize": "float8"}, "optimize='float8' must be one of float32, float16, int8"),
        ({"labels": np.zeros(6)}, "labels are compared with what a variant answers"),
        (
            {"optimize": "int8", "check": X, "labels": np.zeros(5)},
            "labels: what --check gave had 6 rows, and labels of",
        ),
        ({"kind": "regression"}, "kind set how outputs are compared, and nothing is replayed or optimized"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidOption, match=complaint):
        tfserve_nb.deploy(dense().model, "net", **options)

    assert not list(Path("tfserve_models").glob("net/*"))


@pytest.mark.parametrize(("flags", "is_missing"), [({"avx2", "fma"}, True), ({"avx512_bf16"}, False)])
def test_bfloat16_is_for_processors_that_have_it(flags: set[str], is_missing: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(bfloat16, "_processor_flags", lambda: frozenset(flags))

    assert bool(VARIANTS["bfloat16"].missing) == is_missing
    if is_missing:
        with pytest.raises(InvalidOption, match=r"optimize='bfloat16': .*the processor has none of avx512_bf16, amx_"):
            tfserve_nb.deploy(dense().model, "net", optimize="bfloat16")


def test_bfloat16_computes_on_a_copy_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run here without such a processor: slowly, and with the same answers."""
    monkeypatch.setattr(bfloat16, "_processor_flags", lambda: frozenset({"avx512_bf16"}))
    model = dense().model
    weights, policies = model.get_weights(), [layer.dtype_policy.name for layer in model.layers]

    handle = tfserve_nb.deploy(model, "net", optimize="bfloat16", check=X, kind="classification")

    assert handle.variant == "bfloat16"
    assert b"Cast" in Path("tfserve_models/net/1/saved_model.pb").read_bytes()
    np.testing.assert_allclose(handle.predict(X), model(X), atol=0.05)
    assert policies == [layer.dtype_policy.name for layer in model.layers]
    for before, now in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, now)
    with pytest.raises(InvalidOption, match="is for Keras models of TensorFlow in memory, and that is tf.function"):
        tfserve_nb.deploy(function().model, "other", optimize="bfloat16")
    with pytest.raises(InvalidOption, match="is made from the Keras model in memory, and this is a version"):
        write_variant("bfloat16", exported(dense())[0], Path("variant"))


def test_a_model_of_tensorflow_lite_computes_in_int8_and_is_served() -> None:
    pytest.importorskip("ai_edge_litert")
    model = convolutions().model
    rows = RANDOM.normal(size=(32, 12, 12, 3)).astype(np.float32)

    handle = tfserve_nb.deploy(model, "net", optimize="tflite-int8", check=rows, tolerance=0.5)

    (status,) = handle.status().versions
    assert (status.variant, status.engine, handle.provenance(1).variant) == ("tflite-int8", "litert", "tflite-int8")
    assert [file.name for file in Path("tfserve_models/net/1").iterdir() if file.is_file()] == ["model.tflite"]
    expected = np.asarray(model(rows[:3]))
    np.testing.assert_allclose(handle.predict(rows[:3]), expected, atol=0.1 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("case", "rows", "why"),
    [
        (dense, False, "finds the ranges of its numbers from rows of yours, and there are none"),
        (noisy_states, True, "a run changes its own state .*, which LiteRT cannot keep"),
        (tables, True, "LiteRT cannot convert this model: "),
    ],
)
def test_what_tensorflow_lite_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, case: Callable[[], Case], rows: bool, why: str
) -> None:
    pytest.importorskip("ai_edge_litert")

    def run_here(_: str, arguments: tuple[str, ...], *__: object, **___: object) -> str:
        try:
            tflite.main(arguments)
        except Exception as error:  # noqa: BLE001 - of the converter, whatever it is
            return f"the converter ended: {error}"
        return ""

    monkeypatch.setattr(tflite, "run_limited", run_here)  # a process that imports TensorFlow takes longer than all else
    path, given, _ = exported(case())

    with pytest.raises(InvalidOption, match=f"optimize='tflite-int8'.*{why}"):
        write_variant("tflite-int8", path, Path("variant"), rows=given if rows else None)

    assert not Path("variant").exists()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("free_memory", lambda: 100 << 20, "converting may take 900 MiB of memory, and 100 MiB are free"),
        ("SHARE", 1e-9, "it took more than 0 MiB of memory to convert"),
        ("LIMIT_S", 0.0, "it took too long to convert"),
    ],
)
def test_a_conversion_to_tensorflow_lite_has_limits(monkeypatch: Any, name: str, value: Any, why: str) -> None:
    pytest.importorskip("ai_edge_litert")
    path, rows, _ = exported(dense())
    monkeypatch.setattr(tflite, name, value)

    with pytest.raises(InvalidOption, match=f"optimize='tflite-int8'.*{why}"):
        write_variant("tflite-int8", path, Path("variant"), rows=rows)


def test_auto_takes_what_agrees_on_the_rows_of_the_user_and_else_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = outlier()
    events: list[ProgressEvent] = []
    probe_here(monkeypatch)

    handle = tfserve_nb.deploy(model, "net", optimize="auto", check=rows, progress=events.append)
    tfserve_nb.deploy(model, "other", optimize="auto", progress=events.append)

    said = [event.detail for event in events if event.phase == "optimizing" and event.done == event.total]
    assert any(" of float32, float16, int8, xla: " in text for text in said)
    assert handle.variant in ("float32", "float16", "xla")  # int8 does not agree
    assert said[-1] == "float32: auto chose none, since it is chosen on rows of yours (--check)"
    assert tfserve_nb.deployment("other").variant == "float32"


def test_auto_does_not_write_again_what_it_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(made: list[MadeVariant], *_: Any) -> list[VariantMeasurement]:
        return [
            VariantMeasurement(one.name, "tensorflow", disk_bytes=1, ms={1: 1.0}, is_chosen=one.name == "float16")
            for one in made
        ]

    monkeypatch.setattr(optimize, "measure_variants", measured)
    monkeypatch.setattr(optimize, "choose", lambda rows: rows)
    monkeypatch.setattr(optimize, "write_variant", None)  # what is asked for by its name

    handle = tfserve_nb.deploy(dense().model, "net", optimize="auto", check=X)

    assert handle.variant == "float16"
    assert read_variant(Path("tfserve_models/net/1")).name == "float16"
    assert [one.name for one in Path("tfserve_models/net").iterdir()] == ["1"]


def test_auto_does_not_ask_for_rows_where_they_would_not_help() -> None:
    case, events = noisy_states(), list[ProgressEvent]()

    handle = tfserve_nb.deploy(case.model, "net", optimize="auto", check=case.rows[0], progress=events.append)

    (said,) = [event.detail for event in events if event.phase == "optimizing"]
    assert said.startswith("float32: auto chose none, since a run changes its own state (")
    assert "--check" not in said
    assert handle.variant == "float32"


def test_numbers_of_a_regression_are_let_through_by_the_tolerance_given() -> None:
    model = keras.Sequential([keras.Input((16,), name="x"), layers.Dense(64), layers.Dense(2)])

    with pytest.raises(VariantFailed, match="of 6 rows disagree"):
        tfserve_nb.deploy(model, "net", optimize="int8", check=X, tolerance=1e-5)
    handle = tfserve_nb.deploy(model, "net", optimize="int8", check=X, tolerance=0.2)

    assert handle.variant == "int8"
