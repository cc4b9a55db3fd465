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
    """Refuse a change that gives requests to a version that cannot answer, or copies to one that may get none.

    Args:
        before: the routing now.
        after: the routing that is wanted.
        serving: versions that get requests now, or did before: they may always.
        statuses: what is known of the versions.

    Raises:
        FailedPrecondition: saying why a version cannot answer.
        InvalidOption: saying what copies would do.
    """
    known = {status.version: status for status in statuses}
    labelled = {version for label, version in after.labels.items() if before.labels.get(label) != version}
    for version in sorted({*after.traffic, *after.arms, *labelled} - set(serving) - before.arms.keys()):
        if version in known and known[version].problem:
            raise _cannot_answer(after.name, version, known[version].problem)
    for version in sorted(after.copied_to - before.copied_to):
        if version in known and known[version].changes:
            raise _may_not_be_copied_to(after, version, known[version].changes)


def _may_not_be_copied_to(routing: Routing, version: int, changes: str) -> InvalidOption:
    """The refusal to give copies to a version that is run once for each request."""
    what = "get copies of requests"
    if routing.arms:
        a, b = sorted(routing.arms, key=lambda arm: routing.arms[arm])
        return InvalidOption(
            f"versions {a} and {b} of {routing.name} can be compared without copies only: version {version} cannot "
            f"{what}, {changes}, and a copy would do that once more",
            hint="--shadow 0 (shadow=0) compares latency, errors and labels",
        )
    return InvalidOption(
        f"version {version} of {routing.name} cannot {what}: {changes}, and a copy would do that once more",
        hint="--stage in place of --shadow, or an experiment with --shadow 0",
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
