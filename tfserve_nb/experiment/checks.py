"""Whether two versions can be compared at all: clients get either of them for the same request.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # specs of inputs and outputs

from ..errors import InvalidOption, VersionNotFound
from ..serving.core import ServingCore
from ..serving.port import ModelSpec
from ..types import SignatureSpec
from .plan import Plan


def check_limits(plan: Plan) -> None:
    """Refuse limits that nothing could be compared with.

    Raises:
        InvalidOption: naming the limit.
    """
    if plan.limits.max_disagreement is not None and not plan.shadow:
        raise InvalidOption(
            "max_disagreement compares answers to the same rows, and shadow=0 makes no copies",
            hint="--shadow 20",
        )


def check_signatures(core: ServingCore, plan: Plan) -> None:
    """Every signature of A must be one of B, take the same inputs and give outputs of the same names.

    Args:
        core: has both versions loaded.
        plan: names them.

    Raises:
        InvalidOption: naming what differs.
        VersionNotFound: if a version is gone, or has nothing that can be called.
    """
    of_a, of_b = (_signatures(core, plan.name, version) for version in (plan.a, plan.b))
    lacking = sorted(of_a.keys() - of_b.keys())
    if lacking:
        raise InvalidOption(
            f"version {plan.b} of {plan.name} has no signature {lacking[0]!r}, version {plan.a} has: "
            "clients could not be given either of them",
            hint="deploy a version with the same signatures",
        )
    for name, spec in of_a.items():
        _check_alike(plan, spec, of_b[name])


def _signatures(core: ServingCore, name: str, version: int) -> Mapping[str, SignatureSpec]:
    handle = core.acquire(ModelSpec(name, version))
    try:
        signatures = handle.signatures
    finally:
        handle.release()
    if not signatures:
        raise VersionNotFound(f"version {version} of {name} has no signature that can be called")
    return signatures


def _check_alike(plan: Plan, of_a: SignatureSpec, of_b: SignatureSpec) -> None:
    """Refuse signatures that take or give something else."""
    for what, ours, theirs in (("takes", of_a.inputs, of_b.inputs), ("gives", of_a.outputs, of_b.outputs)):
        one, other = _described(ours), _described(theirs)
        if one != other:
            raise InvalidOption(
                f"version {plan.a} of {plan.name} {what} {_words(one)}, version {plan.b} {_words(other)}: "
                "clients could not be given either of them",
                hint="deploy a version with the same signature",
            )


def _described(specs: Mapping[str, Any]) -> dict[str, tuple[str, int | None]]:
    """Type and rank of each tensor; sizes may differ as long as requests fit both."""
    return {name: (spec.dtype, None if spec.shape is None else len(spec.shape)) for name, spec in specs.items()}


def _words(described: Mapping[str, tuple[str, int | None]]) -> str:
    return ", ".join(f"{name} {dtype} of rank {rank}" for name, (dtype, rank) in described.items())
