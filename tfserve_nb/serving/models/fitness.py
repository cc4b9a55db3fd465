"""What a version must be able to do before requests, or copies of them, go to it: the one place that refuses.

Thread: any; pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ...errors import FailedPrecondition, InvalidOption
from ...types import VersionStatus
from .routing import Routing

_INCURABLE = re.compile(
    r"uninitialized|not initialized|Could not find variable|does not exist|Cast string to|No OpKernel|not supported",
    re.IGNORECASE,
)
"""Reasons for which a model fails whatever it is given."""


def check_fitness(before: Routing, after: Routing, serving: Collection[int], statuses: Iterable[VersionStatus]) -> None:
    """Refuse a change that gives requests to a version that cannot answer, or copies to one that they would change.

    Args:
        before: the routing now.
        after: the routing that is wanted.
        serving: versions that get requests now, or did before: they may always.
        statuses: what is known of the versions.

    Raises:
        FailedPrecondition: saying why a version cannot answer.
        InvalidOption: saying what copies would change.
    """
    known = {status.version: status for status in statuses}
    for version in sorted({*after.traffic, *after.arms} - set(serving) - before.arms.keys()):
        if version in known and known[version].problem:
            raise _cannot_answer(after.name, version, known[version].problem)
    copies = after.shadow
    if copies is not None and copies != before.shadow and copies.version in known:
        changes = known[copies.version].changes
        if changes:
            raise InvalidOption(
                f"version {copies.version} of {after.name} cannot get copies of requests: {changes}, so copies would "
                "change what clients are answered later",
                hint="--stage in place of --shadow; in an experiment --shadow 0",
            )


def _cannot_answer(name: str, version: int, problem: str) -> FailedPrecondition:
    """The refusal to give requests to a version that answered none of the rows that were tried."""
    force = "--force gives it the requests all the same"
    if _INCURABLE.search(problem):
        hint = f"no rows cure that: save the model again with all that it needs; {force}"
    else:
        hint = f"give rows that it takes: --check ROWS or --warmup ROWS; {force}"
    return FailedPrecondition(
        f"version {version} of {name} cannot answer: no row made from its signature could be run: {problem}", hint=hint
    )
