"""The options of `%variants` and `d.variants`.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any  # arrays of the user

from ..errors import InvalidOption
from ..options import option
from ..serving.engines.engine import AUTO
from ..serving.engines.kinds import NAMES, check_engine, check_installed

VARIANTS = ("xla",)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantOptions:
    """What is measured, and on which rows.

    Raises:
        InvalidOption: naming the value that is not allowed.
    """

    check: Any = option(
        None,
        "rows on which outputs are compared; without them, agreement is unknown",
        metavar="VAR",
        shown="none",
        names="array",
    )
    optimize: str | Sequence[str] = option(
        (), f"the variants: some of {', '.join(VARIANTS)}", metavar="NAME,NAME,...", shown="all"
    )
    engine: str = option(
        AUTO, "what runs them beside TensorFlow: `auto` is every engine that is installed", choices=NAMES
    )

    def __post_init__(self) -> None:
        check_installed(check_engine(self.engine))
        unknown = [name for name in self.wanted if name not in VARIANTS]
        if unknown:
            raise InvalidOption(
                f"optimize={unknown[0]!r} must be some of {', '.join(VARIANTS)}", hint=f"--optimize {VARIANTS[0]}"
            )

    @property
    def wanted(self) -> tuple[str, ...]:
        """The variants by name; all when none are named."""
        names = self.optimize.split(",") if isinstance(self.optimize, str) else self.optimize
        return tuple(dict.fromkeys(name.strip() for name in names if name.strip())) or VARIANTS
