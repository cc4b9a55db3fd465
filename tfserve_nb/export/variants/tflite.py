"""A version as a TensorFlow Lite model that computes in int8, with float32 in and out.

The ranges of all tensors inside of it are found by running real rows. The converter and the first run are in a process
of their own, since both may end it: `python -m tfserve_nb.export.variants.tflite FOLDER SIGNATURE ROWS FILE`.

Thread: the caller's, which waits and may be interrupted.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ...errors import InvalidOption
from ...temporary import TemporaryFolder
from ...types import Tensors
from ..graph.effects import effects_of
from ..reasons import shorten
from ..signatures import main_signature, read_meta_graph, read_signatures
from ..single_file.source import TFLITE_FILE

LIMIT_S = 480.0
"""How long a conversion may take, in seconds."""

MOST_ROWS = 128
"""Rows that ranges are found from; more of them change little."""

_NAME = "optimize='tflite-int8'"


def missing() -> str:
    """What is not installed to run it, with what installs it; "" for nothing."""
    is_there = importlib.util.find_spec("ai_edge_litert") is not None
    return "" if is_there else "LiteRT is not installed: pip install 'tfserve_nb[litert]'"


def write_tflite(folder: Path, target: Path, rows: Tensors | None) -> None:
    """Write `model.tflite`.

    Args:
        folder: the version.
        target: an existing folder.
        rows: real rows for its main signature.

    Raises:
        InvalidOption: if it cannot be made of this version.
    """
    if rows is None:
        raise InvalidOption(
            f"{_NAME} finds the ranges of its numbers from rows of yours, and there are none",
            hint="--check VARIABLE with some hundred rows",
        )
    signatures = read_signatures(folder)
    signature = main_signature(signatures)
    if len(signatures) > 1:
        raise InvalidOption(
            f"{_NAME} holds one signature, and this version has {', '.join(signatures)}", hint="--optimize int8"
        )
    effects = effects_of(read_meta_graph(folder), folder)
    if effects.lasting:
        raise InvalidOption(f"{_NAME}: {effects.lasting}, which LiteRT cannot keep", hint="--optimize int8")
    with TemporaryFolder("tfserve-variant") as place:
        given = place.path / "rows.npz"
        np.savez(given, *(rows[name][:MOST_ROWS] for name in signature.inputs))
        problem = _convert(folder, signature.name, given, target / TFLITE_FILE)
    if problem:
        raise InvalidOption(f"{_NAME}: LiteRT cannot convert this model: {shorten(problem)}", hint="--optimize int8")


def _convert(folder: Path, signature: str, rows: Path, file: Path) -> str:
    """Convert in a process of its own; why that failed, in words."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", f"{__package__}.tflite", str(folder), signature, str(rows), str(file)]
    try:
        done = subprocess.run(  # noqa: S603 - our own module, in this interpreter
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {LIMIT_S:g} s"
    if done.returncode < 0:
        return f"the converter was ended by signal {-done.returncode}"
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return "" if done.returncode == 0 else next(iter(lines[-1:]), "the converter ended without a word")


def main(arguments: Sequence[str]) -> int:
    """Convert one signature, and run what came out once."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    folder, signature, given, file = arguments
    with np.load(given) as stored:
        rows = dict(zip(read_signatures(folder)[signature].inputs, stored.values(), strict=True))

    def one_by_one() -> Iterator[dict[str, np.ndarray]]:
        for place in range(max(len(array) for array in rows.values())):
            yield {name: array[place : place + 1] for name, array in rows.items()}

    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[signature])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = one_by_one
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    content = converter.convert()
    runner = Interpreter(model_content=content).get_signature_runner(signature)
    runner(**next(one_by_one()))
    Path(file).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
