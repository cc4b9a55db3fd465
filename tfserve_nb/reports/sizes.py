"""How sizes are written.

Thread: any; pure functions.
"""

from __future__ import annotations


def size_text(num_bytes: int) -> str:
    """A size for people, such as `4.2 MiB`."""
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.0f} KiB"
