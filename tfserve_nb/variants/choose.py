"""Which variant answers best: the one rule of `%variants` and of `--optimize auto`.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..export.variants.variants import VARIANTS
from ..serving.engines.choice import LEAST_GAIN, gain
from ..types import VariantMeasurement


def choose(found: Sequence[VariantMeasurement]) -> list[VariantMeasurement]:
    """Mark the row that is taken.

    Only what predicts the same for all rows of the user may be taken; without such rows, what is exact by its making.
    What cannot be handed over to TensorFlow Serving is for those who ask for it. Of the others the fastest is taken,
    over all sizes of a run. Of those that are about as fast, which is less than `LEAST_GAIN` times slower, the one that
    takes the least space on the disk is.

    Args:
        found: the rows; the first is the model as it is.
    """
    safe = [row for row in found if row.is_usable and row.ms and _is_safe(row)]
    if not safe:
        return list(found)
    base_ms = found[0].ms
    fastest = max(gain(base_ms, row.ms) for row in safe)
    near = [row for row in safe if gain(base_ms, row.ms) * LEAST_GAIN >= fastest]
    # Of equal files: what TensorFlow Serving runs too, and else what comes first.
    chosen = min(near, key=lambda row: (row.disk_bytes, not row.in_tensorflow_serving))
    return [replace(row, is_chosen=row is chosen) for row in found]


def _is_safe(row: VariantMeasurement) -> bool:
    variant = VARIANTS[row.variant]
    if not variant.loads_in_tensorflow_serving:
        return False
    return variant.is_exact if row.agreement is None else row.agreement == 1.0
