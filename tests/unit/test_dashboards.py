"""Dashboards on recorded data: no TensorFlow, no server, real widgets."""

from __future__ import annotations

import os
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import ipywidgets as widgets
import numpy as np
import pytest
from helpers.dashboard_widgets import NASTY, Tags, all_widgets, button, open_tab, press, shown
from helpers.eventually import eventually
from helpers.fake_controls import FakeControls
from helpers.recorded import ENGINES
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb import dashboards
from tfserve_nb.api.connect import remote_server
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.dashboards import view
from tfserve_nb.dashboards.actions import rebalanced
from tfserve_nb.dashboards.cells import CellRuns
from tfserve_nb.dashboards.charts.bar import Outline, bar_chart, latency_histogram
from tfserve_nb.dashboards.charts.stacked import stacked_chart
from tfserve_nb.dashboards.charts.svg import Marker, Stretch, TimeAxis
from tfserve_nb.dashboards.pages.values import rendered
from tfserve_nb.dashboards.pages.versions import versions_table
from tfserve_nb.dashboards.snapshot import Snapshot
from tfserve_nb.dashboards.view import Dashboard, still_page
from tfserve_nb.errors import ModelNotFound
from tfserve_nb.serving.telemetry.metrics import Metrics
from tfserve_nb.types import ModelStatus, VersionState, VersionStatus


@pytest.fixture
def controls() -> Iterator[FakeControls]:
    yield FakeControls()
    dashboards.close_all()


def test_the_table_names_the_current_version_states_labels_and_traffic(controls: FakeControls) -> None:
    text = versions_table(controls.status(), controls.metrics())

    assert "2 <b>current</b>" in text
    assert "loading (warming up" in text
    assert "100 %" in text
    assert "stable" in text


def test_percentiles_show_only_with_enough_samples(controls: FakeControls) -> None:
    controls.record(10)
    assert "2.0" not in versions_table(controls.status(), controls.metrics())
    assert "shown from 11 requests on" in versions_table(controls.status(), controls.metrics())

    controls.record(1)
    found = controls.metrics().versions[1]
    assert found.p99_ms is None
    assert f"{found.p50_ms:.2f} ms" in versions_table(controls.status(), controls.metrics())


def test_nothing_of_users_becomes_markup(controls: FakeControls) -> None:
    controls.name = NASTY

    names = Tags(still_page(Snapshot(controls.status(), controls.metrics(), tuple(controls.history())))).names

    assert "table" in names
    assert "svg" in names
    assert "img" not in names


def test_a_failed_version_stays_visible_with_its_reason_and_ended_ones_do_not() -> None:
    status = ModelStatus(
        "net",
        versions=(
            VersionStatus(2, VersionState.END, "INTERNAL", "no graph"),
            VersionStatus(1, VersionState.END),
        ),
        default_version=None,
        traffic={},
        labels={},
        problem="the disk is full",
    )

    text = versions_table(status, Metrics().snapshot("net"))

    assert "failed: no graph" in text
    assert ">1<" not in text
    assert "the disk is full" in text


def test_what_users_have_to_know_of_a_version_stands_below_the_table() -> None:
    notes = ("a run changes its own state (count)", "it cannot answer: no row that was tried could be run: no <PNG>")
    version = VersionStatus(3, VersionState.AVAILABLE, problem="no <PNG>", notes=notes)
    status = ModelStatus("net", versions=(version,), default_version=None, traffic={}, labels={})

    for page in (
        versions_table(status, Metrics().snapshot("net")),
        still_page(Snapshot(status, Metrics().snapshot("net"), ())),
    ):
        assert "available, cannot answer" in page
        assert "Version 3: a run changes its own state (count)" in page
        assert "Version 3: it cannot answer: no row that was tried could be run: no &lt;PNG&gt;" in page


