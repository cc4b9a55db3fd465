"""How sizes are written.

Thread: any; pure functions.
"""

from __future__ import annotations


def size_text(num_bytes: float) -> str:
    """A number of bytes with its unit.

    Example:
        >>> size_text(0), size_text(812), size_text(2_500_000)
        ('', '812 B', '2.5 MB')
    """
    for unit in ("B", "kB", "MB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}" if num_bytes else ""
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB" if num_bytes < 999.5 else f"{num_bytes:.0f} GB"
