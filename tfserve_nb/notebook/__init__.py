"""IPython: the magics, how a cell's body runs, completion, and how objects are displayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any  # IPython's list of configurables

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load(shell: InteractiveShell) -> None:
    """Register magics, completion and displays with a shell."""
    from . import completion, display
    from .magics import DeployMagics

    magics = DeployMagics(shell=shell)
    shell.register_magics(magics)
    configurables: list[Any] = shell.configurables  # what %config offers; annotated as if shells were all
    configurables.append(magics)
    completion.register(shell)
    display.register(shell)


def unload(shell: InteractiveShell) -> None:
    """Stop serving and remove all that `load` registered; files and stored state stay."""
    from ..api.servers import shutdown
    from . import completion, display
    from .magics import DeployMagics

    display.unregister(shell)
    completion.unregister(shell)
    for kind in ("line", "cell"):
        for name in DeployMagics.magics[kind]:
            shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(DeployMagics.__name__, None)
    shell.configurables[:] = [one for one in shell.configurables if not isinstance(one, DeployMagics)]
    shutdown()
