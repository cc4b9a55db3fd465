"""What gpu.py measures: a module for each section.

Each section is a function that yields what it found of one case after the other. A case that fails is found with its
reason, and the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .answers import answers
from .device import device
from .engines import engines
from .isolated import isolated
from .limits import limits
from .memory import memory_per_version
from .setting import Found, Setting
from .speed import speed
from .variants import variants

NO_DEVICE = 3
"""The exit code when TensorFlow has no such device: then no other section has it either."""

SECTIONS: dict[str, Callable[[Setting], Iterator[Found]]] = {
    "device": device,
    "answers": answers,
    "speed": speed,
    "memory": memory_per_version,
    "isolated": isolated,
    "limits": limits,
    "engines": engines,
    "variants": variants,
}
"""Name -> section, in the order in which they are measured."""
