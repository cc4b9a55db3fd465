"""The options of `%variants` and `d.variants`.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any  # arrays of the user

from ..errors import InvalidOption
from ..export.variants.variants import VARIANTS, check_variant
from ..options import option
from ..serving.engines.engine import AUTO
from ..serving.engines.kinds import NAMES as ENGINES
from ..serving.engines.kinds import check_engine, check_installed
from ..types import PLAIN

NAMES = tuple(name for name in VARIANTS if name != PLAIN)
"""The variants beside the model as it is."""


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
    labels: Any = option(
        None,
        "the right answers for the rows of `--check`, for the accuracy",
        metavar="VAR",
        shown="none",
        names="array",
    )
    optimize: str | Sequence[str] = option(
        (), f"the variants: some of {', '.join(f'`{name}`' for name in NAMES)}", metavar="NAME,NAME,...", shown="all"
    )
    engine: str = option(
        AUTO, "what runs them beside TensorFlow: `auto` is every engine that is installed", choices=ENGINES
    )

    def __post_init__(self) -> None:
        check_installed(check_engine(self.engine))
        for name in self.wanted:
            check_variant(name)
        if self.labels is not None and self.check is None:
            raise InvalidOption("labels are of the rows of check, and there are none", hint="--check VAR --labels VAR")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The variants by name; all when none are named."""
        names = self.optimize.split(",") if isinstance(self.optimize, str) else self.optimize
        given = [name for name in map(str.strip, names) if name]
        return tuple(dict.fromkeys(name for name in given if name != PLAIN)) if given else NAMES
