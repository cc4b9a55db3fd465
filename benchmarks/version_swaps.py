"""The memory of a serving process while each new version replaces the one before.

Usage: python benchmarks/version_swaps.py MODEL SWAPS
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np


def resident_mib() -> float:
    """Memory of this process in RAM."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Deploy, ask, delete what is not loaded any more."""
    import tfserve_nb

    model, num_swaps = sys.argv[1], int(sys.argv[2])
    row = np.load(Path(model).parent.with_suffix(".x.npy"))[:1]
    after: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number in range(1, num_swaps + 1):
            deployment = tfserve_nb.deploy(model, "bench", base_path="served")
            for _ in range(20):
                deployment.predict(row)
            for version in Path("served/bench").iterdir():
                if version.name.isdigit() and int(version.name) not in deployment.versions:
                    shutil.rmtree(version)
            if number == 10:
                after["mib_after_10"] = resident_mib()
        after["mib_at_end"], after["swaps"] = resident_mib(), num_swaps
        ctypes.CDLL(None).malloc_trim(0)
        after["mib_at_end_trimmed"] = resident_mib()  # without what the C library keeps for later
        tfserve_nb.shutdown()
    print(json.dumps(after))
    return 0


if __name__ == "__main__":
    sys.exit(main())
