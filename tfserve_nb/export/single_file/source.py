"""Models that are one file of another runtime than TensorFlow, as something that can be written as a version.

A version of such a model is a folder with `model.onnx` or `model.tflite`. TensorFlow does not run it, so nothing of it
is converted or compared: the file is the truth.

Thread: any.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any  # ONNX's messages

from ...errors import ModelNotServable, NotAvailable
from ..endpoint import ExportSource, SingleFile
from ..signatures import SAVED_MODEL_FILE, SAVED_MODEL_TEXT_FILE
from .onnx_file import INSTALLATION, OnnxFile

ONNX_FILE, TFLITE_FILE = "model.onnx", "model.tflite"
"""What the file is called in a version's folder: as other servers call it."""

SUFFIXES = (".onnx", ".tflite")

_TFLITE_MARK = b"TFL3"


def single_file(folder: Path) -> Path | None:
    """The model of a version's folder that is one file; None where there is a SavedModel, or nothing."""
    if any((folder / name).is_file() for name in (SAVED_MODEL_FILE, SAVED_MODEL_TEXT_FILE)):
        return None
    return next((folder / name for name in (ONNX_FILE, TFLITE_FILE) if (folder / name).is_file()), None)


def file_of(path: Path) -> Path | None:
    """The model that a path of a user names, if it is one file: itself, or that of a version's folder."""
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return path
    return single_file(path)


def name_of(path: Path) -> str:
    """What a model is called that a path of a user names: its file without the suffix, or its folder."""
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def file_source(path: Path) -> ExportSource:
    """Make a file deployable.

    Args:
        path: of an `.onnx` or a `.tflite` file.

    Raises:
        ModelNotServable: if it is none, or lacks what belongs to it.
        NotAvailable: if what runs it is not installed.
    """
    return _onnx_file_source(path) if path.suffix.lower() == ".onnx" else _tflite_source(path)


def is_onnx_model(value: object) -> bool:
    """Whether a value is a loaded ONNX model; ONNX is not imported for this."""
    onnx = sys.modules.get("onnx")
    return onnx is not None and isinstance(value, onnx.ModelProto)


def onnx_source(model: Any) -> ExportSource:
    """Make a loaded ONNX model deployable.

    Args:
        model: an `onnx.ModelProto`.

    Raises:
        ModelNotServable: if its weights lie in other files, whose folder it does not know.
        NotAvailable: if ONNX Runtime is not installed.
    """
    called = f"ONNX model {model.graph.name!r}"
    check_onnx_runs(called)
    hint = "onnx.save(model, 'model.onnx'), and deploy the file: %deploy model.onnx"
    try:
        content: bytes = model.SerializeToString()
    except Exception as error:  # protobuf's: a message of more than 2 GiB
        raise ModelNotServable(f"{called} is too large for one file: {error}", hint=hint) from error
    file = OnnxFile(content, called)
    if file.external:
        raise ModelNotServable(f"{called} has its weights in another file: {file.external[0]}", hint=hint)

    def write(folder: Path) -> None:
        (folder / ONNX_FILE).write_bytes(content)

    return ExportSource(f"{called} ({file.made_by})", file=SingleFile("onnx", write))


def _onnx_file_source(path: Path) -> ExportSource:
    called = f"ONNX model {path}"
    check_onnx_runs(called)
    file = OnnxFile.read(path)
    beside = {location: path.parent / location for location in file.external}
    for location, place in beside.items():
        if not place.is_file():
            raise ModelNotServable(
                f"{called} has weights in the file {location!r}, which is not beside it: {place} does not exist",
                hint="copy all files of the model into one folder",
            )

    def write(folder: Path) -> None:
        for location, place in {ONNX_FILE: path, **beside}.items():
            (folder / location).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place, folder / location)

    return ExportSource(f"{called} ({file.made_by})", file=SingleFile("onnx", write))


def _tflite_source(path: Path) -> ExportSource:
    called = f"TensorFlow Lite model {path}"
    _check_installed(called, "ai_edge_litert", "pip install 'tfserve_nb[litert]'")
    with path.open("rb") as stream:
        if stream.read(8)[4:] != _TFLITE_MARK:
            raise ModelNotServable(f"{path} is no TensorFlow Lite model, or is damaged", hint="convert it again")

    def write(folder: Path) -> None:
        shutil.copyfile(path, folder / TFLITE_FILE)

    return ExportSource(called, file=SingleFile("litert", write))


def check_onnx_runs(called: str) -> None:
    """See that ONNX models can be run here.

    Args:
        called: the model, for messages.

    Raises:
        NotAvailable: with what installs ONNX Runtime.
    """
    _check_installed(called, "onnxruntime", INSTALLATION)


def _check_installed(called: str, runtime: str, installation: str) -> None:
    if importlib.util.find_spec(runtime) is None:
        raise NotAvailable(f"{called} is run by {runtime}, which is not installed", hint=installation)
