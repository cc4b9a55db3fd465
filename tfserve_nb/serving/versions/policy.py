"""What to do next so that the loaded versions become the aspired ones: a pure function.

Thread: any.

Reference: tensorflow_serving/core/availability_preserving_policy.h and aspired_version_policy.h: stateless, one action
at a time, a new version is loaded before the old one is unloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ...types import VersionState


@dataclass(frozen=True, slots=True)
class Load:
    """Load this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload this version."""

    version: int


def next_action(states: Mapping[int, VersionState], aspired: AbstractSet[int]) -> Load | Unload | None:
    """One step from what is to what should be.

    Args:
        states: version -> state now; an unknown version is not in it.
        aspired: the versions that should be AVAILABLE.

    Returns:
        Unload of the lowest version that is not aspired, once an aspired one is AVAILABLE (or none is aspired, or more
        than one is to go); else Load of the highest aspired version in START; else None.
    """
    available = {version for version, state in states.items() if state is VersionState.AVAILABLE}
    superfluous = sorted(available - set(aspired))
    if superfluous and (not aspired or available & set(aspired) or len(superfluous) > 1):
        return Unload(superfluous[0])
    new = [version for version in aspired if states.get(version) is VersionState.START]
    return Load(max(new)) if new else None
