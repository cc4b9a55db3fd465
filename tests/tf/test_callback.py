"""`DeployCallback` in a real `fit`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfserve_nb
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.errors import InvalidOption, ModelNotServable
from tfserve_nb.types import ProgressEvent

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras

layers = keras.layers
X = np.random.default_rng(1).standard_normal((64, 3)).astype(np.float32)
Y = X @ np.array([[1.0], [2.0], [3.0]], np.float32)


pytestmark = pytest.mark.usefixtures("own_folder")


def make(seed: int = 5) -> Any:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(4), layers.Dropout(0.2), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model


def train(callback: Any, epochs: int, model: Any = None, **options: Any) -> Any:
    model = make() if model is None else model
    model.fit(X, Y, epochs=epochs, batch_size=16, verbose=0, callbacks=[callback], **options)
    return model


class Scripted(keras.callbacks.Callback):  # type: ignore[misc]
    """Puts numbers into the logs, epoch by epoch, before the callback under test sees them."""

    def __init__(self, **series: list[float]) -> None:
        super().__init__()
        self.series = series

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs.update({name: values[epoch] for name, values in self.series.items()})


def fit_scripted(callback: Any, **series: list[float]) -> Deployment:
    model = make()
    epochs = len(next(iter(series.values())))
    model.fit(X, Y, epochs=epochs, batch_size=64, verbose=0, callbacks=[Scripted(**series), callback])
    return tfserve_nb.deployment("net")


def test_each_epoch_becomes_a_staged_version_and_the_last_ones_stay() -> None:
    current = make()
    handle = tfserve_nb.deploy(current, "net")
    callback = tfserve_nb.DeployCallback("net", keep=2)

    model = train(callback, 4)

    assert callback.versions == [4, 5]
    assert [(one.epoch, one.version, one.is_promoted) for one in callback.epochs] == [
        (0, 2, False), (1, 3, False), (2, 4, False), (3, 5, False),
    ]  # fmt: skip
    assert (handle.version, handle.traffic, handle.versions) == (1, {1: 100.0}, (1, 4, 5))
    assert handle.status().on_disk == (1, 4, 5)
    np.testing.assert_allclose(handle.predict(X[:4], version=5), model(X[:4], training=False), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(handle.predict(X[:4]), current(X[:4], training=False), rtol=1e-4, atol=1e-5)


def test_every_so_many_epochs() -> None:
    callback = tfserve_nb.DeployCallback("net", every=2, keep=9)

    train(callback, 5)

    assert [one.epoch for one in callback.epochs] == [1, 3]


def test_training_is_the_same_with_and_without_it() -> None:
    plain = make()
    plain.fit(X, Y, epochs=3, batch_size=16, verbose=0)

    watched = train(tfserve_nb.DeployCallback("net"), 3)

    for one, other in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(plain.optimizer.variables, watched.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize(
    ("metric", "values", "promoted"),
    [
        ("val_accuracy", [0.5, 0.4, 0.6, 0.6], [1, 3]),
        ("val_loss", [0.5, 0.4, 0.6, 0.3], [1, 2, 4]),
        ("val_accuracy", [float("nan"), 0.1, float("nan"), 0.2], [2, 4]),
    ],
)
def test_an_epoch_that_improves_the_metric_is_promoted(metric: str, values: list[float], promoted: list[int]) -> None:
    callback = tfserve_nb.DeployCallback("net", promote_if=metric, keep=9)

    handle = fit_scripted(callback, **{metric: values})

    assert [one.version for one in callback.epochs if one.is_promoted] == promoted
    assert handle.version == promoted[-1]
    assert handle.provenance(promoted[-1]).metrics[metric] == values[promoted[-1] - 1]


def test_a_function_decides_from_the_logs_of_now_and_of_the_last_promoted() -> None:
    seen: list[tuple[float, float | None]] = []

    def much_better(logs: Mapping[str, float], best_logs: Mapping[str, float] | None) -> bool:
        seen.append((logs["score"], None if best_logs is None else best_logs["score"]))
        return best_logs is None or logs["score"] > best_logs["score"] + 1

    callback = tfserve_nb.DeployCallback("net", promote_if=much_better)
    handle = fit_scripted(callback, score=[1.0, 1.5, 3.0, 3.1])

    assert seen == [(1.0, None), (1.5, 1.0), (3.0, 1.0), (3.1, 3.0)]
    assert handle.version == 3


def test_promoted_versions_and_the_way_back_are_never_removed() -> None:
    callback = tfserve_nb.DeployCallback("net", promote_if="score", keep=1)

    handle = fit_scripted(callback, score=[1.0, 2.0, 0.0, 0.0, 0.0])

    assert callback.versions == [1, 2, 5]
    assert handle.version == 2
    assert handle.rollback().version == 1


def test_the_label_moves_to_the_newest_and_does_not_hold_the_old_ones() -> None:
    callback = tfserve_nb.DeployCallback("net", label="latest", keep=1)

    train(callback, 3)

    handle = tfserve_nb.deployment("net")
    assert handle.labels == {"latest": 3}
    assert callback.versions == [2, 3]


def test_versions_that_a_person_labelled_or_removed_are_left_to_that_person() -> None:
    class Person(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: object) -> None:
            handle = tfserve_nb.deployment("net")
            if epoch == 0:
                handle.set_label("mine", 1)
            if epoch == 1:
                handle.undeploy(2, delete=True)

    callback = tfserve_nb.DeployCallback("net", keep=1)
    make().fit(X, Y, epochs=5, verbose=0, callbacks=[callback, Person()])

    assert callback.versions == [1, 5]


def test_the_newest_gets_copies_of_the_current_versions_requests() -> None:
    handle = tfserve_nb.deploy(make(), "net")
    callback = tfserve_nb.DeployCallback("net", shadow=50, keep=1)

    train(callback, 3)

    assert handle.status().shadow == (4, 50.0)
    assert (handle.version, handle.traffic) == (1, {1: 100.0})
    assert callback.versions[-1] == 4


def test_without_stage_each_epoch_gets_all_traffic() -> None:
    callback = tfserve_nb.DeployCallback("net", stage=False, keep=2)

    train(callback, 3)

    assert tfserve_nb.deployment("net").version == 3


def test_metrics_of_the_epoch_are_stored_with_its_version() -> None:
    callback = tfserve_nb.DeployCallback("net", seed=5)

    model = train(callback, 2, validation_data=(X, Y))

    found = tfserve_nb.deployment("net").provenance(1)
    assert found.metrics == pytest.approx({name: values[0] for name, values in model.history.history.items()})
    assert found.seed == 5


def test_a_failing_deploy_is_told_once_and_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    callback = tfserve_nb.DeployCallback("net", base_path="taken")

    with pytest.warns(RuntimeWarning) as caught:
        model = train(callback, 4)

    assert len(caught) == 1
    assert "epoch 1 is not fully deployed as net: the model cannot be written to" in str(caught[0].message)
    assert len(model.history.history["loss"]) == 4
    assert callback.epochs == []


def test_a_metric_that_does_not_exist_is_told_once_and_the_epochs_are_staged() -> None:
    callback = tfserve_nb.DeployCallback("net", promote_if="val_acuracy", keep=9)

    with pytest.warns(RuntimeWarning, match="val_acuracy.*is not among the metrics of this epoch: .*loss") as caught:
        train(callback, 3)

    assert len(caught) == 1
    assert callback.versions == [1, 2, 3]


def test_a_rule_that_raises_is_told_and_does_not_end_training() -> None:
    def broken(logs: object, best_logs: object) -> bool:
        raise ZeroDivisionError("oh no")

    with pytest.warns(RuntimeWarning, match="ZeroDivisionError: oh no"):
        train(tfserve_nb.DeployCallback("net", promote_if=broken), 2)


def test_strict_lets_errors_end_the_training() -> None:
    def broken(logs: object, best_logs: object) -> bool:
        raise ModelNotServable("not this one")

    with pytest.raises(ModelNotServable, match="not this one"):
        train(tfserve_nb.DeployCallback("net", promote_if=broken, strict=True), 3)


def test_an_interrupt_ends_training_and_leaves_no_half_version() -> None:
    def interrupt(event: ProgressEvent) -> None:
        if event.phase == "checking" and interrupted:
            raise KeyboardInterrupt
        if event.phase == "done":
            interrupted.append(True)

    interrupted: list[bool] = []
    callback = tfserve_nb.DeployCallback("net", progress=interrupt)

    with pytest.raises(KeyboardInterrupt):
        train(callback, 5)

    handle = tfserve_nb.deployment("net")
    assert (callback.versions, handle.versions, handle.status().on_disk) == ([1], (1,), (1,))
    assert [path.name for path in Path("tfserve_models/net").iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"every": 0}, "every=0 must be"),
        ({"keep": True}, "keep=True must be"),
        ({"name": "a/b"}, "cannot name a model"),
        ({"promote_if": 3}, "promote_if=3 must be"),
        ({"stage": False, "promote_if": "loss"}, "stage=False and promote_if exclude each other"),
        ({"label": "a b"}, "label 'a b'"),
        ({"shadow": 120}, "120"),
        ({"canary": 10}, "stage and canary exclude each other"),
        ({"max_batch_size": 0}, "max_batch_size=0 must be"),
        ({"slo_p99_ms": 5.0}, "a staged version gets none"),
        ({"max_bach_size": 3}, "max_bach_size: no such option of a callback; there are .*max_batch_size"),
    ],
)
def test_wrong_options_are_refused_before_training(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidOption, match=complaint):
        tfserve_nb.DeployCallback(**{"name": "net", **options})


def test_making_a_callback_is_what_imports_keras() -> None:
    code = (
        "import sys, tfserve_nb; kind = tfserve_nb.DeployCallback; assert 'keras' not in sys.modules\n"
        "class Mine(kind): pass\n"
        "callbacks = kind('net'), Mine('net')\n"
        "import keras; print(*[isinstance(one, keras.callbacks.Callback) for one in callbacks])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(tfserve_nb.__file__).parents[1])}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.split() == ["True", "True"]


def test_how_long_the_next_epoch_waits_is_told() -> None:
    callback = tfserve_nb.DeployCallback("net")

    train(callback, 2)

    print("held up:", [f"{one.held_up_s:.2f} s" for one in callback.epochs])
    assert all(one.held_up_s > 0 for one in callback.epochs)
