"""The table of actions: what they need, what they say, and what takes them back, for the widgets and the web page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.fake_controls import FakeControls

from tfserve_nb.dashboards.actions import ACTIONS, ENGINE_ACTIONS, LABEL_ACTIONS, VERSION_ACTIONS, Choice
from tfserve_nb.dashboards.web import WebPages
from tfserve_nb.errors import InvalidRequest
from tfserve_nb.serving.engines.kinds import NAMES


@pytest.fixture
def controls() -> FakeControls:
    """Versions 1 and 2 are loaded, 3 is loading; 2 has the traffic, `stable` is version 1."""
    return FakeControls()


WAYS_BACK = [
    ("promote", {"version": 1}, "promote 1", "version 1 answers now, switched in", "promote 2"),
    ("rollback", {}, "rollback", "version 1 answers now, switched in", "promote 2"),
    ("stage", {"version": 3}, "stage 3", "version 3 is loaded", "unload 3"),
    ("stage", {"version": 1}, "stage 1", "version 1 is loaded", None),
    ("unload", {"version": 1}, "unload 1", "version 1 is unloaded; its files stay", "stage 1"),
    ("unload", {"version": 3}, "unload 3", "version 3 is unloaded; its files stay", None),
    ("delete", {"version": 1}, "delete 1", "version 1 is deleted", None),
    ("set_label", {"version": 2, "label": "stable"}, "label stable 2", "stable points to version 2", "label stable 1"),
    ("set_label", {"version": 2, "label": "new"}, "label new 2", "new points to version 2", "label new None"),
    ("remove_label", {"label": "stable"}, "label stable None", "label stable is removed", "label stable 1"),
    (
        "set_engine", {"version": 1, "engine": "onnx"}, "engine onnx 1", "litert runs version 1 now",
        "engine litert 1",
    ),
    ("measure_engines", {"version": 1}, "measure 1", "the engines of version 1 are measured", None),
    (
        "share", {"version": 1, "percent": 30}, "traffic {1: 30.0, 2: 70.0}",
        "traffic version 1: 30 %, version 2: 70 %", "promote 2",
    ),
    ("traffic", {"weights": {"1": 100}}, "traffic {1: 100.0}", "traffic version 1: 100 %, version 2: 0 %", "promote 2"),
    ("sample", {}, "sample True", "requests are sampled from now on", None),
    ("stop_sampling", {}, "sample False", "sampling is off", None),
    (
        "ab_test", {"a": 2, "b": 1, "percent": 20}, "test 1 against 2, 20 %",
        "A/B test of versions 2 and 1 runs", "end stop",
    ),
    ("promote_b", {"a": 2, "b": 1}, "end promote", "version 1 answers now", None),
    ("back_to_a", {"a": 2, "b": 1}, "end rollback", "version 2 answers now", None),
    ("stop_test", {"a": 2, "b": 1}, "end stop", "the experiment is stopped; version 2 answers", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "call", "said", "back"), WAYS_BACK)
def test_what_an_action_does_says_and_how_it_is_taken_back(
    controls: FakeControls, name: str, given: dict[str, Any], call: str, said: str, back: str | None
) -> None:
    pages = WebPages(lambda _: controls)

    done = json.loads(json.dumps(pages.act("net", name, given)))

    assert controls.calls == [call]
    assert said in done["said"]
    if back is None:
        assert done["undo"] is None
        return
    pages.act("net", done["undo"]["action"], done["undo"]["choice"])
    assert controls.calls == [call, back]


def test_the_table_above_is_complete() -> None:
    assert {name for name, *_ in WAYS_BACK} == set(ACTIONS)


def test_a_split_is_taken_back_as_a_split(controls: FakeControls) -> None:
    controls.traffic = {1: 10.0, 2: 90.0}

    job = ACTIONS["promote"].job(controls, Choice(version=1), controls.status())

    assert job.undo is not None
    assert (job.undo.what, job.undo.action) == ("promote version 1", "traffic")
    assert job.undo.choice.weights == {1: 10.0, 2: 90.0}


@pytest.mark.parametrize("name", [name for name, action in ACTIONS.items() if action.needs])
def test_what_was_not_chosen_is_asked_for(controls: FakeControls, name: str) -> None:
    with pytest.raises(InvalidRequest, match="first"):
        ACTIONS[name].job(controls, Choice(), controls.status())
    assert controls.calls == []


def test_wrong_choices_are_refused(controls: FakeControls) -> None:
    pages = WebPages(lambda _: controls)

    with pytest.raises(InvalidRequest, match="there is no action 'explode'"):
        pages.act("net", "explode", {})
    with pytest.raises(InvalidRequest, match="version 3 is not loaded"):
        pages.act("net", "share", {"version": 3, "percent": 10})
    with pytest.raises(ValueError, match="x"):
        pages.act("net", "promote", {"version": "x"})
    assert controls.calls == []


def test_the_web_page_gets_the_buttons_of_the_widgets(controls: FakeControls) -> None:
    table = json.loads(json.dumps(WebPages(lambda _: controls).page("net", "actions", {})))

    assert table["rows"] == [list(VERSION_ACTIONS), list(LABEL_ACTIONS), list(ENGINE_ACTIONS)]
    assert table["engines"] == list(NAMES)
    assert {name: value["text"] for name, value in table["actions"].items()} == {
        name: action.text for name, action in ACTIONS.items()
    }
    assert table["actions"]["delete"]["question"].startswith("Delete version {version} of {name}")
