"""Make requests of different lengths fit into one batch, as TensorFlow Serving does.

Thread: any; a pure function.
"""

from __future__ import annotations

import numpy as np

from ...errors import RunRejected


def pad_variable_length(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Make arrays of different inner dimensions as large as the largest, each filled up with its own first element.

    Args:
        arrays: each `(b_i, ...)`, of equal rank from 1 to 6.

    Raises:
        RunRejected: for other ranks, or when an array without elements has to be filled up.

    Reference: TensorFlow Serving's batching_util.cc.
    """
    ranks = {array.ndim for array in arrays}
    if len(ranks) != 1 or not 1 <= arrays[0].ndim <= 6:
        raise RunRejected("Only tensors with rank from 1 to 6 can be padded.")
    inner = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
    padded = []
    for array in arrays:
        if array.shape[1:] == inner:
            padded.append(array)
            continue
        if not array.size:
            raise RunRejected("Got empty tensor in batch of non-empty tensors.")
        larger = np.full((len(array), *inner), array.flat[0], dtype=array.dtype)
        larger[tuple(slice(size) for size in array.shape)] = array
        padded.append(larger)
    return padded
