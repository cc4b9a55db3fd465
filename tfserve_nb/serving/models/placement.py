"""Which requests a new version gets: all, a part of the traffic, those for a label, copies, or none yet.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from ...errors import InvalidOption
from ...options import option
from ..traffic import Shadow
from .routing import Routing

DEFAULT_KEEP = 2


@dataclass(frozen=True, slots=True)
class Placement:
    """Which requests a deploy gives to its version; by default all.

    The first version of a model gets all traffic, whatever `canary` and `shadow` are.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    label: str | None = option(
        None, "a label, such as `stable`, that points to this version", shown="none", names="label"
    )
    _: KW_ONLY
    stage: bool = option(False, "load it, but the old version goes on answering")
    canary: float | None = option(
        None, "give it this share of the requests that name no version", metavar="PERCENT", shown="off"
    )
    shadow: float | None = option(
        None,
        "give it no traffic, but copies of this share of the requests (of all without PERCENT); clients never see its "
        "predictions",
        metavar="PERCENT",
        bare=100.0,
        shown="off",
    )
    keep: int = option(DEFAULT_KEEP, "how many versions stay loaded, for instant rollback")

    def __post_init__(self) -> None:
        if isinstance(self.keep, bool) or not isinstance(self.keep, int) or self.keep < 1:
            raise InvalidOption(f"keep={self.keep!r} must be an integer of at least 1", hint="--keep 2 allows rollback")
        if self.stage and self.canary is not None:
            raise InvalidOption(
                "stage and canary exclude each other", hint="--stage for no traffic, --canary 10 for some"
            )
        if self.canary is not None and not 0 < self.canary < 100:
            raise InvalidOption(f"canary={self.canary!r} must be a percentage between 0 and 100", hint="--canary 10")
        if self.shadow is not None:
            if self.canary is not None:
                raise InvalidOption(
                    "shadow and canary exclude each other", hint="--shadow 20 for copies, --canary 10 for traffic"
                )
            Shadow(0, self.shadow).check()
        if self.label is not None:
            Routing("").with_label(self.label, 1)

    def route(self, routing: Routing, version: int) -> Routing:
        """The routing once `version` is loaded."""
        default = routing.default_version
        if self.shadow is not None and default not in (None, version):
            routing = routing.stage(version).with_shadow(Shadow(version, self.shadow))
        elif self.stage:
            routing = routing.stage(version)
        elif self.canary is not None and default is not None:
            routing = routing.used(version).with_traffic({default: 100 - self.canary, version: self.canary})
        else:
            routing = routing.promote(version)
        return routing if self.label is None else routing.with_label(self.label, version)

    def __str__(self) -> str:
        """In words, for the history; empty when it is the usual."""
        words = ["staged"] if self.stage else []
        words += [f"canary {self.canary:g} %"] if self.canary is not None else []
        words += [f"copies of {self.shadow:g} % of the requests"] if self.shadow is not None else []
        words += [f"label {self.label}"] if self.label else []
        return ", ".join(words)
