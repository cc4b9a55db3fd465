"""`tfserve-nb serve --dashboard`: the page's files for everybody, its views and controls for whoever has the token."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.black_box import START_S, Served, Start
from helpers.eventually import eventually
from helpers.saved_models import write_quick_half_plus_two

import tfserve_nb

PAGE = "/tfserve/dashboard"
VIEWS = "/tfserve/v1/models/two/pages"


@pytest.fixture(scope="module", params=[0, 1], ids=["one-process", "worker"])
def shown(start_for_module: Start, tmp_path_factory: Any, request: pytest.FixtureRequest) -> Served:
    folder = tmp_path_factory.mktemp("dashboard")  # an experiment is kept beside the models
    for version, offset in (("1", 2.0), ("2", 3.0)):
        write_quick_half_plus_two(folder / "two" / version, offset=offset)
    config = folder / "models"
    config.write_text(
        f"""model_config_list {{ config {{ name: "two" base_path: "{folder}/two" model_platform: "tensorflow"
            model_version_policy {{ all {{}} }} }} }}"""
    )
    return start_for_module(f"--model_config_file={config}", "--dashboard", f"--workers={request.param}")


def token_of(served: Served) -> str:
    found = re.fullmatch(rf"http://127.0.0.1:{served.rest_port}{PAGE}#token=(\S+)", served.dashboard_link)
    assert found, served.dashboard_link
    return found.group(1)


def view(served: Served, page: str, **query: str) -> Any:
    path = f"{VIEWS}/{page}?" + "&".join(f"{name}={value}" for name, value in query.items())
    return served.rest("GET", path, headers={"Authorization": f"Bearer {token_of(served)}"})


def test_the_token_is_in_a_file_of_this_user_and_not_in_the_log(shown: Served) -> None:
    assert f"Dashboard: http://127.0.0.1:{shown.rest_port}{PAGE}\n" in shown.text
    assert stat.S_IMODE(shown.dashboard_file.stat().st_mode) == 0o600
    assert token_of(shown) not in shown.text


def test_the_page_and_its_files_need_no_token_and_load_nothing_from_elsewhere(shown: Served) -> None:
    files = {name: shown.rest("GET", f"{PAGE}{name}") for name in ("", "/app.js", "/app.css")}

    assert [status for status, *_ in files.values()] == [200] * 3
    kinds = [headers["Content-Type"].split(";")[0] for *_, headers in files.values()]
    assert kinds == ["text/html", "text/javascript", "text/css"]
    assert all("default-src 'none'" in headers["Content-Security-Policy"] for *_, headers in files.values())
    assert not any(re.search(r"(src|href)=\"(https?:)?//", str(text)) for _, text, _ in files.values())
    assert shown.rest("GET", f"{PAGE}/__init__.py")[0] == 404


def test_views_and_controls_need_the_token_while_predicting_needs_none(shown: Served) -> None:
    assert shown.rest("POST", "/v1/models/two:predict", {"instances": [1.0]})[:2] == (200, {"predictions": [3.5]})
    assert shown.rest("GET", f"{VIEWS}/versions")[0] == 401
    assert shown.rest("POST", "/tfserve/v1/models/two/promote", {"version": 1})[0] == 401
    foreign = {"Authorization": f"Bearer {token_of(shown)}", "Origin": "http://elsewhere.example"}
    assert shown.rest("GET", f"{VIEWS}/versions", headers=foreign)[0] == 403


def test_every_view_is_drawn(shown: Served) -> None:
    shown.rest("POST", "/v1/models/two:predict", {"instances": [1.0, 2.0]})

    assert "two: versions" in view(shown, "versions")[1]["html"]
    assert "Requests per second" in view(shown, "latency", span="1%20minute")[1]["html"]
    assert "Versions 1 and 2 over" in view(shown, "compare", a="1", b="2")[1]["html"]
    assert "tfserve-server" in view(shown, "resources")[1]["html"]
    assert view(shown, "actions")[1]["actions"]["promote"]["text"] == "Promote"
    assert view(shown, "nothing")[0] == 400


def test_actions_are_carried_out_and_say_how_they_are_taken_back(shown: Served) -> None:
    def act(name: str, given: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {token_of(shown)}"}
        return shown.rest("POST", f"/tfserve/v1/models/two/actions/{name}", given, headers=headers)[:2]

    status, done = act("share", {"version": 1, "percent": 30})

    assert (status, done["said"]) == (200, "traffic version 1: 30 %, version 2: 70 %")
    assert (done["undo"]["what"], done["undo"]["action"]) == ("traffic split", "promote")
    assert act(done["undo"]["action"], done["undo"]["choice"])[0] == 200
    assert shown.rest("POST", "/v1/models/two:predict", {"instances": [1.0]})[1] == {"predictions": [3.5]}
    assert act("set_label", {"version": 1}) == (
        400, {"error": "write the label first, such as stable or canary", "hint": "", "code": "INVALID_ARGUMENT",
              "kind": "InvalidRequest"},
    )  # fmt: skip
    assert act("promote", {"version": "x"})[0] == 400
    assert act("explode", {})[0] == 400
    assert shown.rest("POST", "/tfserve/v1/models/two/actions/promote", {"version": 1})[0] == 401


def test_an_experiment_is_shown_with_its_verdict(shown: Served) -> None:
    handle = tfserve_nb.connect(f"http://127.0.0.1:{shown.rest_port}/v1/models/two", token_of(shown))
    test = handle.ab_test(2, 1, split=50)
    for _ in range(20):
        shown.rest("POST", "/v1/models/two:predict", {"instances": [1.0, 2.0]})

    page = view(shown, "compare", a="1", b="2")[1]["html"]
    test.stop()

    assert "version 1 (B) compared with version 2 (A)" in page
    assert "Not yet: about" in page
    assert "Guardrails" in page
    assert "stopped at" in view(shown, "compare", a="1", b="2")[1]["html"]


def test_requests_are_sampled_looked_at_and_sent_again(shown: Served) -> None:
    handle = tfserve_nb.connect(f"http://127.0.0.1:{shown.rest_port}/v1/models/two", token_of(shown))
    assert handle.samples() == []
    handle.sample_requests()
    assert handle.is_sampling

    def sampled() -> list[Any]:
        shown.rest("POST", "/v1/models/two:predict", {"instances": [1.0, 2.0]})
        return list(handle.samples())

    sample = eventually(sampled)[0]
    handle.sample_requests(False)

    np.testing.assert_array_equal(sample.inputs["x"].reshape(-1), [1.0, 2.0])
    np.testing.assert_array_equal(sample.outputs["y"].reshape(-1), [3.5, 4.0])
    assert sample.version == 2
    assert sample.parts.run > 0
    np.testing.assert_array_equal(np.asarray(handle.send_again(sample, 1)).reshape(-1), [2.5, 3.0])
    page = view(shown, "requests", request=str(sample.number), to="1")[1]
    assert f"Request {sample.number} again, to version 1" in page["html"]
    assert "largest difference from before: 1" in page["html"]
    assert page["is_on"] is False


def test_resources_come_over_the_admin_api(shown: Served) -> None:
    handle = tfserve_nb.connect(f"http://127.0.0.1:{shown.rest_port}/v1/models/two", token_of(shown))

    resources = handle.resources()

    assert resources.pid == shown.process.pid
    assert resources.threads["tfserve-server"] == 1
    eventually(lambda: len(handle.resources().age_s) > len(resources.age_s))


def test_the_dashboard_needs_the_rest_port(start: Start, store: Path) -> None:
    served = start(f"--model_base_path={store}/half_plus_two", "--port=8599", "--dashboard", wait=False, rest=False)

    served.wait_for("--dashboard needs --rest_api_port")
    assert served.process.wait(START_S) == 255
