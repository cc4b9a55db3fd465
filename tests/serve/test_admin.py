"""The admin API of a server that follows a configuration, and the handle that `connect` gives for it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.black_box import Served, Start

import tfserve_nb
from tfserve_nb.errors import InvalidOption, NotAvailable, VersionNotFound

TOKEN = "secret"


@pytest.fixture(scope="module")
def administered(start_for_module: Start, store: Path, tmp_path_factory: Any) -> Served:
    folder = tmp_path_factory.mktemp("admin")
    (folder / "token").write_text(TOKEN)
    (folder / "models").write_text(
        f"""model_config_list {{
          config {{ name: "two" base_path: "{store}/two_versions" model_platform: "tensorflow"
                    model_version_policy {{ all {{}} }} }}
          config {{ name: "many" base_path: "{store}/many" model_platform: "tensorflow" }}
        }}"""
    )
    return start_for_module(f"--model_config_file={folder}/models", f"--auth_token_file={folder}/token")


def call(served: Served, method: str, path: str, body: bytes | None = None, token: str = TOKEN) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{served.rest_port}/tfserve/v1/{path}", body, {"Authorization": f"Bearer {token}"},
        method=method,
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else text.decode()


def test_the_handle_of_a_configured_model(administered: Served) -> None:
    url = f"http://127.0.0.1:{administered.rest_port}"
    with pytest.raises(InvalidOption, match="serves many, two"):
        tfserve_nb.connect(url, TOKEN)
    handle = tfserve_nb.connect(f"{url}/v1/models/two", TOKEN)
    x = np.float32([1.0, 2.0, 5.0])

    assert handle.versions == (1, 2)
    assert handle.version == 2
    np.testing.assert_array_equal(handle.predict(x), [3.5, 4.0, 5.5])
    np.testing.assert_array_equal(handle.predict(x, version=1), [2.5, 3.0, 4.5])
    handle.promote(1)
    np.testing.assert_array_equal(handle.predict(x), [2.5, 3.0, 4.5])
    handle.set_label("stable", 1)
    np.testing.assert_array_equal(handle.predict(x, label="stable"), [2.5, 3.0, 4.5])
    handle.set_traffic({1: 50, 2: 50})
    assert handle.traffic == {1: 50.0, 2: 50.0}
    handle.promote(2)
    handle.rollback(to=1)
    handle.rollback(to=2)
    assert [event.action for event in handle.history(3)] == ["rollback", "rollback", "promote"]
    assert sum(one.num_requests for one in handle.metrics().versions.values()) == 4
    with pytest.raises(VersionNotFound, match="its configuration serves 1, 2"):
        handle.promote(9)
    with pytest.raises(InvalidOption, match="follows this server's configuration"):
        handle.undeploy()
    assert handle.status().versions[0].weights_bytes > 0


def test_text_and_other_dtypes_travel(administered: Served) -> None:
    handle = tfserve_nb.connect(f"http://127.0.0.1:{administered.rest_port}", TOKEN, name="many")

    words = np.array([b"a", "ä".encode()], dtype=object)
    answer = handle.predict(words, signature="text")
    assert answer["t_bytes"].tolist() == words.tolist()
    assert answer["t"].tolist() == words.tolist()
    for dtype in ("int32", "int64", "uint8", "bool", "float64"):
        given = np.array([[1, 0]], dtype=dtype)
        back = handle.predict(given, signature=dtype)
        assert back.dtype == given.dtype
        np.testing.assert_array_equal(back, given)
    back = handle.predict(np.array([np.nan, np.inf]), signature="float64")
    np.testing.assert_array_equal(back, [np.nan, np.inf])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "models/none", None, 404, "no model 'none' is served here"),
        ("GET", "models/two/dance", None, 404, "no action GET dance"),
        ("POST", "models/two/promote", b"{", 400, "JSON parse error: unexpected end of data"),
        ("POST", "models/two/promote", b'{"version":\n 2,}', 400, "JSON parse error: trailing comma"),
        ("POST", "models/two/promote", b'{"version": "\xff"}', 400, "JSON parse error: "),
        ("POST", "models/two/promote", b"[" * 5000, 400, "JSON parse error: "),
        ("POST", "models/two/split", b'{"weights": NaN, }', 400, "JSON parse error: "),
        (
            "POST",
            "models/two/label",
            b"label=canary",
            400,
            "JSON parse error: unexpected character, expected a JSON value: line 1 column 1",
        ),
        ("POST", "models/two/promote", b"[]", 400, "the body must be a JSON object, and is []"),
        ("POST", "models/two/promote", b"{}", 400, "'version' is missing"),
        ("POST", "models/two/promote", b'{"version": "x"}', 400, "version=\"x\": 'x' is no integer"),
        ("POST", "models/two/traffic", b'{"weights": {"1": 50}}', 400, "50"),
        ("POST", "models/two/split", b'{"weights": {"1": 50}}', 400, "50"),
        ("POST", "models/two/split", b'{"weights": {"1": 100}, "key_header": "a b"}', 400, "key_header='a b'"),
        ("POST", "models/two/split", b'{"weights": {"1": 100}, "shadow": [2, 0]}', 400, "percentage above 0"),
        ("POST", "models/two/shadow", b'{"version": 9}', 404, "serves no version 9"),
        ("POST", "models/two/shadow", b"{}", 400, "'version' is missing"),
        ("POST", "models/two/label", b'{"label": "%2e", "version": 1}', 400, "label '%2e' cannot be a label"),
        ("GET", "models/two/metrics?span_s=0", None, 400, "span_s=0"),
        ("POST", "models/two/undeploy", b"{}", 400, "follows this server's configuration"),
        ("POST", "resume", b'{"base_path": "/none"}', 200, ""),
    ],
)
def test_requests_that_make_no_sense(
    administered: Served, method: str, path: str, body: bytes | None, status: int, text: str
) -> None:
    found, value = call(administered, method, path, body)

    assert found == status
    assert text in value.get("error", "")


def test_nobody_without_the_token_and_no_api_without_a_token(administered: Served, served: Served) -> None:
    assert call(administered, "GET", "models", token="wrong")[0] == 401
    assert call(administered, "GET", "models")[1]["models"] == ["many", "two"]
    assert call(served, "GET", "models")[0] == 404
    with pytest.raises(NotAvailable, match="has no admin API"):
        tfserve_nb.connect(f"http://127.0.0.1:{served.rest_port}", "any")
