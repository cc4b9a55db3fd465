"""What an experiment says, from requests to words; limits and canary steps."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from tfserve_nb.experiment.engine.evaluate import end_text, evaluate, percent, rounded
from tfserve_nb.experiment.engine.observations import Observations
from tfserve_nb.experiment.engine.running import move
from tfserve_nb.experiment.plan import Limits, Plan
from tfserve_nb.experiment.state import Reading, SampleRatio, Verdict


class Story:
    """Observations of a made-up server: a request each 10 ms, each a batch of its own."""

    def __init__(self, plan: Plan, rng: np.random.Generator) -> None:
        self.observations = Observations(plan)
        self.rng = rng
        self.now_s = 0.0

    def go_on(self, num: int, *, slower: float = 0.0, fails: float = 0.0, share: float = 0.5) -> Reading:
        """B takes longer by a share, fails so often, and gets so much."""
        for _ in range(num):
            self.now_s += 0.01
            arm = "b" if self.rng.random() < share else "a"
            run_s = 5e-3 * math.exp(self.rng.normal() * 0.1) * (1 + (arm == "b") * slower)
            code = "INTERNAL" if arm == "b" and self.rng.random() < fails else "OK"
            self.observations.add_batch(arm, self.now_s, 1, run_s, is_background=False)
            self.observations.add_request(arm, self.now_s, run_s + 1e-3, code, "", is_assigned=True)
        return evaluate(self.observations, self.now_s)


def plan(**changes: object) -> Plan:
    return dataclasses.replace(Plan("digits", 3, 4), **changes)  # type: ignore[arg-type]


def test_nothing_seen_is_not_yet_with_a_number() -> None:
    reading = evaluate(Observations(plan()), 0.0)

    assert reading.verdict == "not yet: about 120 more requests"
    assert reading.verdict.decision == "wait"
    assert reading.effect is None
    assert not reading.srm.is_mismatch


def test_without_requests_the_verdict_says_how_to_get_some() -> None:
    reading = evaluate(Observations(plan()), 60.0)

    assert reading.verdict == "not yet: no requests come in; send requests or use --values"
    assert reading.verdict.decision == "wait"


def test_what_would_take_too_many_requests_is_not_decided_here(rng: np.random.Generator) -> None:
    story = Story(plan(), rng)
    seen = story.go_on(1000, slower=0.05).effect
    assert seen is not None
    story.observations.plan = plan(margin=seen.value + 1e-4)  # as near to it as makes no difference
    reading = evaluate(story.observations, story.now_s)

    assert reading.verdict.decision == "wait"
    shown = percent(max(abs(end) for end in seen.interval), seen.high - seen.low)
    assert reading.verdict == f"cannot be decided here; no difference beyond {shown} seen at equal batch sizes"


def test_run_times_of_copies_alone_are_no_reason_to_promote(rng: np.random.Generator) -> None:
    observations = Observations(plan(split=0.0, shadow=100.0))
    for number in range(2000):
        for arm in ("a", "b"):
            run_s = 5e-3 * math.exp(rng.normal() * 0.1)
            observations.add_batch(arm, number * 0.01, 1, run_s, is_background=arm == "b")
        observations.add_request("a", number * 0.01, 6e-3, "OK", "", is_assigned=True)
    reading = evaluate(observations, 20.0)

    assert reading.verdict.decision == "wait"
    assert reading.verdict.startswith("run times cannot be compared while B gets copies only")


def test_an_equal_version_is_promoted_in_the_words_of_the_margin(rng: np.random.Generator) -> None:
    reading = Story(plan(), rng).go_on(2000)

    assert reading.verdict == "B is not worse than A by more than 5 % at equal batch sizes: promote"
    assert reading.verdict.decision == "promote"
    assert sum(reading.samples.values()) == 2000


def test_a_slower_version_is_rolled_back_with_the_size_of_the_harm(rng: np.random.Generator) -> None:
    reading = Story(plan(), rng).go_on(1500, slower=0.12)

    assert reading.verdict.decision == "rollback"
    assert reading.verdict.startswith("B is slower by 11.1 % (9.2 % to 13.0 %)")
    assert reading.breached is not None
    assert reading.breached.name == "harm"


def test_a_faster_version_is_said_to_be_faster(rng: np.random.Generator) -> None:
    reading = Story(plan(), rng).go_on(1500, slower=-0.3)

    assert reading.verdict.decision == "promote"
    assert reading.verdict.startswith("B is faster by 30.")


def test_a_harm_within_the_margin_is_no_harm(rng: np.random.Generator) -> None:
    reading = Story(plan(margin=0.2), rng).go_on(3000, slower=0.05)

    assert reading.latency is not None
    assert reading.latency.low > 0
    assert reading.verdict.decision == "promote"


def test_how_many_more_requests_is_near_the_truth(rng: np.random.Generator) -> None:
    story = Story(plan(margin=0.01), rng)
    reading = story.go_on(300)
    assert reading.verdict.decision == "wait"
    forecast = int(reading.verdict.removeprefix("not yet: about ").partition(" more")[0].replace(" ", ""))

    needed = 0
    while story.go_on(50).verdict.decision == "wait":
        needed += 50

    assert forecast / 4 < needed < forecast * 4


def test_a_wrong_split_blocks_what_would_be_a_promotion(rng: np.random.Generator) -> None:
    reading = Story(plan(), rng).go_on(3000, share=0.35)

    assert reading.verdict.decision == "blocked"
    assert reading.verdict.startswith("blocked: B got 1")
    assert "were expected (p < 0.001)" in reading.verdict
    assert reading.latency is not None  # it is still shown, and not to be believed


def test_a_version_with_little_to_do_may_be_slower_for_that_reason_but_not_by_any_amount(
    rng: np.random.Generator,
) -> None:
    a_tenth = plan(split=10.0)

    colder = Story(a_tenth, rng).go_on(3000, slower=0.25, share=0.1).verdict
    slower = Story(a_tenth, rng).go_on(3000, slower=1.5, share=0.1).verdict
    equal = Story(a_tenth, rng).go_on(3000, share=0.1).verdict

    assert colder.decision == "wait"
    assert colder.startswith("not yet: at a split of 90 to 10 the version with less traffic is slower for that reason")
    assert slower.decision == "rollback"
    assert equal.decision == "promote"


def test_a_candidate_is_not_fine_because_the_current_version_has_little_to_do(rng: np.random.Generator) -> None:
    assert Story(plan(split=90.0), rng).go_on(3000, share=0.9).verdict.decision == "wait"


def test_what_was_seen_at_an_uneven_split_is_left_out_once_it_is_even(rng: np.random.Generator) -> None:
    story = Story(plan(steps=(10.0, 50.0)), rng)
    story.go_on(2000, slower=0.25, share=0.1)
    story.observations.set_percent(50.0, story.now_s)
    at_once = story.go_on(10)
    later = story.go_on(2000)

    assert at_once.latency is None
    assert later.verdict.decision == "promote"
    assert sum(later.samples.values()) == 4010


def test_a_candidate_that_fails_is_taken_back_although_it_is_fast(rng: np.random.Generator) -> None:
    loose = Limits(max_error_rate=None)
    reading = Story(plan(limits=loose), rng).go_on(1200, slower=-0.3, fails=0.1)

    assert reading.verdict.decision == "rollback"
    assert reading.verdict.startswith("B is failing more often by 1")
    assert "points" in reading.verdict


def test_one_client_that_sends_nonsense_takes_nobody_back(rng: np.random.Generator) -> None:
    story = Story(plan(), rng)
    story.go_on(1000)
    for _ in range(500):
        story.observations.add_request("b", story.now_s, 1e-3, "INVALID_ARGUMENT", "bad-client", is_assigned=True)

    assert story.go_on(2000).verdict.decision == "promote"


def test_callers_who_go_away_are_nobodys_fault(rng: np.random.Generator) -> None:
    story = Story(plan(), rng)
    for _ in range(300):
        story.observations.add_request("b", 1.0, 1e-3, "CANCELLED", "", is_assigned=False)

    reading = story.go_on(1000)
    assert reading.errors is not None
    assert reading.errors.value == 0.0


def guardrail(observations: Observations, now_s: float, name: str) -> tuple[tuple[bool | None, ...], bool, str]:
    found = next(one for one in evaluate(observations, now_s).guardrails if one.name == name)
    return found.windows, found.is_breached, found.text


def limited(**limits: object) -> Observations:
    return Observations(plan(limits=Limits(window_s=1.0, windows=3, breaches=2, **limits)))  # type: ignore[arg-type]


def answers(observations: Observations, second: int, slow: int, num: int, code: str = "OK", arm: str = "b") -> None:
    for number in range(num):
        latency_s = 0.2 if number < slow else 0.01
        observations.add_request(arm, second + 0.5, latency_s, code, "", is_assigned=True)


def test_two_of_three_slow_windows_break_the_limit_on_latency_and_one_does_not() -> None:
    observations = limited(slo_p99_ms=100.0)
    answers(observations, 0, 20, 100)
    answers(observations, 1, 0, 100)
    once = guardrail(observations, 2.0, "latency")
    answers(observations, 2, 20, 100)
    twice = guardrail(observations, 3.0, "latency")

    assert once[:2] == ((True, False), False)
    assert twice[:2] == ((True, False, True), True)
    assert (
        twice[2]
        == "40 of 200 (20 %) of B's requests took longer than 100 ms (limit: 1 %), in 2 of the last 3 windows of 1 s"
    )
    assert evaluate(observations, 3.0).verdict.decision == "rollback"


@pytest.mark.parametrize(
    ("slow", "num", "is_bad"), [(1, 3, False), (3, 3, True), (2, 100, False), (9, 300, False), (12, 300, True)]
)
def test_a_window_is_bad_by_evidence_not_by_chance(slow: int, num: int, is_bad: bool) -> None:
    observations = limited(slo_p99_ms=100.0)
    answers(observations, 0, slow, num)

    assert guardrail(observations, 1.0, "latency")[0] == (is_bad,)


def test_failures_count_only_beyond_those_of_the_current_version() -> None:
    observations = limited(max_error_rate=0.05)
    for second in (0, 1):
        for arm in ("a", "b"):
            answers(observations, second, 0, 50, "UNAVAILABLE", arm)
            answers(observations, second, 0, 50, "OK", arm)
    assert guardrail(observations, 2.0, "errors")[1] is False
    for second in (2, 3):
        answers(observations, second, 0, 100, "OK", "a")
        answers(observations, second, 0, 20, "INTERNAL")
        answers(observations, second, 0, 20, "OK")

    assert guardrail(observations, 4.0, "errors")[1] is True


def pair(observations: Observations, second: int, a: list[float], b: list[float] | None) -> None:
    outputs_b = None if b is None else {"y": np.array([b])}
    observations.add_pair(second + 0.5, {"x": np.zeros((1, 2))}, {"y": np.array([a])}, outputs_b)


def test_nan_where_the_current_version_has_none_breaks_the_limit_on_outputs() -> None:
    observations = limited()
    for second in (0, 1):
        pair(observations, second, [0.1, 0.9], [math.nan, 0.9])
    other = limited()
    for second in (0, 1):
        pair(other, second, [math.nan, 0.9], [math.nan, 0.9])
        other.add_outputs("b", second + 0.5, {"y": np.array([[0.2, 0.8]])})

    assert guardrail(observations, 2.0, "outputs")[:2] == ((True, True), True)
    assert guardrail(other, 2.0, "outputs")[:2] == ((False, False), False)


def test_numbers_outside_their_range_break_the_limit_also_in_answers_without_a_copy() -> None:
    observations = limited(output_range=(0.0, 1.0))
    for second in (0, 1):
        observations.add_outputs("b", second + 0.5, {"y": np.array([[0.2, 1.8]])})

    _, is_breached, text = guardrail(observations, 2.0, "outputs")
    assert is_breached
    assert text.startswith("2 of 2 (100 %) of B's rows were NaN or infinite or outside 0 to 1")


def test_deciding_differently_too_often_breaks_the_limit_on_disagreement() -> None:
    observations = limited(max_disagreement=0.1)
    for second in (0, 1):
        for number in range(20):
            pair(observations, second, [0.1, 0.9], [0.9, 0.1] if number < 10 else [0.1, 0.9])

    assert guardrail(observations, 2.0, "disagreement")[:2] == ((True, True), True)
    reading = evaluate(observations, 2.0)
    assert reading.agreement["y"].flips == {(1, 0): 20}


def test_a_doubled_regression_breaks_the_limit_on_disagreement_and_has_a_bias() -> None:
    observations = limited(max_disagreement=0.1)
    rng = np.random.default_rng(3)
    for second in (0, 1):
        for _ in range(40):
            numbers = rng.normal(10.0, 2.0, 2).tolist()
            pair(observations, second, numbers, [2 * value for value in numbers])

    assert guardrail(observations, 2.0, "disagreement")[:2] == ((True, True), True)
    reading = evaluate(observations, 2.0)
    found = reading.agreement["y"]
    assert (found.kind, found.num_same, found.num_rows) == ("regression", 0, 80)
    assert found.error > 4
    assert 8 < reading.bias["y"].low < found.bias < reading.bias["y"].high < 12
    assert reading.bias["y"].p_value < 0.001
    resumed = Observations.from_json(observations.plan, json.loads(json.dumps(observations.to_json())))
    assert repr(evaluate(resumed, 2.0).agreement) == repr(reading.agreement)


def test_copies_that_fail_count_as_failures_of_the_candidate() -> None:
    observations = limited(max_error_rate=0.05)
    for second in (0, 1):
        for _ in range(5):
            pair(observations, second, [0.1, 0.9], None)

    assert guardrail(observations, 2.0, "errors")[1] is True


def test_a_canary_steps_up_after_each_hold_and_asks_for_proof_at_the_last_step_only() -> None:
    steps = (1.0, 25.0, 50.0)

    def reading(decision: str, samples: int = 1000) -> Reading:
        return Reading(
            Verdict("words", decision), None, {1: 1000, 2: samples}, {}, SampleRatio({}, {}, "requests", 1.0)
        )

    assert move(steps, 30, 0, 10, 2, reading("wait")) == "stay"
    assert move(steps, 30, 0, 30, 2, reading("wait")) == "next"
    assert move(steps, 30, 0, 30, 2, reading("wait", 3)) == "stay"
    assert move(steps, 30, 1, 30, 2, reading("blocked")) == "stay"
    assert move(steps, 30, 1, 1, 2, reading("rollback")) == "back"
    assert move(steps, 30, 2, 30, 2, reading("wait")) == "stay"
    assert move(steps, 30, 2, 30, 2, reading("promote")) == "done"
    assert move(steps, 30, 2, 3, 2, reading("promote")) == "stay"
    assert move((), 30, 0, 3, 2, reading("promote")) == "done"


def test_everything_counted_survives_as_json(rng: np.random.Generator) -> None:
    story = Story(plan(), rng)
    story.go_on(500, fails=0.01)
    story.observations.set_percent(25.0, story.now_s)
    story.go_on(500, share=0.25)
    observations = story.observations
    observations.add_feedback("a", "k", True, 0.9)
    before = evaluate(observations, story.now_s + 100)

    again = Observations.from_json(observations.plan, json.loads(json.dumps(observations.to_json())))

    after = evaluate(again, story.now_s + 100)
    assert dataclasses.replace(after, guardrails=()) == dataclasses.replace(before, guardrails=())
    assert again.latency_counts() == observations.latency_counts()


def test_quality_can_be_what_the_verdict_is_about(rng: np.random.Generator) -> None:
    observations = Observations(plan(metric="quality"))
    assert evaluate(observations, 0.0).verdict == "not yet: about 50 more labelled requests"
    for number in range(3000):
        arm = "ab"[number % 2]
        observations.add_feedback(arm, "", bool(rng.random() < (0.9 if arm == "a" else 0.7)), None)

    reading = evaluate(observations, 1.0)
    assert reading.verdict.decision == "rollback"
    assert reading.verdict.startswith("B is less often right by 2")


def test_a_tail_that_lacks_time_and_not_requests_says_so(rng: np.random.Generator) -> None:
    story = Story(plan(metric="p95"), rng)

    assert story.go_on(100).verdict.endswith("more requests")
    assert story.go_on(500).verdict == "not yet: tails are compared over 10 seconds of traffic at least"
    assert story.go_on(900).verdict.decision == "promote"


def test_copies_alone_are_compared_when_the_candidate_gets_nothing_else(rng: np.random.Generator) -> None:
    def seen(split: float) -> Reading:
        observations = Observations(plan(split=split, shadow=100.0))
        for number in range(400):
            for arm in ("a", "b"):
                run_s = 5e-3 * math.exp(rng.normal() * 0.1)
                observations.add_batch(arm, number * 0.01, 1, run_s, is_background=arm == "b")
        return evaluate(observations, 4.0)

    assert seen(0.0).latency is not None
    assert seen(50.0).latency is None


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [(0.123, 0.1, "12 %"), (0.0123, 0.01, "1.2 %"), (-0.0004, 0.2, "0 %"), (0.05, 0.05, "5 %")],
)
def test_percentages_have_the_digits_that_are_known(value: float, width: float, text: str) -> None:
    assert percent(value, width) == text


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [(0.0004, 0.08, "+0.04 %"), (-0.00001, 0.3, "-0.001 %"), (0.0, 0.1, "0 %"), (0.12, 0.1, "+12 %")],
)
def test_the_end_of_an_interval_beside_zero_does_not_look_like_zero(value: float, width: float, text: str) -> None:
    assert end_text(value, width, signed=True) == text


@pytest.mark.parametrize(("number", "said"), [(0.3, 10), (34, 40), (263, 270), (1234, 1300), (98_765, 99_000)])
def test_forecasts_are_rounded_up(number: float, said: int) -> None:
    assert rounded(number) == said
