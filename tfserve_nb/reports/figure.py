"""What all figures share: they are built with `Figure` alone, since pyplot would change the user's own figures.

Thread: the caller's; one at a time is drawn, since matplotlib is not made for more.
"""

from __future__ import annotations

import functools
import io
import textwrap
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal  # matplotlib is imported when it is needed

A, B = "#3b82c4", "#d9822b"
"""The colours of two versions, in every figure."""
COLOURS = "viridis"
"""Of numbers that colours show."""
DPI = 110
TITLE_CHARS = 105
_DRAWING = threading.Lock()


def drawn(title: str, fill: Callable[[Any], None], *, height: float = 3.6) -> Any:
    """A matplotlib `Figure`.

    Args:
        title: plain text above it.
        fill: draws into the empty figure.
        height: in inches; the width is 9.5.
    """
    with _DRAWING:
        from matplotlib.figure import Figure

        figure: Any = Figure(figsize=(9.5, height), layout="constrained")
        figure.suptitle(plain_text("\n".join(textwrap.wrap(title, TITLE_CHARS))), fontsize=10)
        fill(figure)
        # A figure that pyplot did not make shows itself in a notebook only once pyplot has made another one.
        figure._repr_png_ = functools.partial(to_png, figure)
        return figure


def to_png(figure: Any) -> bytes:
    """A figure as PNG."""
    with _DRAWING:
        target = io.BytesIO()
        figure.savefig(target, format="png", dpi=DPI)
    return target.getvalue()


def plain_text(words: str) -> str:
    """Dollars would begin mathematics."""
    return words.replace("$", r"\$")


def tidy(axes: Any) -> None:
    """A pale grid and no frame at the top and on the right."""
    axes.grid(visible=True, alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def log_ms(axes: Any, which: Literal["x", "y"] = "y") -> None:
    """Milliseconds on a logarithmic axis. Plain numbers: matplotlib's own labels go through its mathematics parser."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{which}scale": "log", f"{which}label": "ms"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def place_text(axes: Any, words: str) -> None:
    """Text in the place of what cannot be drawn yet."""
    axes.text(0.5, 0.55, words, ha="center", va="center", fontsize=9, color="0.4", transform=axes.transAxes)


def share_bar(figure: Any, axes: Sequence[Any], span: tuple[float, float], label: str) -> None:
    """What the `COLOURS` of points mean, where they show shares from the first to the second of `span`."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import PercentFormatter

    shown = ScalarMappable(Normalize(*span), COLOURS)
    bar = figure.colorbar(shown, ax=list(axes), fraction=0.04, pad=0.02, format=PercentFormatter(1.0, decimals=1))
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def marker_key(label: str, marker: str, **style: Any) -> Any:
    """An entry of a legend for points of a form, with the style of a `Line2D`."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none", marker=marker, label=label, **style)
