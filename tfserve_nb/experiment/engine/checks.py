"""Whether two versions can be compared at all: clients get either of them for the same request.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import InvalidOption, VersionNotFound
from ...serving.backend import ModelSpec
from ...serving.core import ServingCore
from ...types import SignatureSpec, TensorSpec
from ..plan import Plan


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
    """Refuse signatures that take or give something else; sizes of outputs may differ."""
    for what, ours, theirs in (("takes", of_a.inputs, of_b.inputs), ("gives", of_a.outputs, of_b.outputs)):
        if ours.keys() == theirs.keys() and all(
            _fit(spec, theirs[name], with_sizes=what == "takes") for name, spec in ours.items()
        ):
            continue
        raise InvalidOption(
            f"version {plan.a} of {plan.name} {what} {_in_words(ours)}, version {plan.b} {what} "
            f"{_in_words(theirs)}: clients could not be given either of them",
            hint="deploy a version with the same signature",
        )


def _fit(ours: TensorSpec, theirs: TensorSpec, *, with_sizes: bool) -> bool:
    """Whether an array of one is one of the other; where a size is not fixed, any fits."""
    if ours.dtype != theirs.dtype:
        return False
    if ours.shape is None or theirs.shape is None:
        return True
    sizes = [size for size in zip(ours.shape, theirs.shape, strict=False) if None not in size]
    return len(ours.shape) == len(theirs.shape) and not (with_sizes and any(one != other for one, other in sizes))


def _in_words(specs: Mapping[str, TensorSpec]) -> str:
    """Tensors, such as `image float32[?, 8, 8]`."""
    return ", ".join(f"{name} {spec}" for name, spec in specs.items())
