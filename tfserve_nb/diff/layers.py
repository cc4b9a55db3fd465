"""Layers of two versions: which belong together, and how far their weights have moved.

Thread: any.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..export.provenance.keras_facts import chunks, squared_norm
from ..export.provenance.provenance import Provenance
from ..export.weights import Variable, Weights
from .result import ADDED, CHANGED, REMOVED, SAME, LayerChange

_COUNTED = re.compile(r"_\d+(?=/|$)")
"""The suffix that Keras appends to names, another number in each run of a cell."""


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    class_name: str
    key: tuple[str, str]
    variables: tuple[Variable, ...]

    @property
    def num_params(self) -> int:
        return sum(one.num_values for one in self.variables)


def layer_changes(
    a: Weights, b: Weights, provenance_a: Provenance | None, provenance_b: Provenance | None
) -> tuple[LayerChange, ...]:
    """All layers of both versions, in order.

    Layers are those that were noted at the export; when one version has no such note, variables whose names share all
    but the last part count as one layer. Layers belong together when class and name are equal, where names that Keras
    made up do not count, and their order is the same.

    Args:
        a: the weights of A; read one variable at a time, with its counterpart in B.
        b: the weights of B.
        provenance_a: where A comes from, if that is known.
        provenance_b: the same of B.
    """
    layers_a, layers_b = _noted(provenance_a, a), _noted(provenance_b, b)
    if layers_a is None or layers_b is None:
        layers_a, layers_b = _grouped(a), _grouped(b)
    return tuple(_compare(one, other, a, b) for one, other in _matched(layers_a, layers_b))


def _noted(provenance: Provenance | None, weights: Weights) -> list[_Layer] | None:
    """The layers as they were at the export; None when they are not known, or not those of this file."""
    if provenance is None or not provenance.layers:
        return None
    layers = []
    for facts in provenance.layers:
        there = [weights.variables.get(one.key) for one in facts.variables]
        if any(found is None or found.shape != one.shape for found, one in zip(there, facts.variables, strict=True)):
            return None
        above, _, last = facts.name.rpartition("/")
        key = f"{_COUNTED.sub('', above)}/{last if facts.is_named else ''}"
        layers.append(_Layer(facts.name, facts.class_name, (facts.class_name, key), facts.variables))
    return layers


def _grouped(weights: Weights) -> list[_Layer]:
    groups: dict[str, list[Variable]] = {}
    for variable in weights.model_variables:
        groups.setdefault(variable.name.rpartition("/")[0] or variable.name, []).append(variable)
    return [_Layer(name, "", ("", _COUNTED.sub("", name)), tuple(variables)) for name, variables in groups.items()]


def _matched(a: Sequence[_Layer], b: Sequence[_Layer]) -> Iterator[tuple[_Layer | None, _Layer | None]]:
    matcher = difflib.SequenceMatcher(None, [one.key for one in a], [one.key for one in b], autojunk=False)
    for kind, first_a, last_a, first_b, last_b in matcher.get_opcodes():
        if kind == "equal":
            yield from zip(a[first_a:last_a], b[first_b:last_b], strict=True)
        else:
            yield from ((one, None) for one in a[first_a:last_a])
            yield from ((None, one) for one in b[first_b:last_b])


def _compare(of_a: _Layer | None, of_b: _Layer | None, a: Weights, b: Weights) -> LayerChange:
    if of_a is None:
        assert of_b is not None  # noqa: S101 - `_matched` gives at least one
        return LayerChange(of_b.name, of_b.class_name, ADDED, None, of_b.num_params)
    if of_b is None:
        return LayerChange(of_a.name, of_a.class_name, REMOVED, of_a.num_params, None)
    found = LayerChange(of_b.name, of_b.class_name, SAME, of_a.num_params, of_b.num_params)
    shapes = [[variable.shape for variable in layer.variables] for layer in (of_a, of_b)]
    if shapes[0] != shapes[1]:
        return replace(found, change=CHANGED, note=f"shapes {_listed(shapes[0])} → {_listed(shapes[1])}")
    if not of_a.variables:
        return found
    moved = _moved(of_a, of_b, a, b)
    if moved is None:
        return replace(found, change=CHANGED, note="weights that are not numbers differ, or types do")
    return found if moved == 0 else replace(found, change=CHANGED, weight_change=moved)


def _moved(of_a: _Layer, of_b: _Layer, a: Weights, b: Weights) -> float | None:
    """`‖B - A‖ / ‖A‖`; 0 for weights that are equal to the bit, None when they differ and are no numbers."""
    squares, distance, is_equal = 0.0, 0.0, True
    for before, after in zip(of_a.variables, of_b.variables, strict=True):
        old, new = a.read(before.key), b.read(after.key)
        is_equal &= old.dtype == new.dtype and (old.tolist() == new.tolist() if old.dtype.hasobject
                                                else old.tobytes() == new.tobytes())  # fmt: skip
        if old.dtype.hasobject or new.dtype.hasobject:
            squares = squares if is_equal else math.nan
            continue
        for piece, counterpart in zip(chunks(old), chunks(new), strict=True):
            exact = piece.astype("float64")
            squares += squared_norm(exact)
            distance += squared_norm(counterpart.astype("float64") - exact)
    if is_equal:
        return 0.0
    if math.isnan(squares) or math.isnan(distance):
        return None
    return math.sqrt(distance / squares) if squares else (math.inf if distance else 0.0)


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("×".join(map(str, shape)) or "1" for shape in shapes) or "none"
