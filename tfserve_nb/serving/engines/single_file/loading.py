"""Which servable a version's single file needs.

Thread: the manager's, or the caller's.
"""

from __future__ import annotations

from pathlib import Path

from ....export.single_file.source import ONNX_FILE, TFLITE_FILE, single_file
from ..servable import Servable
from .onnx import OnnxServable
from .tflite import TfliteServable


def load_single_file(path: Path, num_threads: int, *, prefers_tflite: bool = False) -> Servable | None:
    """A version that is one file of another runtime than TensorFlow; None for a SavedModel, and for an empty folder.

    Args:
        path: the version folder.
        num_threads: of one run.
        prefers_tflite: whether a TensorFlow Lite model goes before a SavedModel beside it.

    Raises:
        NotAvailable: if its runtime is not installed, or cannot load it.
    """
    if prefers_tflite and (path / TFLITE_FILE).is_file():
        return TfliteServable(path)
    file = single_file(path)
    if file is None:
        return None
    return OnnxServable(path, num_threads) if file.name == ONNX_FILE else TfliteServable(path)