def test_what_runs_a_version_and_what_was_measured_of_its_engines_is_shown_in_the_still_page_too() -> None:
    versions = (
        VersionStatus(3, VersionState.LOADING, engine="onnx"),
        VersionStatus(2, VersionState.AVAILABLE, engine="litert", engines=ENGINES),
        VersionStatus(1, VersionState.AVAILABLE),
    )
    status = ModelStatus("net", versions=versions, default_version=2, traffic={2: 100.0}, labels={})

    table = ET.fromstring(versions_table(status, Metrics().snapshot("net")))  # noqa: S314 - our own
    rows = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
    page = still_page(Snapshot(status, Metrics().snapshot("net"), ()))

    assert [(row[0], row[4]) for row in rows[1:]] == [("3", ""), ("2 current", "litert"), ("1", "tensorflow")]
    assert page.count("Engines of version") == 1
    assert "ONNX has no operation for &lt;Svd&gt;" in page
    assert "not compared" in page


def test_an_engine_is_set_taken_back_and_measured(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    choice(dashboard, "Version").value = 1
    eventually(lambda: choice(dashboard, "Engine").value == "litert")  # what runs it
    choice(dashboard, "Engine").value = "onnx"

    press(dashboard, "Set engine")
    eventually(lambda: "litert runs version 1 now" in shown(dashboard))  # the fake's is always that
    press(dashboard, "Undo: engine onnx for version 1")
    eventually(lambda: "taken back: engine onnx for version 1" in shown(dashboard))
    press(dashboard, "Measure engines")

    eventually(lambda: controls.calls == ["engine onnx 1", "engine litert 1", "measure 1"])
    assert "Engines of version 1" in shown(dashboard)


def test_showing_it_twenty_times_is_one_tree_of_widgets(controls: FakeControls) -> None:
    first = dashboards.dashboard_for(controls)
    num_models = len(all_widgets(first.widget))

    bundles = [dashboards.dashboard_for(controls)._repr_mimebundle_() for _ in range(20)]

    assert all(one == bundles[0] for one in bundles)
    assert set(bundles[0]) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert len(all_widgets(first.widget)) == num_models


def test_a_click_switches_on_the_dashboard_thread_and_says_how_long_it_took(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    controls.threads.clear()

    button(dashboard, "Roll back").click()

    eventually(lambda: "version 1 answers now, switched in" in shown(dashboard))
    eventually(lambda: "1 <b>current</b>" in shown(dashboard))
    assert controls.calls == ["rollback"]
    assert controls.threads == {"tfserve-dashboard", "tfserve-dashboard-action"}


def test_promote_takes_the_chosen_version(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    choice = next(one for one in all_widgets(dashboard.widget) if isinstance(one, widgets.Dropdown))
    assert choice.options == (3, 2, 1)
    assert choice.value == 2

    choice.value = 1
    button(dashboard, "Promote").click()

    eventually(lambda: controls.calls == ["promote 1"])


def test_a_refused_click_shows_what_to_do_and_the_buttons_come_back(controls: FakeControls) -> None:
    controls.default_version = 1
    dashboard = dashboards.dashboard_for(controls)

    button(dashboard, "Roll back").click()

    eventually(lambda: "net has no version before 1 (try: deploy another one)" in shown(dashboard))
    eventually(lambda: not button(dashboard, "Roll back").disabled)


def test_a_model_that_is_gone_is_a_state_not_a_traceback(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)

    controls.failure = ModelNotFound("net is not served", hint="%deploy it")
    dashboard.refresh()

    assert "net is not served (try: %deploy it); what was shown last stays below" in shown(dashboard)
    assert button(dashboard, "Roll back").disabled
    assert "<table" in shown(dashboard)

    controls.failure = None
    dashboard.refresh()
    assert not button(dashboard, "Roll back").disabled


def test_a_defect_while_drawing_does_not_end_the_thread(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)

    controls.failure = RuntimeError("broken pipe")
    dashboard.refresh()
    assert "RuntimeError: broken pipe" in shown(dashboard)

    controls.failure = None
    button(dashboard, "Roll back").click()
    eventually(lambda: controls.calls == ["rollback"])


def test_nothing_is_written_while_nothing_changes(controls: FakeControls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "METRICS_EVERY_S", 0.0)
    dashboard = dashboards.dashboard_for(controls)
    dashboard.refresh()
    written: list[object] = []
    for one in all_widgets(dashboard.widget):
        one.observe(written.append)

    dashboards._open.updater.call(dashboard.tick)  # noqa: SLF001 - what the thread does each second
    assert written == []

    controls.record(1)
    dashboards._open.updater.call(dashboard.tick)  # noqa: SLF001
    assert written != []


def test_new_numbers_appear_by_themselves(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)

    controls.record(15)

    eventually(lambda: "text-align:right;padding:3px 8px" in shown(dashboard) and ">15<" in shown(dashboard))


def test_closing_leaves_a_picture_and_no_thread(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)

    dashboards.close_all()

    assert "this is what was shown last" in shown(dashboard)
    assert "<table" in dashboard._repr_mimebundle_()["text/html"]
    assert not any(thread.name == "tfserve-dashboard" for thread in threading.enumerate())
    assert dashboards.dashboard_for(controls) is not dashboard


def test_another_deployment_of_the_same_name_has_its_own_dashboard_beside_it(controls: FakeControls) -> None:
    first = dashboards.dashboard_for(controls)

    second = dashboards.dashboard_for(FakeControls())

    assert second is not first
    assert "this is what was shown last" not in shown(first)


def test_handles_of_the_same_server_share_a_dashboard(controls: FakeControls) -> None:
    def handle(token: str) -> Deployment:
        return Deployment("net", remote_server("http://127.0.0.1:9", token))

    boards = [dashboards.dashboard_for(handle("right")) for _ in range(3)]

    assert boards[0] is boards[1] is boards[2]
    assert dashboards.dashboard_for(handle("new")) is not boards[0]
    assert "127.0.0.1:9 cannot be reached" in shown(boards[0])
    assert "is the server running?" in shown(boards[0])


def test_watch_keeps_redrawing_in_the_cell(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    dashboards._open.updater.stop()  # noqa: SLF001 - as in a front end where no thread may write
    controls.record(12)

    dashboard.watch(0.01)

    assert ">12<" in shown(dashboard)


def slider(dashboard: Dashboard, version: int) -> widgets.IntSlider:
    return next(
        one for one in all_widgets(dashboard.widget)
        if isinstance(one, widgets.IntSlider) and one.description == f"v{version} traffic"
    )  # fmt: skip


def choice(dashboard: Dashboard, description: str) -> widgets.Dropdown:
    return next(
        one for one in all_widgets(dashboard.widget)
        if isinstance(one, widgets.Dropdown) and one.description == description
    )  # fmt: skip


def test_moving_one_slider_moves_the_others_and_applies_at_once(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)

    slider(dashboard, 1).value = 30

    eventually(lambda: controls.calls == ["traffic {1: 30.0, 2: 70.0}"])
    eventually(lambda: slider(dashboard, 2).value == 70)
    eventually(lambda: "traffic version 1: 30 %, version 2: 70 %" in shown(dashboard))


def test_undo_takes_the_last_change_back_once(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    assert button(dashboard, "Undo").disabled
    slider(dashboard, 1).value = 30
    press(dashboard, "Undo: traffic split")

    eventually(lambda: controls.calls[-1:] == ["promote 2"])
    eventually(lambda: button(dashboard, "Undo").disabled)


def test_deleting_asks_first(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    choice(dashboard, "Version").value = 1

    button(dashboard, "Delete…").click()
    eventually(lambda: "Delete version 1 of net from disk?" in shown(dashboard))
    button(dashboard, "Keep it").click()
    button(dashboard, "Delete…").click()
    assert controls.calls == []
    press(dashboard, "Delete version 1")

    eventually(lambda: controls.calls == ["delete 1"])


def test_labels_are_set_moved_back_and_wanted(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    label = next(one for one in all_widgets(dashboard.widget) if isinstance(one, widgets.Text))

    button(dashboard, "Set label").click()
    eventually(lambda: "write the label first" in shown(dashboard))
    label.value = "stable"
    button(dashboard, "Set label").click()
    press(dashboard, "Undo: label stable → version 2")

    eventually(lambda: controls.calls == ["label stable 2", "label stable 1"])


def test_a_loading_version_is_seen_while_an_action_takes_its_time(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    go_on = threading.Event()
    controls.stage = lambda _: go_on.wait(10)

    button(dashboard, "Stage").click()
    eventually(lambda: "stage version 2…" in shown(dashboard))
    controls.labels = {"meanwhile": 1}
    eventually(lambda: "meanwhile" in shown(dashboard))
    button(dashboard, "Roll back").click()
    eventually(lambda: "one thing at a time" in shown(dashboard))
    assert controls.calls == []
    go_on.set()

    eventually(lambda: "version 2 is loaded" in shown(dashboard))


def test_pause_lets_charts_stand_still_and_go_on(controls: FakeControls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "METRICS_EVERY_S", 0.0)
    dashboard = dashboards.dashboard_for(controls)
    open_tab(dashboard, "Latency")
    pause = next(one for one in all_widgets(dashboard.widget) if isinstance(one, widgets.ToggleButton))
    pause.value = True
    eventually(lambda: "paused at" in shown(dashboard))

    controls.record(700)
    dashboard.refresh()
    assert "p99 2" not in shown(dashboard)
    pause.value = False

    eventually(lambda: "paused at" not in shown(dashboard))
    eventually(lambda: "v1 p50" in shown(dashboard))


def test_span_and_signature_decide_what_is_counted(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    controls.record(20)
    open_tab(dashboard, "Latency")

    choice(dashboard, "Last").value = "15 minutes"

    eventually(lambda: "Latencies of the last 15 min" in shown(dashboard))
    assert choice(dashboard, "Signature").options == ("all", "serving_default")


def test_what_stands_for_everything_can_be_chosen_again(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    controls.record(20)
    open_tab(dashboard, "Latency")
    of_versions = next(
        one for one in all_widgets(dashboard.widget)
        if isinstance(one, widgets.Dropdown) and "all" in one._options_labels and one.description == "Version"  # noqa: SLF001
    )  # fmt: skip
    assert (of_versions.index, of_versions.label) == (0, "all")

    of_versions.index = 1
    eventually(lambda: not dashboard._updater._commands.qsize())  # noqa: SLF001 - what was chosen is drawn
    of_versions.index = 0  # as front ends choose

    assert (of_versions.index, of_versions.label) == (0, "all")
    assert choice(dashboard, "Send to").index == 0


def test_two_versions_stand_side_by_side_with_a_word_of_caution(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    controls.record(20, version=1, latency_s=0.002)
    controls.record(20, version=2, latency_s=0.004)

    open_tab(dashboard, "A/B")

    text = shown(dashboard)
    assert "A: version 2" in text
    assert "they do not test" in text
    assert "× 0.5" in text


def test_resources_tell_of_this_process(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)

    open_tab(dashboard, "Resources")

    assert f"Process {os.getpid()}" in shown(dashboard)
    assert "tfserve-dashboard" in shown(dashboard)


def test_sampled_requests_are_shown_as_what_they_are_and_sent_again(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    open_tab(dashboard, "Requests")
    assert "Nothing is kept of requests until you turn sampling on" in shown(dashboard)

    button(dashboard, "Sample requests").click()
    eventually(lambda: "image of 8 × 8" in shown(dashboard))
    assert "hello" in shown(dashboard)
    button(dashboard, "Send again").click()

    eventually(lambda: "largest difference from before: 0.25" in shown(dashboard))
    assert controls.calls == ["sample True", "send 7 to None"]


def test_nobody_looking_costs_nothing(controls: FakeControls) -> None:
    dashboard = dashboards.dashboard_for(controls)
    root = dashboard.widget
    root._view_count = 1  # noqa: SLF001 - what a front end does
    root._view_count = 0  # noqa: SLF001
    time.sleep(0.1)
    controls.threads.clear()

    time.sleep(1.2)
    assert controls.threads == set()

    root._view_count = 1  # noqa: SLF001
    eventually(lambda: bool(controls.threads))


def test_the_still_page_follows_and_is_the_last_state_when_it_closes(controls: FakeControls) -> None:
    pages: list[str] = []
    dashboard = dashboards.dashboard_for(controls)
    dashboard.keep_still(pages.append)
    assert f"<style>.{dashboard.still_id}{{display:none}}</style>" in shown(dashboard)
    controls.default_version = 1
    dashboard.refresh()

    dashboard.close()

    assert "1 <b>current</b>" in pages[-1]
    assert f'class="{dashboard.still_id}"' in pages[-1]


@pytest.mark.parametrize(
    ("name", "text"), [("COLAB_RELEASE_TAG", "Colab"), ("VSCODE_PID", "VS Code"), ("VOILA_BASE_URL", "Voilà")]
)
def test_front_ends_that_are_not_live_are_told(
    controls: FakeControls, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, "1")

    assert text in shown(dashboards.dashboard_for(controls))


@given(st.dictionaries(st.integers(1, 9), st.integers(0, 100), min_size=1, max_size=6), st.integers(-5, 120), st.data())
def test_shares_always_sum_to_a_hundred(shares: dict[int, int], percent: int, data: st.DataObject) -> None:
    version = data.draw(st.sampled_from(sorted(shares)))

    found = rebalanced(shares, version, percent)

    assert sum(found.values()) == 100
    assert found.keys() == shares.keys()
    assert all(share >= 0 for share in found.values())
    assert found[version] == (100 if len(shares) == 1 else min(100, max(0, percent)))


@given(
    st.lists(st.lists(st.floats(0, 50) | st.just(float("nan")), min_size=4, max_size=4), max_size=4),
    st.dictionaries(st.sampled_from(["free", "full", "≤64"]), st.integers(0, 10**9)),
    st.lists(st.tuples(st.integers(0, 199), st.integers(0, 10**6)), max_size=20),
)
def test_any_numbers_make_well_formed_charts(
    layers: list[list[float]], counts: dict[str, int], buckets: list[tuple[int, int]]
) -> None:
    axis = TimeAxis(np.array([6.0, 4.0, 2.0, 0.0]), 8.0, [Marker(3.0, NASTY)], [Stretch(5.0, 0.0, NASTY)])
    histogram = np.zeros(200, dtype=np.int64)
    for bucket, count in buckets:
        histogram[bucket] += count

    texts = [
        stacked_chart("t", "ms", axis, {str(n): np.array(layer) for n, layer in enumerate(layers)}, empty="none"),
        bar_chart("t", counts, empty="none"),
        latency_histogram("t", [Outline("v1", histogram, 0)], empty="none"),
    ]

    for text in texts:
        ET.fromstring(text)  # noqa: S314 - our own text
        assert "nan" not in text
        assert "<img" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.array([0.1, 0.9], dtype=np.float32), "largest: 1 (0.9)"),
        (np.arange(100), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11</code> … 100 in all"),
        (np.array([b"<b>", b"\xff\xfe"], dtype=object), "&lt;b&gt;<br>(2 bytes)"),
        (np.full((8, 8), np.nan), "image of 8 × 8"),
        (np.zeros((5, 6, 3), dtype=np.uint8), 'alt="image of 5 × 6 × 3'),
        (np.array(3.5), "<code>3.5</code>"),
    ],
)
def test_tensors_are_shown_as_what_they_are(value: np.ndarray, text: str) -> None:
    assert text in rendered(value)


def test_cells_that_ran_are_marked_and_short_ones_are_not() -> None:
    runs = CellRuns()
    runs.start("x = 1")
    runs.end()
    runs.start("model.fit(...)")
    time.sleep(0.25)
    during = runs.since(0)
    runs.end()

    assert [one.text for one in runs.since(0)] == ["model.fit(...)"]
    assert [one.ended_at for one in during] == [None]
    assert runs.since(time.time() + 1) == ()
