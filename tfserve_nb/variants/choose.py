"""Which variant answers best: the one rule of `%variants` and of `--optimize auto`.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..serving.engines.choice import LEAST_GAIN, gain
from ..types import VariantMeasurement


def choose(found: Sequence[VariantMeasurement]) -> list[VariantMeasurement]:
    """Mark the row that is taken.

    The fastest of those that may be deployed is taken, over all sizes of a run. Of those that are about as fast, which
    is less than `LEAST_GAIN` times slower, the one that takes the least space on the disk is.

    Args:
        found: the rows; the first is the model as it is.
    """
    usable = [row for row in found if row.is_usable]
    if not usable:
        return list(found)
    base = found[0]
    speeds = {id(row): gain(base.ms, row.ms) for row in usable}
    fastest = max(speeds.values())
    near = [row for row in usable if speeds[id(row)] * LEAST_GAIN >= fastest]
    # Equal files: what TensorFlow Serving runs too, and else what comes first.
    chosen = min(near, key=lambda row: (row.disk_bytes, not row.in_tensorflow_serving))
    return [replace(row, is_chosen=row is chosen) for row in found]
