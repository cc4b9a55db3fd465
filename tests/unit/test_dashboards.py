"""Dashboards on recorded data: no TensorFlow, no server, real widgets."""

from __future__ import annotations

import html.parser
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import ipywidgets as widgets
import numpy as np
import pytest

from tfserve_nb import dashboards
from tfserve_nb.dashboards import view
from tfserve_nb.dashboards.pages.still import still_page
from tfserve_nb.dashboards.pages.versions import versions_table
from tfserve_nb.dashboards.snapshot import Snapshot
from tfserve_nb.dashboards.view import Dashboard
from tfserve_nb.errors import ModelNotFound, VersionNotFound
from tfserve_nb.serving.metrics import Metrics, RequestRecord
from tfserve_nb.serving.model_metrics import ModelMetrics
from tfserve_nb.serving.request_samples import Parts, RequestSample
from tfserve_nb.serving.resources import ResourceReader, Resources
from tfserve_nb.types import HistoryEvent, ModelStatus, VersionState, VersionStatus

NASTY = '<img src=x onerror="alert(1)">'


SAMPLE = RequestSample(
    7, 1.7e9, 2, "serving_default", "REST", "OK", "", 1,
    {"image": np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8), "text": np.array([b"hello"], dtype=object)},
    {"digit": np.array([[0.5, 0.5]], dtype=np.float32)}, False, 1.5, Parts(0.1, 0.2, 1.0, 0.2),
)  # fmt: skip


class Recorded:
    """Controls of a model with versions 1 and 2, as `DeploymentControls`."""

    def __init__(self, name: str = "net") -> None:
        self.name = name
        self.default_version = 2
        self.recorder = Metrics()
        self.calls: list[str] = []
        self.is_sampling = False
        self.reader = ResourceReader()
        self.threads: set[str] = set()
        self.failure: Exception | None = None
        self.traffic: dict[int, float] = {}
        self.labels: dict[str, int] = {"stable": 1}

    def status(self) -> ModelStatus:
        self.threads.add(threading.current_thread().name)
        if self.failure is not None:
            raise self.failure
        return ModelStatus(
            self.name,
            versions=(
                VersionStatus(3, VersionState.LOADING, detail=f"warming up {NASTY}"),
                VersionStatus(2, VersionState.AVAILABLE, deployed_at=time.time()),
                VersionStatus(1, VersionState.AVAILABLE),
            ),
            default_version=self.default_version,
            traffic=self.traffic or {self.default_version: 100.0},
            labels=self.labels,
        )

    def metrics(self, span_s: int = 120, step_s: int = 2, signature: str | None = None) -> ModelMetrics:
        return self.recorder.snapshot(self.name, span_s=span_s, step_s=step_s)

    def promote(self, version: int) -> None:
        self.calls.append(f"promote {version}")
        self.default_version = version

    def stage(self, version: int) -> None:
        self.calls.append(f"stage {version}")

    def set_label(self, label: str, version: int | None) -> None:
        self.calls.append(f"label {label} {version}")
        self.labels = {**self.labels, label: version} if version is not None else {}

    def set_traffic(self, weights: Mapping[int, float]) -> None:
        self.calls.append(f"traffic {dict(weights)}")
        self.traffic = dict(weights)

    def resources(self) -> Resources:
        """What this process takes."""
        return self.reader.read()

    def sample_requests(self, is_on: bool = True) -> None:
        """Begin or end sampling."""
        self.calls.append(f"sample {is_on}")
        self.is_sampling = is_on

    def samples(self, limit: int = 50) -> list[RequestSample]:
        """One request with an image, while sampling is on."""
        return [SAMPLE][:limit] if self.is_sampling else []

    def send_again(self, sample: RequestSample, version: int | None = None) -> np.ndarray:
        """The same answer, a little different."""
        self.calls.append(f"send {sample.number} to {version}")
        return np.array([[0.25, 0.75]], dtype=np.float32)

    def undeploy(self, version: int | None = None, *, delete: bool = False) -> None:
        self.calls.append(f"{'delete' if delete else 'unload'} {version}")

    def rollback(self, to: int | None = None) -> None:
        self.calls.append("rollback")
        if self.default_version == 1:
            raise VersionNotFound("net has no version before 1", hint="deploy another one")
        self.default_version = 1

    def history(self, limit: int = 100) -> list[HistoryEvent]:
        return [HistoryEvent(time.time(), "deploy", 2, NASTY, NASTY)][:limit]

    def record(self, num: int, *, version: int = 1, latency_s: float = 0.002) -> None:
        for _ in range(num):
            now_s = time.perf_counter()
            start_s = now_s - latency_s
            self.recorder.record(
                RequestRecord(self.name, version, "serving_default", "OK", 1, start_s, start_s, now_s, now_s, now_s)
            )


@pytest.fixture
def controls() -> Iterator[Recorded]:
    yield Recorded()
    dashboards.close_all()


