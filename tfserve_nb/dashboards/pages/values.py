"""Tensors as HTML: images as images, text as text, numbers as numbers.

Thread: any; pure functions.
"""

from __future__ import annotations

import base64
import io

import numpy as np

from ...markup import text

MAX_NUMBERS = 12
MAX_CHARS = 200
MIN_SIDE, MAX_SIDE = 4, 1024
SHOWN_PX = 72


def rendered(value: np.ndarray) -> str:
    """One row of a tensor as HTML.

    Args:
        value: any shape, any dtype; without the batch dimension.
    """
    if value.dtype == object or value.dtype.kind in "SU":
        return _texts(value)
    if is_image(value):
        return _image(value)
    numbers = [
        format(number, ".4g") if value.dtype.kind in "fc" else str(number)
        for number in value.reshape(-1)[:MAX_NUMBERS].tolist()
    ]
    more = f" … {value.size} in all" if value.size > MAX_NUMBERS else ""
    return f"<code>{text(', '.join(numbers))}</code>{more}{_largest(value)}"


def is_image(value: np.ndarray) -> bool:
    """Whether an array may be an image: two sides of some length, and 1, 3 or 4 channels if there is a third."""
    if (
        value.ndim not in (2, 3)
        or value.dtype.kind not in "uif"
        or (value.ndim == 3 and value.shape[2] not in (1, 3, 4))
    ):
        return False
    return all(MIN_SIDE <= side <= MAX_SIDE for side in value.shape[:2])


def _image(value: np.ndarray) -> str:
    from PIL import Image

    if value.ndim == 3 and value.shape[2] == 1:
        value = value[:, :, 0]
    numbers = np.nan_to_num(value.astype(np.float64))
    low, high = float(numbers.min()), float(numbers.max())
    if value.dtype == np.uint8 or (low >= 0 and 1 < high <= 255):
        scaled = numbers
    elif low >= 0 and high <= 1:
        scaled = 255 * numbers
    else:
        scaled = 255 * (numbers - low) / max(high - low, 1e-12)
    target = io.BytesIO()
    Image.fromarray(scaled.round().astype(np.uint8)).save(target, format="PNG")
    height = max(16, round(SHOWN_PX * value.shape[0] / value.shape[1]))
    shape = " × ".join(str(size) for size in value.shape)
    return (
        f'<img alt="image of {shape}, values {low:.3g} to {high:.3g}" title="{shape}, {low:.3g} to {high:.3g}" '
        f'width="{SHOWN_PX}" height="{min(2 * SHOWN_PX, height)}" style="image-rendering:pixelated" '
        f'src="data:image/png;base64,{base64.b64encode(target.getvalue()).decode()}">'
    )


def _texts(value: np.ndarray) -> str:
    words = []
    for item in value.reshape(-1)[:MAX_NUMBERS]:
        try:
            word = item.decode() if isinstance(item, bytes) else str(item)
        except UnicodeDecodeError:
            words.append(f"({len(item)} bytes)")
            continue
        words.append(text(word[:MAX_CHARS]) + ("…" if len(word) > MAX_CHARS else ""))
    return "<br>".join(words)


def _largest(value: np.ndarray) -> str:
    """Which of several scores is the largest: the class that a classifier predicts."""
    if value.ndim != 1 or not 2 <= value.size <= 10_000 or value.dtype.kind != "f" or not np.isfinite(value).all():
        return ""
    place = int(value.argmax())
    return f"<br>largest: {place} ({value[place]:.3g})"
