"""The rows on which two versions differ most: their inputs and both outputs.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...agreement.result import Agreement, Disagreement
from ...experiment.state import ExperimentState
from ...markup import note, table
from ...types import Tensors
from ..snapshot import clock
from .values import rendered

NUM_SHOWN = 8
NUM_SCORES = 3


def disagreements_page(state: ExperimentState | None, found: Sequence[Disagreement]) -> str:
    """The worst rows, and how they were sampled.

    Args:
        state: the experiment; None when there was none.
        found: the worst first.
    """
    if state is None:
        return ""
    agreement = state.reading.agreement
    if not agreement:
        return note(_no_rows_text(state))
    if not agreement.is_compared:
        return note("The outputs are not compared: the answers to one request differ each time.")
    if not found:
        return note(f"No rows are kept on which the versions differ. {_sample_text(state, agreement)}")
    inputs, outputs = list(found[0].inputs), list(found[0].outputs_a)
    columns = ["row", "score", *(f"in: {name}" for name in inputs)]
    columns += [f"{arm}: {name}" for name in outputs for arm in "AB"]
    rows = [_row(place, disagreement, inputs, outputs) for place, disagreement in enumerate(found[:NUM_SHOWN], 1)]
    return table("Where A and B differ most", [*columns, "at"], rows, numbers=("score",)) + note(
        _sample_text(state, agreement)
    )


def _row(place: int, disagreement: Disagreement, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    found = {"row": str(place), "score": format(disagreement.score, ".3g"), "at": clock(disagreement.at)}
    found |= {f"in: {name}": _cell(disagreement.inputs, name) for name in inputs}
    for name in outputs:
        found |= {
            f"A: {name}": _output_cell(disagreement.outputs_a, name),
            f"B: {name}": _output_cell(disagreement.outputs_b, name),
        }
    return found


def _output_cell(tensors: Tensors, name: str) -> str:
    """An output; of the scores of many classes the largest ones, which decide."""
    value = tensors.get(name)
    is_scores = value is not None and value.ndim == 2 and value.dtype.kind == "f" and value.shape[1] > NUM_SCORES
    if value is None or not is_scores or not np.isfinite(value).all():
        return _cell(tensors, name)
    places = np.argsort(-value[0], kind="stable")[:NUM_SCORES].tolist()
    words = [f"{place}: {value[0, place]:.3g}" for place in places]
    return f"<b>{words[0]}</b><br>{', '.join(words[1:])}"


def _cell(tensors: Tensors, name: str) -> str:
    """One row of a tensor, without its batch dimension."""
    value = tensors.get(name)
    if value is None:
        return "–"
    return rendered(np.asarray(value[0], dtype=value.dtype) if value.ndim and len(value) else value)


def _sample_text(state: ExperimentState, agreement: Agreement) -> str:
    """How many rows were compared, and that they are a choice."""
    differ = agreement.num_rows - agreement.num_same
    dropped = f", {state.num_shadow_dropped} copies were left out under load" if state.num_shadow_dropped else ""
    return (
        f"{agreement.num_rows} rows were predicted by both versions ({state.plan.shadow:g} % of the requests are "
        f"copied{dropped}); {differ} of them disagree. These are the worst of those rows, not typical "
        "ones: do not read a rate from them."
    )


def _no_rows_text(state: ExperimentState) -> str:
    if not state.plan.shadow:
        return "No rows were compared: this experiment copies no requests (--shadow 20 would)."
    return "No rows were compared yet: copies of A's requests run on B when the server has time."