class Tags(html.parser.HTMLParser):
    """Which elements a text has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def all_widgets(root: widgets.Widget) -> list[widgets.Widget]:
    return [root, *(deeper for child in getattr(root, "children", ()) for deeper in all_widgets(child))]


def button(dashboard: Dashboard, description: str) -> widgets.Button:
    return next(
        one for one in all_widgets(dashboard.widget)
        if isinstance(one, widgets.Button) and one.description == description
    )  # fmt: skip


def shown(dashboard: Dashboard) -> str:
    return "".join(one.value for one in all_widgets(dashboard.widget) if isinstance(one, widgets.HTML))


def eventually(is_true: Callable[[], bool], limit_s: float = 10.0) -> bool:
    until_s = time.perf_counter() + limit_s
    while not is_true() and time.perf_counter() < until_s:
        time.sleep(0.01)
    return is_true()


def test_the_table_names_the_current_version_states_labels_and_traffic(controls: Recorded) -> None:
    text = versions_table(controls.status(), controls.metrics())

    assert "2 <b>current</b>" in text
    assert "loading (warming up" in text
    assert "100 %" in text
    assert "stable" in text


def test_percentiles_show_only_with_enough_samples(controls: Recorded) -> None:
    controls.record(10)
    assert "2.0" not in versions_table(controls.status(), controls.metrics())
    assert "shown from 11 requests on" in versions_table(controls.status(), controls.metrics())

    controls.record(1)
    found = controls.metrics().versions[1]
    assert found.p99_ms is None
    assert f"{found.p50_ms:.2f} ms" in versions_table(controls.status(), controls.metrics())


def test_nothing_of_users_becomes_markup(controls: Recorded) -> None:
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


def test_showing_it_twenty_times_is_one_tree_of_widgets(controls: Recorded) -> None:
    first = dashboards.dashboard_for(controls)
    num_models = len(all_widgets(first.widget))

    bundles = [dashboards.dashboard_for(controls)._repr_mimebundle_() for _ in range(20)]

    assert all(one == bundles[0] for one in bundles)
    assert set(bundles[0]) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert len(all_widgets(first.widget)) == num_models


def test_a_click_switches_on_the_dashboard_thread_and_says_how_long_it_took(controls: Recorded) -> None:
    dashboard = dashboards.dashboard_for(controls)
    controls.threads.clear()

    button(dashboard, "Roll back").click()

    assert eventually(lambda: "version 1 answers now, switched in" in shown(dashboard))
    assert eventually(lambda: "1 <b>current</b>" in shown(dashboard))
    assert controls.calls == ["rollback"]
    assert controls.threads == {"tfserve-dashboard", "tfserve-dashboard-action"}


def test_promote_takes_the_chosen_version(controls: Recorded) -> None:
    dashboard = dashboards.dashboard_for(controls)
    choice = next(one for one in all_widgets(dashboard.widget) if isinstance(one, widgets.Dropdown))
    assert choice.options == (3, 2, 1)
    assert choice.value == 2

    choice.value = 1
    button(dashboard, "Promote").click()

    assert eventually(lambda: controls.calls == ["promote 1"])


def test_a_refused_click_shows_what_to_do_and_the_buttons_come_back(controls: Recorded) -> None:
    controls.default_version = 1
    dashboard = dashboards.dashboard_for(controls)

    button(dashboard, "Roll back").click()

    assert eventually(lambda: "net has no version before 1 (try: deploy another one)" in shown(dashboard))
    assert eventually(lambda: not button(dashboard, "Roll back").disabled)


def test_a_model_that_is_gone_is_a_state_not_a_traceback(controls: Recorded) -> None:
    dashboard = dashboards.dashboard_for(controls)

    controls.failure = ModelNotFound("net is not served", hint="%deploy it")
    dashboard.refresh()

    assert "net is not served (try: %deploy it); what was shown last stays below" in shown(dashboard)
    assert button(dashboard, "Roll back").disabled
    assert "<table" in shown(dashboard)

    controls.failure = None
    dashboard.refresh()
    assert not button(dashboard, "Roll back").disabled


def test_a_defect_while_drawing_does_not_end_the_thread(controls: Recorded) -> None:
    dashboard = dashboards.dashboard_for(controls)

    controls.failure = RuntimeError("broken pipe")
    dashboard.refresh()
    assert "RuntimeError: broken pipe" in shown(dashboard)

    controls.failure = None
    button(dashboard, "Roll back").click()
    assert eventually(lambda: controls.calls == ["rollback"])


def test_nothing_is_written_while_nothing_changes(controls: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_new_numbers_appear_by_themselves(controls: Recorded) -> None:
    dashboard = dashboards.dashboard_for(controls)

    controls.record(15)

    assert eventually(lambda: "text-align:right;padding:3px 8px" in shown(dashboard) and ">15<" in shown(dashboard))


def test_closing_leaves_a_picture_and_no_thread(controls: Recorded) -> None:
    dashboard = dashboards.dashboard_for(controls)

    dashboards.close_all()

    assert "this is what was shown last" in shown(dashboard)
    assert "<table" in dashboard._repr_mimebundle_()["text/html"]
    assert not any(thread.name == "tfserve-dashboard" for thread in threading.enumerate())
    assert dashboards.dashboard_for(controls) is not dashboard


def test_another_deployment_of_the_same_name_has_its_own_dashboard_beside_it(controls: Recorded) -> None:
    first = dashboards.dashboard_for(controls)

    second = dashboards.dashboard_for(Recorded())

    assert second is not first
    assert "this is what was shown last" not in shown(first)


def test_watch_keeps_redrawing_in_the_cell(controls: Recorded) -> None:
    dashboard = dashboards.dashboard_for(controls)
    dashboards._open.updater.stop()  # noqa: SLF001 - as in a front end where no thread may write
    controls.record(12)

    dashboard.watch(0.01)

    assert ">12<" in shown(dashboard)
