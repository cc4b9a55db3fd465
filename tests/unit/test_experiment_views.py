"""Experiments as people see them: pages, the A/B tab, tables, the figure that stays. On states that nobody ran."""

from __future__ import annotations

import html
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace

import ipywidgets as widgets
import numpy as np
import pytest
from helpers.dashboard_widgets import NASTY, Tags, all_widgets, button, open_tab, press, shown
from helpers.eventually import eventually
from helpers.recorded import Recorded
from helpers.recorded_experiment import KINDS, STARTED_AT, disagreements, moments, state_of
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb import dashboards
from tfserve_nb.agreement.result import Disagreement
from tfserve_nb.agreement.worst import columns_of, frame_of
from tfserve_nb.dashboards.charts.band import band_chart
from tfserve_nb.dashboards.pages.disagreements import disagreements_page
from tfserve_nb.dashboards.pages.experiment import experiment_page
from tfserve_nb.dashboards.snapshot import Snapshot
from tfserve_nb.dashboards.view import Dashboard, still_page
from tfserve_nb.dashboards.web import WebPages
from tfserve_nb.experiment.plan import Limits, Plan
from tfserve_nb.experiment.state import Estimate, ExperimentState, Guardrail, Moment, Verdict
from tfserve_nb.experiment.views.figure import figure_of, png_of
from tfserve_nb.experiment.views.report import (
    effect_text,
    effect_words,
    estimate_meaning,
    phase_line,
    report_of,
    step_line,
)
from tfserve_nb.reports.html import to_html
from tfserve_nb.reports.text import to_text
from tfserve_nb.types import HistoryEvent

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def controls() -> Iterator[Recorded]:
    yield Recorded()
    dashboards.close_all()


@pytest.fixture
def dashboard(controls: Recorded) -> Dashboard:
    """With the A/B tab in front."""
    made = dashboards.dashboard_for(controls)
    open_tab(made, "A/B")
    return made


def is_shown(dashboard: Dashboard, description: str) -> bool:
    """Whether a button can be seen: neither it nor what holds it is hidden."""

    def seen(one: widgets.Widget) -> bool:
        if getattr(one.layout, "display", None) == "none":
            return False
        if isinstance(one, widgets.Button) and one.description == description:
            return True
        return any(seen(child) for child in getattr(one, "children", ()))

    return seen(dashboard.widget)


def text_of(state: ExperimentState) -> str:
    """The report in lines that are not wrapped."""
    return to_text(report_of(state), 400)


def nasty() -> ExperimentState:
    """Markup in everything that comes from elsewhere."""
    state = state_of("nan")
    reading = replace(
        state.reading,
        verdict=Verdict(NASTY, "rollback"),
        guardrails=(Guardrail(NASTY, NASTY, (True,), is_breached=True),),
        srm=replace(state.reading.srm, unit=NASTY),
    )
    return replace(state, reading=reading, reason=NASTY, plan=Plan(NASTY, 1, 2))


# ---------------------------------------------------------------- pages


@each_kind
def test_every_state_is_a_page_with_the_verdict_first_and_charts_that_have_words(kind: str) -> None:
    state = state_of(kind)

    page = experiment_page(state)

    assert page.index(html.escape(str(state.verdict)[1:])) < page.index("<table")
    assert page.count('role="img" aria-label="Effect on the') == 1
    for drawing in page.split("<svg")[1:]:
        ET.fromstring(f"<svg{drawing.split('</svg>')[0]}</svg>")  # noqa: S314 - our own text
    assert Tags(page).names.count("caption") == Tags(page).names.count("table")


def test_markup_of_users_stays_text() -> None:
    words, scores = np.array([NASTY.encode()], dtype=object), np.ones((1, 2))
    rows = [Disagreement(1.0, {NASTY: words}, {NASTY: scores}, {NASTY: -scores}, 0.0)]
    event = HistoryEvent(STARTED_AT, "rollback", 1, NASTY, NASTY)

    for page in (experiment_page(nasty(), [event]), disagreements_page(nasty(), rows), to_html(report_of(nasty()))):
        assert "<img" not in page
        assert "onerror" in page


def test_the_sample_ratio_is_told_by_symbol_and_words() -> None:
    assert "✓</span> The split is as planned" in experiment_page(state_of("equal"))
    blocked = experiment_page(state_of("mismatch"))
    assert "⚠</span> Sample ratio mismatch" in blocked
    assert "Nothing below can be believed" in blocked


def test_what_happened_by_itself_is_told_with_time_and_reason() -> None:
    state = state_of("nan")
    inside = HistoryEvent(STARTED_AT + 11, "rollback", 1, "NaN in the outputs", "tfserve_nb")
    outside = HistoryEvent(STARTED_AT - 60, "deploy", 1, "long before", "a person")

    page = experiment_page(state, [inside, outside])

    assert "rolled back at " in page
    assert "rows were NaN or infinite, in 2 of the last 3 windows of 5 s: rolled back" in page
    assert "rollback version 1 (NaN in the outputs), tfserve_nb" in page
    assert "long before" not in page


