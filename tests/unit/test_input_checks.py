"""The check that is made for a signature accepts what the careful one accepts, and reports the same errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.errors import InvalidRequest
from tfserve_nb.serving.versions.inputs import check_inputs, check_of
from tfserve_nb.types import SignatureSpec, Tensors, TensorSpec

shapes = st.one_of(
    st.none(), st.lists(st.sampled_from([None, 1, 2]), max_size=3).map(tuple), st.sampled_from([(None,), (None, 2)])
)
specs = st.dictionaries(
    st.sampled_from("abc"), st.tuples(st.sampled_from(["float32", "int64"]), shapes), min_size=0, max_size=3
)
arrays = st.builds(
    lambda dtype, shape: np.zeros(shape, dtype),
    st.sampled_from(["float32", "float32", "int64"]),
    st.one_of(st.sampled_from([(1,), (2,), (1, 2), (2, 2)]), st.lists(st.integers(0, 2), max_size=3).map(tuple)),
)


def outcome(check, inputs: Tensors) -> object:
    try:
        return check(inputs)
    except InvalidRequest as error:
        return error.message


@given(specs, st.dictionaries(st.sampled_from("abcd"), arrays, max_size=4), st.booleans())
def test_a_signatures_check_is_as_strict_as_the_careful_one(
    described: dict[str, tuple[str, tuple[int | None, ...] | None]], inputs: dict[str, np.ndarray], is_near: bool
) -> None:
    signature = SignatureSpec("s", {name: TensorSpec(name, *spec) for name, spec in described.items()}, {})
    if is_near:  # mostly what fits
        inputs = {
            name: np.zeros([2 if size is None else size for size in shape or ()], dtype)
            for name, (dtype, shape) in described.items()
        } | dict(list(inputs.items())[:1])

    checked = outcome(check_of(signature, checks_shapes=True), inputs)

    assert checked == outcome(lambda given_: check_inputs(signature, given_), inputs)


def test_no_inputs_of_a_signature_is_looked_at_twice_when_all_fit(monkeypatch) -> None:
    monkeypatch.setattr("tfserve_nb.serving.versions.inputs.check_inputs", None)
    names = [f"feature_{number}" for number in range(10)]
    signature = SignatureSpec("s", {name: TensorSpec(name, "float32", (None, 1)) for name in names}, {})

    assert check_of(signature, checks_shapes=True)({name: np.zeros((3, 1), "float32") for name in names}) == 3


def test_inputs_of_different_lengths_are_refused_with_what_to_do() -> None:
    signature = SignatureSpec("s", {name: TensorSpec(name, "float32", (None,)) for name in ("a", "b")}, {})

    with pytest.raises(InvalidRequest, match="b has 2 rows, others have 5") as caught:
        check_inputs(signature, {"a": np.zeros(5, "float32"), "b": np.zeros(2, "float32")})

    assert caught.value.hint == "give all inputs the same number of rows"
