"""TensorFlow is imported when it is needed, and its protobuf messages before.

The messages are modules below the package `tensorflow`, whose own code imports all of TensorFlow: seconds, and hundreds
of MiB. `postpone` puts that package in its place without running its code. Messages are imported as ever; the first
look at anything else of it, `tf.Graph` for example, runs the code, in the same module. That code imports Keras too,
with all that Keras finds installed; here Keras comes when it is asked for, which who runs sessions never does.

For processes of our own only. A kernel's modules belong to its user.

Thread: any. Who needs TensorFlow while another thread imports it waits for that.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any  # TensorFlow, and what is in it

_PACKAGE = "tensorflow"
_KERAS = "keras.src"
"""What all of Keras' modules import: TensorFlow goes on without Keras where it is not to be had."""
_IN_TENSORFLOW = frozenset({"__version__", "__internal__", "__operators__"})
"""Names of TensorFlow's own among those that tools look for in every module."""


class _Postponed(ModuleType):
    """The package before its code has run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _IN_TENSORFLOW:
            raise AttributeError(name)
        with _lock:
            if self.__class__ is _Postponed:
                self._run(name)
        return getattr(self, name)

    def _run(self, name: str) -> None:
        """Run the package's code; its own looks at what it has not made yet fail as they do in any import."""
        spec = self.__spec__
        if getattr(_importing, "is_here", False) or spec is None or spec.loader is None:
            raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
        _importing.is_here = True
        hides_keras = sys.modules.setdefault(_KERAS, None) is None  # type: ignore[arg-type]  # cannot be imported
        try:
            spec.loader.exec_module(self)
        finally:
            _importing.is_here = False
            if hides_keras:
                del sys.modules[_KERAS]
        ModuleType.__setattr__(self, "__class__", ModuleType)


_lock = threading.RLock()
_importing = threading.local()


def postpone() -> None:
    """Let TensorFlow's messages be imported without it, unless it is imported already. Idempotent."""
    spec = importlib.util.find_spec(_PACKAGE) if _PACKAGE not in sys.modules else None
    if spec is not None:
        package = importlib.util.module_from_spec(spec)
        package.__class__ = _Postponed
        sys.modules[_PACKAGE] = package


def loaded() -> Any:
    """TensorFlow, if this process has imported it, whole or in part by a thread that is not through yet; else None."""
    package = sys.modules.get(_PACKAGE)
    return None if isinstance(package, _Postponed) else package