def test_an_experiment_that_passed_says_that_it_waits_for_a_person() -> None:
    assert phase_line(state_of("quality")) == ("passed, and waits for you: %abtest recorded --promote, or --stop")
    asked = replace(state_of("slower"), phase="held", reason="B is slower; nothing was changed, as the plan demands")
    assert phase_line(asked) == "waits for you: B is slower; nothing was changed, as the plan demands"


def test_a_verdict_that_waits_for_a_person_has_the_numbers_of_now() -> None:
    state = state_of("quality")
    assert str(state.verdict) == f"{state.reading.verdict}; waits for a person"

    doubtful = replace(state, reading=replace(state.reading, verdict=Verdict("not yet", "wait")))
    assert (str(doubtful.verdict), doubtful.verdict.decision) == (state.reason, "promote")


def test_an_experiment_that_was_stopped_says_so_beside_what_it_knew() -> None:
    state = replace(state_of("equal"), phase="stopped", reason="stopped by hand")
    assert str(state.verdict) == f"{state.reading.verdict}; stopped by hand"

    state = replace(state, reason="the traffic was changed from outside")
    assert str(state.verdict) == f"{state.reading.verdict}; stopped: the traffic was changed from outside"
    assert text_of(state).count("the traffic was changed from outside") == 1
    assert "50 %     " not in text_of(state).split("Sample ratio")[0]


def test_the_reason_of_a_roll_back_is_read_once_in_a_report() -> None:
    state = state_of("nan")
    assert text_of(state).splitlines()[0].endswith(f"{state.reason}: rolled back")
    assert state.reason not in text_of(state).splitlines()[1]


def test_a_figure_shows_itself_in_a_notebook_that_never_used_pyplot() -> None:
    figure = figure_of(state_of("slower"))
    assert figure._repr_png_().startswith(b"\x89PNG")  # what IPython asks an object for


def test_a_state_is_one_line_in_a_terminal() -> None:
    assert repr(state_of("equal")).startswith(f"<ExperimentState {state_of('equal').plan.name}: version ")
    assert "\n" not in repr(state_of("equal"))


def test_windows_of_guardrails_have_words_for_people_who_cannot_see_them() -> None:
    page = experiment_page(state_of("nan"))

    assert 'aria-label="oldest first: too little traffic, bad, bad"' in page
    assert "✗ broken" in page


def test_a_canary_tells_its_step_and_until_when_it_lasts() -> None:
    state = state_of("canary")

    assert step_line(state).startswith("step 3 of 4 (1 → 5 → 25 → 50 %), at least until ")
    assert "at least until" not in step_line(replace(state, step_since=None))
    assert step_line(replace(state, phase="promoted")) == ""
    assert step_line(state_of("equal")) == ""


@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.floats(-9, 9), st.floats(0, 1e300) | st.just(float("inf"))), max_size=12
    ),
    st.sampled_from([None, 0.05, -0.02]),
)
def test_any_band_is_a_well_formed_chart_within_its_frame(
    steps: list[tuple[int, float, float]], margin: float | None
) -> None:
    found = [Moment(float(place), place * 10 + requests % 7, value, value - half, value + half)
             for place, (requests, value, half) in enumerate(steps)]  # fmt: skip

    text = band_chart(NASTY, found, margin, effect_words("latency"), empty="none yet")

    root = ET.fromstring(text)  # noqa: S314 - our own text
    for one in root.iter("polygon"):
        points = np.array([[float(part) for part in pair.split(",")] for pair in one.attrib["points"].split()])
        assert (points >= 0).all()
        assert (points <= 560).all()
    assert "nan" not in text
    assert ("none yet" in text) == (not found)


def test_the_chart_says_in_words_what_it_draws() -> None:
    text = band_chart("Effect", moments(0.31, 20), 0.05, effect_words("latency"), empty="-")

    label = ET.fromstring(text).attrib["aria-label"]  # noqa: S314 - our own text
    assert label.startswith("Effect: +")
    assert label.endswith("after 800 requests; zero is no difference; the margin is +5.0 %")


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("low", "high", "margin", "worse", "says"),
    [
        (0.01, 0.2, 0.05, 1, "B is worse"),
        (-0.2, -0.01, 0.05, 1, "B is better"),
        (-0.2, 0.04, 0.05, 1, "B is not worse by more than 5 %"),
        (-0.2, 0.06, 0.05, 1, "no difference known yet"),
        (-0.2, 0.04, None, 1, "no difference known yet"),
        (0.01, 0.2, None, -1, "B is better"),
        (-0.2, -0.01, None, -1, "B is worse"),
    ],
)
def test_intervals_are_told_in_words(low: float, high: float, margin: float | None, worse: int, says: str) -> None:
    assert estimate_meaning(Estimate(0.0, low, high, 0.5, 10), margin, worse) == says


