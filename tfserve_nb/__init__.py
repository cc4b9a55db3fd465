"""Serve the Keras model that is in this notebook: `%load_ext tfserve_nb`, then `%%deploy`.

This module stays thin: it holds no state (`%reload_ext` reloads it, and it alone) and imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .api.deployment import Deployment
    from .serving.telemetry.captured import CapturedRequests
    from .training.callback import DeployCallback

__all__ = [
    "DeployCallback",
    "__version__",
    "connect",
    "deploy",
    "load_captured",
    "load_ipython_extension",
    "resume",
    "shutdown",
    "unload_ipython_extension",
]


def __getattr__(name: str) -> Any:
    """`DeployCallback` is a Keras class: Keras is imported when it is asked for."""
    if name == "DeployCallback":
        from .training.callback import DeployCallback

        return DeployCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def deploy(model: Any, name: str | None = None, **options: Any) -> Deployment:
    """Export a model as the next version, load it, and switch to it.

    The same as `%deploy`, for scripts and callbacks; see `tfserve_nb.api.deploy.deploy` for the options.
    """
    from .api import deploy as implementation
    from .notebook.running_cell import running_cell

    return implementation.deploy(model, name, **{"code": running_cell(), **options})


def connect(url: str, token: str | None = None, name: str | None = None) -> Deployment:
    """The handle of a model on a server elsewhere; see `tfserve_nb.api.connect.connect`."""
    from .api import connect as implementation

    return implementation.connect(url, token, name)


def resume(base_path: str | None = None, name: str | None = None) -> list[Deployment]:
    """Serve again what an earlier kernel served; the same as `%serving --resume`."""
    from .api import connect as implementation

    return implementation.resume(base_path, name)


def load_captured(path: str) -> CapturedRequests:
    """The captured requests of a file of `d.captured().save(path)`, as `d.replay(onto=V, requests=...)` takes them."""
    from .serving.telemetry import captured as implementation

    return implementation.load_captured(path)


def shutdown() -> None:
    """Stop the server of this process and free all models; files and stored state stay."""
    from .api import connect as implementation

    implementation.shutdown()


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%load_ext tfserve_nb`."""
    from .notebook import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%unload_ext tfserve_nb` and `%reload_ext tfserve_nb`: stops serving and takes the magics away."""
    from .notebook import unload

    unload(shell)
