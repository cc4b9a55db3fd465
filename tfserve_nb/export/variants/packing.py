"""What a weight becomes in fewer bytes, or why it stays as it is.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..weights import Packed

MIN_VALUES = 256
"""Smaller weights stay float32: they save nothing, and biases and scales among them add to every output."""

MIN_PER_SCALE = 8
"""Values that share a scale, at least: with fewer of them the scales take up what int8 saves."""

STEPS = 127
"""int8 from -127 to 127: symmetric, so that zero stays zero."""

MAX_ERROR = 2.0**-10
"""Of the largest value of a weight; a float16 that is no subnormal number is off by half of that at most."""


def to_float16(weight: np.ndarray) -> Packed | str:
    """A float32 weight as float16; or in words why it stays what it is."""
    is_finite = np.isfinite(weight)
    largest = float(np.abs(weight).max(initial=0.0, where=is_finite))
    if largest > float(np.finfo(np.float16).max):
        return f"it holds {largest:.3g}, and float16 ends at 65504"
    packed = Packed(weight.astype(np.float16))
    with np.errstate(invalid="ignore"):  # of two infinities
        error = float(np.abs(packed.unpacked() - weight).max(initial=0.0, where=is_finite))
    if error > MAX_ERROR * largest:
        return f"it holds nothing above {largest:.3g}, where float16 has too few numbers"
    return packed


def to_int8(weight: np.ndarray) -> Packed | str:
    """A float32 weight as int8 with a scale for each channel; or in words why it stays what it is.

    Which dimensions are channels differs: the last of a kernel, the first of an embedding, the last two of a depthwise
    convolution. The scales are taken for those that lose least.
    """
    if not np.isfinite(weight).all():
        return "it holds NaN or infinity"
    found = [_quantized(weight, axes) for axes in _shared_axes(weight.shape)]
    return min(found, key=lambda packed: float(np.square(packed.unpacked() - weight, dtype=np.float64).sum()))


def _shared_axes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The dimensions whose values share a scale, for each way of having one for every channel."""
    every = range(len(shape))
    channels = [{len(shape) - 1}, {0}, *([{len(shape) - 2, len(shape) - 1}] if len(shape) > 2 else [])]
    for kept in channels:
        axes = tuple(axis for axis in every if axis not in kept)
        if np.prod([shape[axis] for axis in axes]) >= MIN_PER_SCALE:
            yield axes
    yield tuple(every)


def _quantized(weight: np.ndarray, axes: tuple[int, ...]) -> Packed:
    # Of the smallest numbers the division may leave nothing.
    scale = np.maximum(np.abs(weight).max(axis=axes, keepdims=True) / STEPS, np.finfo(np.float32).tiny)
    scale = scale.astype(np.float32)
    return Packed(np.clip(np.rint(weight / scale), -STEPS, STEPS).astype(np.int8), scale)
