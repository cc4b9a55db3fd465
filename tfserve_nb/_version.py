"""The version of the package, read by the build and by `tfserve_nb.__version__`."""

from __future__ import annotations

__version__ = "0.1.0"
