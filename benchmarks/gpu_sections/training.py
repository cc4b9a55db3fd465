"""A training that goes on in this process while something else is measured."""

from __future__ import annotations

import threading
import time

import numpy as np
from saved_models import keras_model


class Training:
    """`fit` of the CNN in a thread of this process, for as long as the `with` block lasts."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._num_steps = 0
        self._error: BaseException | None = None
        self._first_step = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training", daemon=True)

    def __enter__(self) -> Training:
        self._thread.start()
        self._first_step.wait()
        if self._error is not None:
            raise self._error
        self._started_s, self._num_steps = time.perf_counter(), 0
        return self

    def steps_per_s(self) -> float:
        """Steps since the first one."""
        return self._num_steps / (time.perf_counter() - self._started_s)

    def __exit__(self, *_: object) -> None:
        self._network.stop_training = True
        self._thread.join()

    def _run(self) -> None:
        try:
            self._fit()
        except Exception as error:  # noqa: BLE001 - raised where the training was asked for
            self._error = error
        finally:
            self._first_step.set()

    def _fit(self) -> None:
        import keras
        import tensorflow as tf

        def count(*_: object, **__: object) -> None:
            self._num_steps += 1
            self._first_step.set()

        with tf.device(self._device):
            self._network = keras_model("cnn")
            self._network.compile("adam", "sparse_categorical_crossentropy")
            x = np.random.default_rng(7).random((2048, 28, 28, 1), np.float32)
            y = np.zeros(len(x), np.int32)
            counting = keras.callbacks.LambdaCallback(on_train_batch_end=count)
            self._network.fit(x, y, batch_size=64, epochs=1_000_000, verbose=0, callbacks=[counting])
