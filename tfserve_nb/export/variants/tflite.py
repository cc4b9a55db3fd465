"""A version as a TensorFlow Lite model that computes in int8, with float32 in and out.

The ranges of all tensors inside of it are found by running real rows. The converter and the first run are in a process
of their own, since both may end it: `python -m tfserve_nb.export.variants.tflite FOLDER SIGNATURE ROWS FILE`.

Thread: the caller's, which waits and may be interrupted.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ...errors import InvalidOption
from ...limited_process import SHARE, free_memory, run_limited, too_little_memory
from ...temporary import TemporaryFolder
from ...types import Tensors
from ..graph.effects import effects_of
from ..layout import folder_bytes
from ..reasons import shorten
from ..signatures import main_signature, read_meta_graph, read_signatures
from ..single_file.source import TFLITE_FILE

LIMIT_S = 480.0
"""How long a conversion may take, in seconds."""

MOST_ROWS = 128
"""Rows that ranges are found from; more of them change little."""

_NAME = "optimize='tflite-int8'"
_PROGRAM = f"{__package__}.tflite"


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
    free = free_memory()
    problem = too_little_memory(folder_bytes(folder / "variables"), free)
    if not problem:
        with TemporaryFolder("tfserve-variant") as place:
            given = place.path / "rows.npz"
            np.savez(given, *(rows[name][:MOST_ROWS] for name in signature.inputs))
            arguments = (str(folder), signature.name, str(given), str(target / TFLITE_FILE))
            until_s, most_bytes = time.perf_counter() + LIMIT_S, int(SHARE * free)
            problem = run_limited(_PROGRAM, arguments, place.path, until_s=until_s, most_bytes=most_bytes)
    if problem:
        raise InvalidOption(f"{_NAME}: LiteRT cannot convert this model: {shorten(problem)}", hint="--optimize int8")


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
