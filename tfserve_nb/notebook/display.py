"""How a `Deployment` shows itself: text, static HTML that survives in a saved notebook, and the live widget.

IPython asks its own table of printers before the object, so the rich view is registered from here and `deployment.py`
needs to know nothing of widgets.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import sys
from typing import Any  # IPython's MIME bundles

from IPython.core.interactiveshell import InteractiveShell

from ..deployment import Deployment
from ..errors import ServingError


def register(shell: InteractiveShell) -> None:
    """Show deployments as dashboards; in a terminal they stay text."""
    if hasattr(shell, "kernel") and shell.display_formatter is not None:
        shell.display_formatter.mimebundle_formatter.for_type(Deployment, render)


def unregister(shell: InteractiveShell) -> None:
    """The inverse of `register`; open dashboards become static."""
    if shell.display_formatter is not None:
        shell.display_formatter.mimebundle_formatter.pop(Deployment, None)
    # Only if a dashboard was ever shown: unloading must not import ipywidgets.
    dashboards = sys.modules.get("tfserve_nb.dashboards")
    if dashboards is not None:
        dashboards.close_all()


def render(handle: Deployment, **_: Any) -> Any:
    """The MIME bundle of a deployment."""
    try:
        handle.status()
    except ServingError:
        return {"text/plain": repr(handle)}
    from ..dashboards import dashboard_for

    return dashboard_for(handle)._repr_mimebundle_()
