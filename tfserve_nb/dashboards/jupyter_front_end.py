"""The Jupyter front end that shows the widgets, as far as a kernel can know it, and what is different there.

Thread: any.
"""

from __future__ import annotations

import os
import sys

_COLAB = (
    "Colab shows updates only while a cell runs, and brings clicks when none does: run %dashboard's .refresh() to "
    "look again, or .watch(30) to follow along."
)
_VS_CODE = (
    "VS Code brings clicks when no cell runs. During a long cell, %rollback and %promote have to wait too; "
    "tfserve_nb.connect from another notebook does not."
)
_VOILA = "Voilà shows what its cells draw: end the notebook with the dashboard's .watch(seconds) to keep this alive."


def advice() -> str:
    """A line about a Jupyter front end in which the dashboard is not as live as elsewhere; "" for all others."""
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return _COLAB
    if any(name in os.environ for name in ("VSCODE_PID", "VSCODE_CWD")):
        return _VS_CODE
    if "VOILA_BASE_URL" in os.environ or os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
        return _VOILA
    return ""
