"""What two versions differ in, piece by piece.

Thread: any; immutable.
"""

from __future__ import annotations

from dataclasses import dataclass

SAME, CHANGED, ADDED, REMOVED = "same", "changed", "added", "removed"


@dataclass(frozen=True, slots=True)
class SignatureChange:
    """One signature.

    Attributes:
        name: such as `serving_default`.
        change: `same`, `changed`, `added` or `removed`.
        details: what differs, such as `input x: float32[?, 4] → float32[?, 5]`.
    """

    name: str
    change: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One layer.

    Attributes:
        name: its name in B, or in A when B has none.
        class_name: such as `Dense`; "" when it is not known.
        change: `same` (to the bit), `changed`, `added` or `removed`.
        params_a: numbers in its weights in A; None when A has no such layer.
        params_b: the same in B.
        weight_change: relative L2 norm of the difference, `‖B - A‖ / ‖A‖` over all weights of the layer; infinite when
            A is all zeros and B is not; None when they are equal, when the shapes differ, or for what are no numbers.
        note: what there is to say beside the numbers.
    """

    name: str
    class_name: str
    change: str
    params_a: int | None
    params_b: int | None
    weight_change: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class LatencyChange:
    """One latency that was measured on live traffic.

    Attributes:
        what: such as `a run of 8 rows` or `p95 of requests`.
        a_ms: milliseconds of A; None when there were too few.
        b_ms: the same of B.
    """

    what: str
    a_ms: float | None
    b_ms: float | None
