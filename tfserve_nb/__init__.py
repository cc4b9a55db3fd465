"""Serve the Keras model that is in this notebook: `%load_ext tfserve_nb`, then `%%deploy`.

This module holds no state, because `%reload_ext` reloads it, and it alone. It imports nothing heavy: what `_MODULES`
names is imported at its first use, and the imports under `TYPE_CHECKING` are the same for editors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any  # what a name stands for

from ._version import __version__
from .errors import (
    Cancelled,
    ConfigRejected,
    DeadlineExceeded,
    ExportFailed,
    FailedPrecondition,
    InvalidOption,
    InvalidRequest,
    LabelNotFound,
    ModelNotFound,
    ModelNotServable,
    NotAvailable,
    PortInUse,
    QueueFull,
    ReplayFailed,
    RunFailed,
    RunRejected,
    ServerFailed,
    ServingError,
    Unimplemented,
    VariantFailed,
    VersionExists,
    VersionNotFound,
)

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .agreement.worst import frame_of
    from .api.ab_test import ABTest
    from .api.callback import DeployCallback
    from .api.connect import connect, deployment, resume
    from .api.deploy import deploy
    from .api.deployment import Deployment
    from .api.servers import shutdown
    from .bench.comparison import ComparisonResult
    from .bench.result import BenchmarkResult, load_result
    from .bench.sweep import SweepResult
    from .diff.result import VersionDiff
    from .replay.result import ReplayLimits, ReplayResult
    from .serving.telemetry.capture import CapturedRequests, load_captured

__all__ = [
    "ABTest",
    "BenchmarkResult",
    "Cancelled",
    "CapturedRequests",
    "ComparisonResult",
    "ConfigRejected",
    "DeadlineExceeded",
    "DeployCallback",
    "Deployment",
    "ExportFailed",
    "FailedPrecondition",
    "InvalidOption",
    "InvalidRequest",
    "LabelNotFound",
    "ModelNotFound",
    "ModelNotServable",
    "NotAvailable",
    "PortInUse",
    "QueueFull",
    "ReplayFailed",
    "ReplayLimits",
    "ReplayResult",
    "RunFailed",
    "RunRejected",
    "ServerFailed",
    "ServingError",
    "SweepResult",
    "Unimplemented",
    "VariantFailed",
    "VersionDiff",
    "VersionExists",
    "VersionNotFound",
    "__version__",
    "connect",
    "deploy",
    "deployment",
    "frame_of",
    "load_captured",
    "load_ipython_extension",
    "load_result",
    "resume",
    "shutdown",
    "unload_ipython_extension",
]

_MODULES = {
    "ABTest": "api.ab_test",
    "BenchmarkResult": "bench.result",
    "CapturedRequests": "serving.telemetry.capture",
    "ComparisonResult": "bench.comparison",
    "DeployCallback": "api.callback",
    "Deployment": "api.deployment",
    "ReplayLimits": "replay.result",
    "ReplayResult": "replay.result",
    "SweepResult": "bench.sweep",
    "VersionDiff": "diff.result",
    "connect": "api.connect",
    "deploy": "api.deploy",
    "deployment": "api.connect",
    "frame_of": "agreement.worst",
    "load_captured": "serving.telemetry.capture",
    "load_result": "bench.result",
    "resume": "api.connect",
    "shutdown": "api.servers",
}
"""Name -> the module that defines it."""


def __getattr__(name: str) -> Any:
    """Import what a name stands for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    """What users type; the folders of the package are not for them."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%load_ext tfserve_nb`."""
    from .notebook import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%unload_ext tfserve_nb` and `%reload_ext tfserve_nb`: stops serving and takes the magics away."""
    from .notebook import unload

    unload(shell)
