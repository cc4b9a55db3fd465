"""Replays: what is compared, how requests go out in turns, and what may be concluded."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.agreement.result import Agreement, Disagreement, OutputAgreement
from tfserve_nb.bench.load.process import generate
from tfserve_nb.bench.load.samples import OK, TIMED_OUT, Samples, joined
from tfserve_nb.bench.load.schedule import Load, Target, replay_load
from tfserve_nb.bench.run import Watcher
from tfserve_nb.bench.statistics import Summary, summarise
from tfserve_nb.errors import InvalidOption
from tfserve_nb.replay.figure import png_of
from tfserve_nb.replay.report import report_of
from tfserve_nb.replay.result import ReplayLimits, ReplayOptions, ReplayResult
from tfserve_nb.replay.run import (
    FEWEST_ROUNDS,
    MAX_GAP_S,
    Turn,
    paired_effects,
    replay_in_turns,
    schedule_of,
    turns_of,
)
from tfserve_nb.reports.html import to_html
from tfserve_nb.reports.text import to_text

# ---------------------------------------------------------------- turns


def test_gaps_are_divided_by_the_speed_and_long_ones_shortened() -> None:
    schedule = schedule_of([10.0, 10.5, 10.5, 110.5], speed=2.0)

    assert schedule.times_s.tolist() == pytest.approx([0.0, 0.25, 0.25, 0.25 + MAX_GAP_S / 2], abs=1e-5)
    assert (np.diff(schedule.times_s) > 0).all()
    assert schedule.num_shortened == 1


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60))
def test_every_round_goes_to_both_versions_and_the_order_changes(gaps: list[float]) -> None:
    times_s = schedule_of(np.cumsum(gaps).tolist(), 1.0).times_s
    turns = turns_of(times_s, (3, 4))

    rounds = [turns[place : place + 2] for place in range(0, len(turns), 2)]
    assert all(a[1:] == b[1:] for a, b in rounds)
    assert all([a.version, b.version] == ([3, 4], [4, 3])[place % 2] for place, (a, b) in enumerate(rounds))
    assert len(rounds) >= FEWEST_ROUNDS
    covered = [place for a, _ in rounds for place in range(a.first, a.stop)]
    assert covered == list(range(len(times_s))) * (len(covered) // len(times_s))
    assert [turn[1:] for turn in turns_of(times_s, (3,))] == [a[1:] for a, _ in rounds[: len(turns_of(times_s, (3,)))]]


def test_a_load_with_times_is_a_replay() -> None:
    load = replay_load([0.0, 0.5, 1.5])
    assert "recorded arrivals" in str(load)
    assert Load(**json.loads(json.dumps(dataclasses.asdict(load)))).times_s == (0.0, 0.5, 1.5)
    with pytest.raises(InvalidOption, match="arrivals='replay' must be one of poisson, constant"):
        Load(rate=5, arrivals="replay")


def bodies(num: int) -> tuple[bytes, ...]:
    return tuple(b'{"instances": [%d]}' % number for number in range(num))


def test_requests_have_their_own_paths_and_a_pause_waits_for_all_answers(server) -> None:
    server.pause_s = lambda number: 0.2 if number == 0 else 0.0
    target = Target("json", server.url, bodies(3), 1, paths=("/a", "/b", "/c"))

    found: list[Samples] = []

    def keep(new: Samples) -> bool:
        found.append(new)
        return True

    generate(target, replay_load([0.0, 0.01, 0.02], pauses=(2,)), keep)
    samples = joined(found)

    order = np.argsort(samples.due_s)
    assert sorted(head.split()[1] for head in server.heads) == [b"/a", b"/b", b"/c"]
    assert server.heads[-1].split()[1] == b"/c"
    assert samples.due_s[order[2]] >= samples.done_s[order[:2]].max()
    assert samples.latency_s[order[2]] < 0.2  # counted from when it was due, which was after the pause


def test_a_replay_in_turns_puts_each_answer_to_its_request(server) -> None:
    """Version 4 refuses every third request."""
    targets = {
        3: Target("json", f"{server.url}/versions/3:predict", bodies(6), 1),
        4: Target("json", f"{server.url}/versions/4:predict", bodies(6), 1),
    }
    seen: list[bytes] = []
    original = server._answer  # noqa: SLF001 - a test's server

    async def answer(head: bytes, writer: object) -> None:
        number = len([one for one in seen if b"versions/4" in one])
        seen.append(head)
        server.status = lambda _: 503 if b"versions/4" in head and number % 6 in (0, 3) else 200
        await original(head, writer)

    server._answer = answer  # noqa: SLF001
    schedule = schedule_of([0.0, 0.01, 0.02, 0.03, 0.04, 0.05], 1.0)

    found, interrupted = replay_in_turns(targets, schedule.times_s, 5.0, Watcher())

    assert not interrupted
    assert found[3].summary.num_due == found[4].summary.num_due == 6 * FEWEST_ROUNDS
    assert found[3].summary.num_errors == 0
    assert found[4].summary.errors == {"503": 2 * FEWEST_ROUNDS}
    assert len(found[3].rounds) == FEWEST_ROUNDS
    assert np.isfinite(found[3].latency_s).all()
    assert (found[4].status == 503).sum() == 2
    assert np.isnan(found[4].latency_s).sum() == 2


class Impatient(Watcher):
    """Interrupts once it has seen so many answers."""

    def __init__(self, num: int) -> None:
        self.num = num

    def follow(self, load: Load, samples: Samples) -> None:
        if len(samples) >= self.num:
            raise KeyboardInterrupt


@pytest.mark.parametrize("num", [0, 9])
def test_an_interrupted_replay_keeps_complete_rounds(server, num: int) -> None:
    server.pause_s = lambda _: 0.05
    targets = {version: Target("json", f"{server.url}/versions/{version}", bodies(4), 1) for version in (3, 4)}

    found, interrupted = replay_in_turns(targets, np.array([0.0, 0.01, 0.02, 0.03]), 5.0, Impatient(num))

    assert interrupted
    assert len(found[3].rounds) == len(found[4].rounds) < FEWEST_ROUNDS
    assert len(found[3].rounds) >= num // 8
    assert found[3].summary.num_due == 4 * len(found[3].rounds)


# ---------------------------------------------------------------- what may be concluded


def rounds_of(values: np.ndarray, num: int = 20) -> list[np.ndarray]:
    return np.array_split(values, num)


def test_the_same_latencies_have_a_ratio_of_one_and_too_few_have_none(rng) -> None:
    a = rounds_of(rng.lognormal(size=400))
    (p50, p95) = paired_effects(a, a)
    assert (p50.quantile, p50.ratio, p50.low, p50.high, p50.num_pairs) == (0.5, 1.0, 1.0, 1.0, 20)
    assert p95.ratio == 1.0
    assert paired_effects([np.ones(5)], [np.ones(10)]) == ()
    assert paired_effects([], []) == ()


def test_the_interval_covers_the_truth_when_the_machine_disturbs_whole_rounds() -> None:
    """Rounds share a disturbance; the true ratio of the medians is 1.2."""
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shared = np.repeat(rng.lognormal(sigma=0.5, size=24), 20)
        a, b = (shared * scale * rng.lognormal(sigma=0.3, size=480) for scale in (1.0, 1.2))
        effect = paired_effects(rounds_of(a, 24), rounds_of(b, 24), seed)[0]
        covered += effect.low <= 1.2 <= effect.high
    assert covered >= 51  # 85 %: the percentile bootstrap is a little too narrow


def summary_of(num: int, num_failed: int = 0, took_s: float = 0.01) -> Summary:
    statuses = [503] * num_failed + [OK] * (num - num_failed)
    rows = [(0.01 * place, 0.01 * place, 0.01 * place, 0.01 * place + took_s, status) for place, status in
            enumerate(statuses)]  # fmt: skip
    return summarise(Samples.of(rows, {503: "too <much>"} if num_failed else {}), replay_load([0.01 * num]))


def agreement_of(num_same: int, flips: dict[tuple[int, int], int] | None = None) -> Agreement:
    found = OutputAgreement(
        "class shares", "rows are nonnegative", 100, num_same, largest_difference=0.5, bias=0.1, flips=flips or {}
    )
    return Agreement(100, num_same, {"y": found})


def result_of(**other: Any) -> ReplayResult:
    agreement = agreement_of(100)
    same = rounds_of(np.linspace(0.01, 0.02, 200))
    plain = ReplayResult(
        name="net", onto=4, against=3, protocol="json", speed=1.0, num_requests=200, num_rows=100, seconds=2.0,
        num_shortened=0, agreement=agreement, failures={}, disagreements=(), num_reasked=0, recorded=(),
        a=summary_of(200), b=summary_of(200), effects=paired_effects(same, same),
        requests={"due_s": np.arange(3.0), "a_ms": np.ones(3), "b_ms": np.array([1.0, 2.0, np.nan]),
                  "b_status": np.array(["ok", "ok", "503"], dtype=object), "difference": np.array([0.0, 1.0, np.nan])},
    )  # fmt: skip
    return dataclasses.replace(plain, **other)


def test_a_version_that_agrees_and_is_as_fast_passes() -> None:
    result = result_of()
    assert result.passed()
    assert result.verdict == (
        "version 4 agrees on all of 100 rows and is not slower than version 3 by more than 25 % "
        "(p50 × 1.00 [1.00, 1.00]): it can take over"
    )
    assert result.verdict.decision == "promote"
    json.dumps(result.stored(), allow_nan=False)


def test_each_reason_against_a_version_names_its_number() -> None:
    differs = result_of(agreement=agreement_of(97, {(1, 2): 3}))
    assert differs.problems() == ("it disagrees on 3 % of 100 rows, allowed are 1 %",)
    assert differs.passed(max_disagreement=0.03 + 1e-9)

    slow = np.linspace(0.01, 0.02, 200)
    slower = result_of(effects=paired_effects(rounds_of(slow), rounds_of(1.5 * slow)))
    assert "its p50 takes 1.50 times as long as version 3's [1.50, 1.50], allowed is 1.25 times" in slower.problems()
    assert slower.slowdown == pytest.approx(0.5)
    assert slower.passed(max_slowdown=0.5 + 1e-9)
    assert slower.verdict.decision == "rollback"

    failing = result_of(b=summary_of(200, 2), failures={"it broke": 4})
    assert failing.problems() == ("it failed 2 % of the requests (it broke)",)
    assert failing.passed(max_errors=0.02)
    assert result_of(a=summary_of(200, 2), b=summary_of(200, 2)).passed()

    assert not result_of(interrupted=True).passed()
    assert result_of(interrupted=True).verdict.decision == "wait"
    assert "redacted" in result_of(agreement=Agreement()).problems()[0]
    assert "its latency was not compared with another version's" in result_of(a=None, effects=()).verdict
    assert "too few requests to compare its latency" in result_of(effects=()).verdict


def test_a_slowdown_that_chance_explains_does_not_count() -> None:
    rng = np.random.default_rng(0)
    wild = [rng.lognormal(sigma=0.1, size=10) * scale for scale in rng.lognormal(sigma=1.5, size=12)]
    other = [rng.lognormal(sigma=0.1, size=10) * scale for scale in rng.lognormal(sigma=1.5, size=12)]
    effects = paired_effects(wild, other)
    if effects[0].ratio < 1:
        effects = paired_effects(other, wild)

    assert effects[0].ratio > 1.25
    assert result_of(effects=effects).passed()
    assert "as far as this machine could tell" in result_of(effects=effects).verdict


def test_text_html_and_figure_show_it_and_escape_what_users_gave() -> None:
    row = Disagreement(
        0.5, {"x<b>": np.array([[b"<i>"]], object)}, {"y": np.ones((1, 20))}, {"y": np.ones((1, 2))}, 0.0
    )
    result = result_of(
        name="<net>", disagreements=(row,), failures={"<script>": 3}, num_reasked=2, num_shortened=1, run=7,
        agreement=agreement_of(97, {(1, 2): 3}), b=summary_of(200, 3), interrupted=True,
    )  # fmt: skip
    report = report_of(result)
    text, html = to_text(report), to_html(report)
    wanted = [
        "as recorded", "version 3", "B / A", "replay 7: 200 captured requests", "97 of 100 (97 %)",
        "class shares", "1 → 2: 3",
        "3 of 200 (3 × 503)", "2 requests are redacted", "1 gaps of more than a second", "INTERRUPTED",
    ]  # fmt: skip
    for words in wanted:
        assert words in text
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<i>" not in html
    assert "<b>" not in html
    for one in (result, result_of(a=None, agreement=Agreement(), requests={})):
        assert png_of(one).startswith(b"\x89PNG")
        assert to_html(report_of(one))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"onto": "4"}, "onto='4' must be a version number"),
        ({"onto": True}, "onto=True"),
        ({"onto": 1, "against": 2.5}, "against=2.5"),
        ({"onto": 1, "speed": 0}, "speed=0 must be a number of at least 0.001"),
        ({"onto": 1, "seconds": math.inf}, "seconds=inf"),
        ({"onto": 1, "tolerance": -1.0}, "tolerance=-1.0"),
        ({"onto": 1, "protocol": "kernel"}, "protocol='kernel' must be one of json, binary, grpc"),
    ],
)
def test_wrong_options_are_named(options, text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        ReplayOptions(**options)


def test_wrong_limits_are_named() -> None:
    for options, text in (({"max_disagreement": -0.1}, "max_disagreement=-0.1"), ({"requests": 0}, "requests=0"),
                          ({"speed": -1}, "speed=-1"), ({"max_slowdown": "1"}, "max_slowdown='1'")):  # fmt: skip
        with pytest.raises(InvalidOption, match=text):
            ReplayLimits(**options)  # type: ignore[arg-type]
    assert Turn(1, 0, 2).stop == 2
    assert TIMED_OUT == -1