@pytest.mark.parametrize(
    ("estimate", "metric", "text"),
    [
        ((0.031, -0.004, 0.069), "latency", "+3.1 % [-0.40, +6.9] %"),
        ((0.0, -np.inf, np.inf), "p95", "0.00 % [-∞, +∞] %"),
        ((3.0, 1.894, 4.526), "latency", "+300 % [+189, +453] %"),
        ((-0.012, -0.02, -0.001), "quality", "-1.2 points [-2.0, -0.10] points"),
    ],
)
def test_effects_carry_their_unit(estimate: tuple[float, float, float], metric: str, text: str) -> None:
    assert effect_text(Estimate(*estimate, 0.5, 10), metric) == text


@each_kind
def test_tables_hold_the_verdict_and_both_arms(kind: str) -> None:
    state = state_of(kind)

    text, page = text_of(state), to_html(report_of(state))

    assert str(state.verdict) in text.splitlines()[0]
    assert f"{state.reading.samples[1]}" in text
    assert Tags(page).names.count("caption") >= 2
    assert ("mismatch" in text) == (kind == "mismatch")


# ---------------------------------------------------------------- the figure


@each_kind
def test_every_state_has_a_figure_with_the_verdict_above_it(kind: str) -> None:
    state = state_of(kind)

    figure = figure_of(state)

    assert str(state.verdict)[:30] in figure.get_suptitle()
    assert len(figure.axes) == 4


def test_text_with_dollars_can_be_drawn() -> None:
    state = replace(state_of("nan"), reason="costs $1 and $x^2$", plan=Plan("a$b", 1, 2))

    assert png_of(state)[:4] == b"\x89PNG"


# ---------------------------------------------------------------- disagreements


def test_disagreements_show_inputs_both_answers_and_say_that_they_are_chosen() -> None:
    page = disagreements_page(state_of("equal"), disagreements(20))

    assert 'alt="image of 8 × 8' in page
    assert "&lt;b&gt;three" in page
    assert "<b>3: 0.9</b><br>0: 0.01, 1: 0.01" in page
    assert "<b>8: 0.9</b>" in page
    assert page.count('<th scope="row"') == 8
    assert "312 rows were predicted by both versions (20 % of the requests are copied, 4 copies were left" in page
    assert "do not read a rate from them" in page


def test_answers_that_are_no_scores_are_shown_as_they_are() -> None:
    nan, few = np.full((1, 10), np.nan), np.array([[1.5]])
    row = Disagreement(np.inf, {"x": np.zeros((1, 2))}, {"y": few, "z": few}, {"y": nan}, 0.0)

    page = disagreements_page(state_of("equal"), [row])

    assert "nan, nan" in page
    assert "<code>1.5</code>" in page
    assert ">–</td>" in page


def test_without_copies_it_is_said_why_there_is_nothing_to_compare() -> None:
    few = state_of("few")

    assert "No rows were compared yet" in disagreements_page(few, [])
    assert "copies no requests" in disagreements_page(
        replace(few, plan=replace(few.plan, shadow=0.0, limits=Limits())), []
    )
    assert disagreements_page(None, []) == ""


def test_disagreements_become_a_frame_with_a_row_each() -> None:
    frame = frame_of(disagreements())

    assert list(frame.columns) == ["score", "at", "image", "text", "price", "digit_a", "digit_b"]
    assert frame.shape == (3, 7)
    assert frame["price"].tolist() == [2.5, 3.5, 4.5]
    assert frame["text"][0] == b"<b>three"
    assert frame["image"][0].shape == (8, 8)
    assert [int(np.argmax(one)) for one in frame["digit_b"]] == [8, 8, 8]


def test_without_pandas_they_become_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)

    columns = frame_of(disagreements())

    assert columns["image"].shape == (3, 8, 8)
    assert columns["digit_a"].shape == (3, 10)


def test_ragged_rows_and_names_that_meet_have_their_own_columns() -> None:
    rows = [
        Disagreement(1.0, {"score": np.ones((1, size))}, {"y": np.ones((1, 2))}, {"y": np.zeros((1, 2))}, 0.0)
        for size in (2, 3)
    ]

    columns = columns_of(rows)

    assert set(columns) == {"score", "at", "score_in", "y_a", "y_b"}
    assert [one.shape for one in columns["score_in"]] == [(2,), (3,)]
    assert columns_of([])["score"].shape == (0,)


# ---------------------------------------------------------------- the tab


