"""Export: from the model in memory to a SavedModel version on disk, in the folders that TensorFlow Serving polls.

TensorFlow and Keras are imported inside functions only.
"""

from __future__ import annotations

from .check import CheckReport, compare_outputs, example_batch, live_outputs, verify_against_live
from .endpoint import ExportSource
from .layout import check_name, check_version, delete_version, list_versions, next_version, remove_stale, version_dir
from .saved_model import ExportedVersion, export_version
from .signatures import read_signatures
from .source import prepare_source

__all__ = [
    "CheckReport",
    "ExportSource",
    "ExportedVersion",
    "check_name",
    "check_version",
    "compare_outputs",
    "delete_version",
    "example_batch",
    "export_version",
    "list_versions",
    "live_outputs",
    "next_version",
    "prepare_source",
    "read_signatures",
    "remove_stale",
    "verify_against_live",
    "version_dir",
]
