"""The web page of `tfserve-nb serve --dashboard`, driven as people do: keyboard, buttons, sliders, another token."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.black_box import Served, servers
from helpers.lab import chromium_page, missing_tool
from helpers.saved_models import write_half_plus_two

from tfserve_nb.server.admin.client import RemoteModels
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.versions.source import VersionSource

pytestmark = [
    pytest.mark.skipif(bool(missing_tool()), reason=missing_tool() or "-"),
    pytest.mark.timeout(400),  # a browser on a busy machine
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two versions of a model, and the page."""
    folder = tmp_path_factory.mktemp("web")
    write_half_plus_two(folder / "two" / "1")
    write_half_plus_two(folder / "two" / "2", offset=3.0)
    config = folder / "models"
    config.write_text(
        f"""model_config_list {{ config {{ name: "two" base_path: "{folder}/two" model_platform: "tensorflow"
            model_version_policy {{ all {{}} }} }} }}"""
    )
    with servers(lambda: tmp_path_factory.mktemp("log")) as start:
        yield start(f"--model_config_file={config}", "--dashboard")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def page(served: Served) -> Iterator[Any]:
    """The page, opened with the link that the server writes."""
    with chromium_page() as one:
        errors: list[str] = []
        one.on("pageerror", lambda error: errors.append(str(error)))
        one.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        one.goto(served.dashboard_link)
        one.get_by_text("two: versions").wait_for()
        yield one
        assert [error for error in errors if "401" not in error] == []


def says(page: Any, text: str) -> None:
    page.get_by_role("status").filter(has_text=text).wait_for()


def test_versions_are_switched_split_labelled_and_taken_back(page: Any, served: Served) -> None:
    assert "token" not in page.url
    page.get_by_label("Version", exact=True).select_option("1")
    page.get_by_role("button", name="Promote").click()
    says(page, "version 1 answers now, switched in")
    assert served.rest("POST", "/v1/models/two:predict", {"instances": [1.0]})[1] == {"predictions": [2.5]}

    page.get_by_role("button", name="Undo: promote version 1").click()
    says(page, "taken back: promote version 1")
    assert served.rest("POST", "/v1/models/two:predict", {"instances": [1.0]})[1] == {"predictions": [3.5]}

    page.get_by_label("v1 traffic").focus()
    page.keyboard.press("PageUp")
    says(page, "traffic version 1: 10 %, version 2: 90 %")
    page.get_by_role("cell", name="10 %").wait_for()
    page.keyboard.press("PageUp")  # whoever uses the keyboard is still there
    says(page, "traffic version 1: 20 %, version 2: 80 %")
    page.get_by_label("Label", exact=True).fill("steady")
    page.get_by_role("button", name="Set label").click()
    says(page, "steady points to version 1")
    page.get_by_role("cell", name="steady").wait_for()

    page.get_by_label("Engine", exact=True).select_option("tensorflow")
    page.get_by_role("button", name="Set engine").click()
    says(page, "tensorflow runs version 1 now")
    page.get_by_role("button", name="Set engine").click()  # what changes nothing leaves the controls as they were
    says(page, "tensorflow runs version 1 now")
    assert page.get_by_role("button", name="Set engine").is_enabled()


def test_a_model_that_comes_later_can_be_chosen_unloaded_and_brought_back(page: Any, served: Served) -> None:
    token = served.dashboard_link.partition("#token=")[2]
    store = served.log.parent / "own"
    core = RemoteModels(f"http://127.0.0.1:{served.rest_port}", token)
    for version in (1, 2):
        folder = store / "late" / str(version)
        write_half_plus_two(folder)
        core.deploy("late", version, VersionSource(folder, BatchingOptions()), store, Placement())

    page.locator("#model option", has_text="late").wait_for(state="attached")
    assert page.get_by_label("Model").input_value() == "two"
    page.get_by_label("Model").select_option("late")
    page.get_by_text("late: versions").wait_for()
    page.get_by_label("Version", exact=True).select_option("1")
    page.get_by_role("button", name="Unload").click()
    says(page, "version 1 is unloaded; its files stay")
    page.get_by_role("button", name="Undo: unload version 1").click()
    says(page, "taken back: unload version 1")
    assert core.available("late") == (1, 2)
    page.get_by_role("button", name="Stage").click()
    says(page, "version 1 is loaded")
    assert page.get_by_role("button", name="Undo").is_disabled()  # it was loaded before
    core.undeploy("late")
    core.connection.close()


def test_tabs_by_keyboard_charts_and_requests(page: Any, served: Served) -> None:
    page.get_by_role("tab", name="Versions").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("img", name=re.compile("Requests per second")).wait_for()
    assert page.get_by_role("tab", name="Latency").get_attribute("aria-selected") == "true"
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Go on").click()
    page.keyboard.press("Tab")
    page.get_by_role("tab", name="Resources").click()
    page.get_by_text(f"Process {served.process.pid}").wait_for()
    page.get_by_role("tab", name="A/B").click()
    page.get_by_text("Versions 2 and 1 over").wait_for()
    page.get_by_role("tab", name="Requests").click()
    page.get_by_role("button", name="Sample requests").click()
    says(page, "requests are sampled from now on")
    served.rest("POST", "/v1/models/two:predict", {"instances": [8.0]})
    page.get_by_text("Sampled requests").wait_for()
    page.get_by_label("Send to").select_option("1")
    page.get_by_role("button", name="Send again").click()
    page.get_by_text(re.compile(r"Request \d+ again, to version 1")).wait_for()


def test_a_wrong_token_asks_for_the_right_one(page: Any) -> None:
    page.evaluate("sessionStorage.setItem('tfserve-token', 'wrong')")
    page.reload()

    page.get_by_label("Token").wait_for()
    says(page, "The token is wrong")


def test_the_page_loads_nothing_from_elsewhere(page: Any, served: Served) -> None:
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.reload()
    page.get_by_text("two: versions").wait_for()

    assert seen
    assert all(url.startswith((f"http://127.0.0.1:{served.rest_port}/", "data:")) for url in seen)
