"""`python -m tfserve_nb`, the same as `tfserve-nb`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