def test_without_an_experiment_the_tab_offers_one(dashboard: Dashboard, controls: Recorded) -> None:
    assert is_shown(dashboard, "Start A/B test")
    assert not is_shown(dashboard, "Promote B")
    assert "An experiment splits the requests between two versions" in shown(dashboard)
    split = next(one for one in all_widgets(dashboard.widget) if getattr(one, "description", "") == "B gets, in %")

    split.value = 30
    press(dashboard, "Start A/B test")

    eventually(lambda: controls.calls == ["test 3 against 2, 30 %"])
    eventually(lambda: is_shown(dashboard, "Promote B") and not is_shown(dashboard, "Start A/B test"))
    eventually(lambda: "Not yet: about 300 more" in shown(dashboard))
    press(dashboard, "Undo: A/B test of versions 2 and 3")
    eventually(lambda: controls.calls[-1] == "end stop")


def test_promoting_against_the_verdict_asks_first(dashboard: Dashboard, controls: Recorded) -> None:
    controls.running = state_of("equal")
    dashboard.refresh()

    button(dashboard, "Promote B").click()
    eventually(lambda: "The experiment does not recommend this: not yet" in shown(dashboard))
    assert controls.calls == []
    press(dashboard, "Promote B anyway")

    eventually(lambda: controls.calls == ["end promote"])
    eventually(lambda: "version 2 answers now" in shown(dashboard))
    eventually(lambda: is_shown(dashboard, "Start A/B test"))


def test_promoting_with_the_verdict_and_rolling_back_need_no_question(dashboard: Dashboard, controls: Recorded) -> None:
    controls.running = state_of("quality")
    dashboard.refresh()
    press(dashboard, "Promote B")
    eventually(lambda: controls.calls == ["end promote"])

    controls.running = state_of("equal")
    dashboard.refresh()
    press(dashboard, "Roll back to A")
    eventually(lambda: controls.calls == ["end promote", "end rollback"])


def test_what_ends_by_itself_is_said_once_in_the_line_for_screen_readers(
    dashboard: Dashboard, controls: Recorded
) -> None:
    controls.running = state_of("equal")
    dashboard.refresh()
    controls.running = state_of("nan")
    dashboard.refresh()

    status = next(one for one in all_widgets(dashboard.widget) if 'role="status"' in getattr(one, "value", ""))
    assert "rolled back at " in status.value
    assert "NaN or infinite" in status.value


def test_nothing_is_written_and_no_rows_are_asked_for_while_nothing_changes(
    dashboard: Dashboard, controls: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls.running = state_of("better")
    dashboard.refresh()
    asked: list[int] = []
    monkeypatch.setattr(controls, "disagreements", asked.append)
    section = dashboard._sections[3]  # noqa: SLF001 - the tab
    written: list[object] = []
    for one in (section._page, section._explorer._page, *section._ends):  # noqa: SLF001
        one.observe(written.append)

    dashboard.refresh()
    dashboard.refresh()

    assert written == []
    assert asked == []


def test_other_tabs_do_not_ask_for_the_experiment(controls: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(controls, "experiment", lambda: asked.append("asked"))
    dashboard = dashboards.dashboard_for(controls)

    dashboard.refresh()
    assert asked == []

    open_tab(dashboard, "A/B")
    assert asked != []


def test_disagreements_go_into_the_namespace_under_a_name(dashboard: Dashboard, controls: Recorded) -> None:
    controls.running = state_of("equal")
    dashboard.refresh()
    assert button(dashboard, "To a DataFrame").disabled
    assert "Only a notebook has variables" in shown(dashboard)
    namespace: dict[str, object] = {}
    dashboard.let_bind(namespace.__setitem__)
    name = next(one for one in all_widgets(dashboard.widget) if getattr(one, "description", "") == "Variable")

    press(dashboard, "To a DataFrame")
    eventually(lambda: "disagreements is a DataFrame with 3 rows" in shown(dashboard))
    name.value = "not a name"
    press(dashboard, "To a DataFrame")

    eventually(lambda: "cannot be the name of a variable" in shown(dashboard))
    assert list(namespace) == ["disagreements"]


def test_the_saved_notebook_and_the_web_page_show_it_too(controls: Recorded) -> None:
    snapshot = Snapshot(controls.status(), controls.metrics())
    pages = WebPages(lambda _: controls)
    query = {"a": "1", "b": "2"}
    assert "Effect on the" not in str(pages.page("recorded", "compare", query)["html"])

    controls.running = state_of("slower")

    assert "B is slower by 31 %" in still_page(snapshot, controls.running)
    assert "Effect on the" not in still_page(snapshot)
    page = str(pages.page("recorded", "compare", query)["html"])
    assert "B is slower by 31 %" in page
    assert "differ most" in page
    assert "Versions 1 and 2 over the last" in page
