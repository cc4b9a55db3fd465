"""Outputs of the same rows: what counts as the same decision, what is counted, and which rows are kept."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfserve_nb.experiment.agreement import Agreeing
from tfserve_nb.experiment.decisions import decisions_of
from tfserve_nb.experiment.engine.answers import MAX_ROWS, Answers
from tfserve_nb.experiment.engine.disagreements import MOST, Worst
from tfserve_nb.experiment.engine.inbox import MAX_WAITING_BYTES, Inbox
from tfserve_nb.experiment.engine.observations import Observations
from tfserve_nb.experiment.pairs import FAR, compare
from tfserve_nb.experiment.plan import Limits, Plan
from tfserve_nb.serving.telemetry.records import RequestRecord, RequestTensors


def scores(*rows: list[float]) -> dict[str, np.ndarray]:
    return {"y": np.array(rows, np.float32)}


def test_classes_decide_when_there_are_several_columns() -> None:
    found = compare(scores([0.1, 0.9], [0.8, 0.2]), scores([0.4, 0.6], [0.3, 0.7]))

    assert found.is_same.tolist() == [True, False]
    assert found.classes is not None
    assert found.classes.tolist() == [[1, 0], [1, 1]]
    assert found.distance == pytest.approx([0.3, 0.5])


def test_one_column_decides_at_a_half_unless_it_is_known_to_be_no_share() -> None:
    a, b = scores([0.4], [0.9]), scores([0.6], [0.95])

    assert compare(a, b).is_same.tolist() == [False, True]
    assert compare(a, b, may_threshold=False).is_same.tolist() == [False, False]


def test_other_numbers_must_be_close_and_whole_numbers_and_text_equal() -> None:
    close = compare(scores([3.0], [5.0]), scores([3.001], [5.1]), may_threshold=False)
    whole = compare({"id": np.array([1, 2])}, {"id": np.array([1, 3])})
    text = compare({"word": np.array([b"a", b"b"], object)}, {"word": np.array([b"a", b"c"], object)})

    assert close.is_same.tolist() == whole.is_same.tolist() == text.is_same.tolist() == [True, False]
    assert whole.classes is not None
    assert whole.classes.tolist() == [[1, 2], [1, 3]]


def test_a_number_that_is_none_is_far_from_any_and_never_the_same() -> None:
    found = compare(scores([0.1, 0.9], [np.nan, 1.0]), scores([np.nan, 0.9], [np.nan, 1.0]))

    assert found.nonfinite_b.tolist() == [True, True]
    assert found.nonfinite_a.tolist() == [False, True]
    assert found.is_same.tolist()[0] is False
    assert found.distance.tolist()[0] == FAR
    assert found.distance.tolist()[1] == 0.0
    assert np.isfinite(found.shift)


def test_outputs_without_a_common_first_dimension_are_one_row() -> None:
    a, b = ({"x": np.zeros(3), "s": np.array(scale)} for scale in (1.0, 2.0))

    found = compare(a, b)

    assert found.distance.tolist() == [1.0]


def test_outputs_of_other_shapes_never_agree() -> None:
    assert compare(scores([0.1, 0.9]), scores([0.1, 0.2, 0.7])).is_same.tolist() == [False]


def test_agreement_counts_rows_flips_and_shift_and_survives_as_json() -> None:
    agreeing = Agreeing()
    for _ in range(3):
        agreeing.add(compare(scores([0.0, 1.0], [1.0, 0.0]), scores([0.5, 0.75], [1.0, 0.0])))
        agreeing.add(compare(scores([0.0, 1.0]), scores([0.0, 1.0])))

    found = Agreeing.from_json(json.loads(json.dumps(agreeing.to_json()))).agreement()

    assert found is not None
    assert (found.num_rows, found.num_same, found.flips) == (9, 9, {})
    assert found.shift == pytest.approx(3 * (0.5 - 0.25) / 18)
    assert found.largest == 0.5
    agreeing.add(compare(scores([0.0, 1.0]), scores([1.0, 0.0])))
    later = agreeing.agreement()
    assert later is not None
    assert later.flips == {(1, 0): 1}
    assert later.low < later.share == 0.9 < later.high


def test_the_worst_rows_are_kept_once_each_and_in_order(rng: np.random.Generator) -> None:
    worst = Worst()
    for _ in range(2):
        for number in range(3 * MOST):
            distance = number / 1000
            a, b = {"y": np.array([[2.0]])}, {"y": np.array([[2.0 + distance]])}
            worst.add(1.5, {"x": np.array([[number]])}, a, b, compare(a, b, may_threshold=False))

    found = worst.worst(5)

    assert [one.inputs["x"].item() for one in found] == [191, 190, 189, 188, 187]
    assert len(worst.worst(1000)) == MOST
    assert found[0].at == 1.5
    assert found[0].outputs_b["y"].shape == (1, 1)


def test_rows_that_agree_fully_are_not_kept() -> None:
    worst = Worst()
    a = scores([0.1, 0.9])
    worst.add(0.0, {"x": np.zeros((1, 2))}, a, a, compare(a, a))

    assert worst.worst(5) == []


def test_no_rows_are_compared_and_decided_like_any_others() -> None:
    none = {"y": np.zeros((0, 3), np.float32)}

    found = compare(none, none)
    worst = Worst()
    worst.add(0.0, none, none, none, found)

    assert found.is_same.tolist() == []
    assert worst.worst(5) == []
    assert decisions_of(none).values.tolist() == []
    assert decisions_of({"y": np.zeros((0, 2, 3), np.float32)}).values.tolist() == []


def test_what_was_decided_for_large_outputs_takes_little_memory() -> None:
    values, confidences = decisions_of({"y": np.zeros((2, 100, 100), np.float32)})

    assert values[0] == values[1]
    assert len(values[0]) <= 64
    assert confidences is None


@pytest.mark.parametrize("label", ["cat", b"cat", ["cat"], [["cat"]], np.array(["cat"])])
def test_text_is_judged_by_text_whether_bytes_or_not(label: object) -> None:
    plan = Plan("net", 1, 2)
    answers = Answers()
    answers.begin("net", frozenset({plan.a, plan.b}))
    record = RequestRecord("net", 1, "serving_default", "OK", 1, 0.0, 0.0, None, None, 0.1, request_id="r")
    answers.on_request(record, RequestTensors({}, {"word": np.array([b"cat"], object)}))

    judged = answers.judge("net", "r", label)

    assert judged is not None
    assert [one.is_right for one in judged] == [True]


def answered(number: int = 0, at_s: float = 0.1) -> RequestRecord:
    record = RequestRecord("net", 2, "serving_default", "OK", 1, 0.0, 0.0, None, None, at_s, request_id=f"r{number}")
    return record._replace(is_assigned=True)


def test_what_callers_do_with_their_arrays_afterwards_is_no_answer_of_the_model() -> None:
    plan = Plan("net", 1, 2, limits=Limits(window_s=1, windows=1, breaches=1))
    inbox, observations = Inbox(plan), Observations(plan)
    outputs = {"y": np.ones((1, 3), np.float32)}

    inbox.on_request(answered(), RequestTensors({}, outputs))
    outputs["y"][:] = np.nan
    inbox.empty_into(observations, 0.0)

    (window,) = observations.windows.complete(1.5)
    assert (window.rows_b, window.nonfinite_b) == (1, 0)


def test_large_outputs_that_wait_are_bounded_in_memory() -> None:
    inbox = Inbox(Plan("net", 1, 2))
    large = {"y": np.zeros((1, MAX_WAITING_BYTES // 16), np.float32)}  # a quarter of what may wait

    for number in range(12):
        inbox.on_request(answered(number)._replace(is_assigned=False), RequestTensors({}, large))

    assert 1 <= inbox.empty_into(Observations(Plan("net", 1, 2)), 0.0) <= 4


def test_one_thing_that_cannot_be_taken_in_leaves_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    plan = Plan("net", 1, 2)
    inbox, observations = Inbox(plan), Observations(plan)
    for record in (answered()._replace(key=3), answered()._replace(key="ann")):  # type: ignore[arg-type]
        inbox.on_request(record, None)

    inbox.empty_into(observations, 0.0)

    assert observations.evidence().requests == (0, 1)
    assert len(caplog.records) == 1


def test_remembered_answers_are_bounded_in_rows_and_hold_nothing_else_alive() -> None:
    answers = Answers()
    answers.begin("net", frozenset({1, 2}))
    rows = MAX_ROWS // 4
    batch = np.zeros((rows, 1), np.int64)

    for number in range(6):
        answers.on_request(answered(number), RequestTensors({}, {"y": batch}))

    known = [answers.judge("net", f"r{number}", batch) is not None for number in range(6)]
    assert known == [False, False, True, True, True, True]
    assert decisions_of({"y": batch}).values.base is None
