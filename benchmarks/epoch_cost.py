"""How long `DeployCallback` delays an epoch, and how much of the delay is the provenance.

    .venv/bin/python benchmarks/epoch_cost.py

Three models of different sizes; each is trained for some epochs with the callback, with and without provenance, in
turns. Printed are medians with the smallest and the largest.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tfserve_nb

EPOCHS = 4
ROUNDS = 3
MODELS = {"MLP 784→128→10": [128], "MLP 784→2048→2048→10": [2048, 2048], "MLP 784→4096→4096→10": [4096, 4096]}


def build(widths: list[int]) -> keras.Model:
    """An MLP with hidden layers of these widths."""
    hidden = [keras.layers.Dense(width, activation="relu") for width in widths]
    model = keras.Sequential([keras.Input((784,), name="x"), *hidden, keras.layers.Dense(10)])
    model.compile("sgd", "mse")
    return model


def held_up_s(model: keras.Model, *, provenance: bool) -> list[float]:
    """The delay of each epoch except the first, which includes imports and the server's start."""
    with tempfile.TemporaryDirectory() as folder:
        callback = tfserve_nb.DeployCallback("net", base_path=folder, keep=1, provenance=provenance)
        model.fit(np.ones((64, 784), np.float32), np.ones((64, 10), np.float32), epochs=EPOCHS, verbose=0,
                  callbacks=[callback])  # fmt: skip
        tfserve_nb.shutdown()
    return [one.held_up_s for one in callback.epochs[1:]]


def main() -> None:
    """Measure and print."""
    print("| model | parameters | an epoch is held up | without provenance |\n|---|---|---|---|")
    for name, widths in MODELS.items():
        model = build(widths)
        found: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(ROUNDS):
            for provenance in found:
                found[provenance] += held_up_s(model, provenance=provenance)
        cells = [
            f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})" for values in found.values()
        ]
        print(f"| {name} | {model.count_params() / 1e6:.1f} M | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    started_s = time.perf_counter()
    main()
    print(f"took {time.perf_counter() - started_s:.0f} s")
