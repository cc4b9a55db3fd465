"""Whether a variant predicts what the model does: on rows of the user, by the one rule of agreement.

Thread: any; pure functions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..agreement.kinds import AgreementOptions
from ..agreement.summary import Agreeing, Evidences
from ..types import Tensors


@dataclass(frozen=True, slots=True)
class Expected:
    """What variants are compared with.

    Attributes:
        inputs: the user's rows, name -> array.
        outputs: what the model predicts for them, name -> array.
        num_rows: how many they are.
        options: how outputs are compared.
        evidence: what is known of the outputs.
    """

    inputs: Tensors
    outputs: Tensors
    num_rows: int
    options: AgreementOptions = field(default_factory=AgreementOptions)
    evidence: Evidences | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """How a variant compares.

    Attributes:
        agreement: the share of the rows on which it predicts the same; None for outputs that cannot be compared.
        largest_difference: of any two numbers; None for the same.
    """

    agreement: float | None = None
    largest_difference: float | None = None


def judge(expected: Expected, outputs: Tensors) -> Judged:
    """Compare the outputs of a variant.

    Args:
        expected: what the model predicts.
        outputs: what the variant does, for the same rows.
    """
    agreeing = Agreeing(expected.options, expected.evidence)
    agreeing.add(expected.inputs, expected.outputs, outputs, expected.num_rows, time.time())
    found = agreeing.agreement
    if not all(one.is_compared for one in found.values()):
        return Judged()
    return Judged(found.share, max((one.largest_difference for one in found.values()), default=None))
