"""Answers that are judged later, and outputs that wait to be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tfserve_nb.agreement.decisions import Decisions, decisions_of
from tfserve_nb.agreement.kinds import AgreementOptions, Evidence
from tfserve_nb.errors import InvalidRequest
from tfserve_nb.experiment.engine.inbox import MAX_WAITING_BYTES, Inbox
from tfserve_nb.experiment.engine.observations import Observations
from tfserve_nb.experiment.engine.predictions import MAX_ROWS, Predictions
from tfserve_nb.experiment.plan import Limits, Plan
from tfserve_nb.serving.telemetry.records import Pair, RequestRecord, RequestTensors


def decided(array: np.ndarray) -> Decisions:
    return decisions_of({"y": array}, len(array), AgreementOptions(), {})["y"]


def test_no_rows_are_decided_like_any_others() -> None:
    found = decided(np.zeros((0, 3), np.float32))

    assert found.values.tolist() == []
    assert decided(np.zeros((0, 2, 3), np.float32)).values.tolist() == []


def test_what_was_decided_for_large_outputs_takes_little_memory() -> None:
    found = decided(np.zeros((2, 100, 100), np.float32))

    assert found.values.tolist() == [None, None]
    assert found.confidences is None


@pytest.mark.parametrize(
    ("outputs", "evidence", "label", "is_right"),
    [
        ([[0.2, 0.8], [0.9, 0.1]], None, [1, 1], [True, False]),  # shares
        ([[2.0, -8.0], [9.0, 1.0]], None, [0, 1], [True, False]),  # an integer says that they are scores
        ([[2.0, 8.0], [9.0, 1.0]], None, [[2.001, 8.0], [9.0, 1.1]], [True, False]),  # numbers that they are targets
        ([[-3.0], [4.0]], Evidence(loss="binary_crossentropy", from_logits=True), [0, 0], [True, False]),
        ([[0.4], [0.7]], Evidence("sigmoid"), [0, 0], [True, False]),
        ([[0.4], [0.7]], None, [0, 0], [True, False]),
        ([[0.4], [0.7]], Evidence(loss="mean_squared_error"), [0.4, 1.0], [True, False]),
        ([3, 5], None, [3, 4], [True, False]),
    ],
)  # fmt: skip
def test_a_label_is_compared_with_what_the_output_is(
    outputs: list[Any], evidence: Evidence | None, label: list[Any], is_right: list[bool]
) -> None:
    answers = Predictions()
    answers.begin("net", frozenset({1}), AgreementOptions(), {"y": (evidence, None)})
    answers.on_request(answered()._replace(version=1), RequestTensors({}, {"y": np.array(outputs)}))

    judged = answers.judge("net", "r0", label)

    assert judged is not None
    assert [one.is_right for one in judged] == is_right


def test_labels_of_several_outputs_are_named() -> None:
    answers = Predictions()
    answers.begin("net", frozenset({1}))
    outputs = {"kind": np.array([[0.2, 0.8]]), "price": np.array([[7.0]])}
    for number in range(3):
        answers.on_request(answered(number)._replace(version=1), RequestTensors({}, outputs))

    found = [
        answers.judge("net", f"r{number}", label)
        for number, label in enumerate([{"kind": 1, "price": 7.0}, {"kind": 1, "price": 8.0}])
    ]

    assert [judged[0].is_right for judged in found if judged] == [True, False]
    with pytest.raises(InvalidRequest, match="no output 'size'; it has kind, price"):
        answers.judge("net", "r2", {"size": 1})


@pytest.mark.parametrize("label", ["cat", b"cat", ["cat"], [["cat"]], np.array(["cat"])])
def test_text_is_judged_by_text_whether_bytes_or_not(label: object) -> None:
    plan = Plan("net", 1, 2)
    answers = Predictions()
    answers.begin("net", frozenset({plan.a, plan.b}))
    record = RequestRecord("net", 1, "serving_default", "OK", 1, 0.0, 0.0, None, None, 0.1, request_id="r")
    answers.on_request(record, RequestTensors({}, {"word": np.array([b"cat"], object)}))

    judged = answers.judge("net", "r", label)

    assert judged is not None
    assert [one.is_right for one in judged] == [True]


@pytest.mark.parametrize(
    ("predicted", "label", "is_right"),
    [
        (b"a\0", b"a\0", True),
        (b"a\0", [b"a\0"], True),
        (b"a\0", "a\0", True),
        (b"a\0", b"a", False),
        (b"\xff", b"\xff", True),
        (b"\xff", b"\xfe", False),
    ],
)
def test_text_is_judged_byte_by_byte(predicted: bytes, label: object, is_right: bool) -> None:
    answers = Predictions()
    answers.begin("net", frozenset({1}))
    answers.on_request(answered()._replace(version=1), RequestTensors({}, {"word": np.array([predicted], object)}))

    judged = answers.judge("net", "r0", label)

    assert judged is not None
    assert [one.is_right for one in judged] == [is_right]


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


@pytest.mark.parametrize(("answered_by", "copied_to"), [(1, 2), (2, 1)])
def test_a_pair_is_the_same_whichever_version_got_the_copy(answered_by: int, copied_to: int) -> None:
    plan = Plan("net", 1, 2, limits=Limits(window_s=1, windows=1, breaches=1))
    inbox, observations = Inbox(plan), Observations(plan)
    outputs = {1: {"y": np.float32([[1.0]])}, 2: {"y": np.float32([[3.0]])}}
    rows = {"x": np.zeros((1, 1), np.float32)}
    pair = Pair(
        "net", answered_by, copied_to, "serving_default", rows, outputs[answered_by], outputs[copied_to], "", 0.1
    )

    inbox.on_pair(pair)
    inbox.on_pair(replace(pair, outputs_b=None, error="failed"))
    inbox.on_pair(replace(pair, version_a=3))
    inbox.empty_into(observations, 0.0)

    assert observations.evidence().agreement["y"].bias == 2.0
    (window,) = observations.windows.complete(1.5)
    failed = (window.failed_a, window.failed_b)
    assert failed == ((0, 1) if copied_to == 2 else (1, 0))


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
    answers = Predictions()
    answers.begin("net", frozenset({1, 2}))
    rows = MAX_ROWS // 4
    batch = np.zeros((rows, 1), np.int64)

    for number in range(6):
        answers.on_request(answered(number), RequestTensors({}, {"y": batch}))

    known = [answers.judge("net", f"r{number}", batch) is not None for number in range(6)]
    assert known == [False, False, True, True, True, True]
    assert decided(batch).values.base is None
