"""Whether an engine's outputs are TensorFlow's: by the one rule of the export's check.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ...errors import ExportFailed
from ...export.check import compare_outputs
from ...export.reasons import innermost
from ...types import Tensors
from .engine import Engine

Run: TypeAlias = Callable[[Tensors], Tensors]
"""Runs one signature."""


def difference(engine: Engine, inputs: Tensors, expected: Tensors) -> str:
    """Why an engine cannot stand in for TensorFlow on some rows, in words; "" when its outputs are the same.

    Args:
        engine: runs them.
        inputs: the rows.
        expected: TensorFlow's outputs.
    """
    try:
        compare_outputs(expected, engine.run(inputs), sides=("TensorFlow", engine.name))
    except ExportFailed as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - runtimes raise types of their own
        return f"it fails on rows that TensorFlow runs: {innermost(error)}"
    return ""
