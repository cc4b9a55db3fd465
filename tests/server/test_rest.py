"""The REST calls on real sockets: routes, forms, error texts and status codes as TensorFlow Serving has them."""

from __future__ import annotations

import gzip
import json
import logging

import pytest
from helpers.eventually import eventually

from tfserve_nb.errors import DeadlineExceeded, QueueFull, ServingError

ROWS = {"instances": [[1.0, 2.0], [3.0, 4.0]]}


def test_predict_in_row_form_answers_row_by_row(common) -> None:
    answer = common.predict(ROWS)

    assert answer.status == 200
    assert answer.json == {"predictions": [[4.0, 6.0], [8.0, 10.0]]}
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-TFServe-Version"] == "2"
    assert "Server" not in answer.headers


def test_predict_in_columnar_form_answers_in_columns(common) -> None:
    assert common.predict({"inputs": [[1, 2]]}).json == {"outputs": [[4.0, 6.0]]}
    assert common.predict({"inputs": {"x": [[1, 2]], "more": 1}}).json == {"outputs": [[4.0, 6.0]]}


def test_named_rows_and_several_outputs(common) -> None:
    body = {"signature_name": "pair", "instances": [{"a": 2, "b": [1, 2]}, {"a": 3, "b": [0.5, 1]}]}

    assert common.predict(body).json == {
        "predictions": [{"sum": 5.0, "product": [2.0, 4.0]}, {"sum": 4.5, "product": [1.5, 3.0]}]
    }


def test_text_and_base64(common) -> None:
    body = {"signature_name": "text", "instances": ["häh", {"b64": "AAH/"}]}

    answer = common.predict(body).json["predictions"]

    assert answer[0] == {"s_bytes": {"b64": "aMOkaA=="}, "t": "häh"}
    assert answer[1]["s_bytes"] == {"b64": "AAH/"}


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/v1/models/double/versions/1:predict", "1"),
        ("/v1/models/double/labels/stable:predict", "1"),
        ("/V1/Models/double/versions/2:predict", "2"),
        ("/v1/models/d%6Fuble:predict", "2"),
    ],
)
def test_versions_and_labels_choose_who_answers(common, path: str, version: str) -> None:
    assert common.predict(ROWS, path).headers["X-TFServe-Version"] == version


def test_status_lists_versions_newest_first(common) -> None:
    answer = common.call("GET", "/v1/models/double")

    assert [one["version"] for one in answer.json["model_version_status"]] == ["2", "1"]
    assert answer.json["model_version_status"][0] == {
        "version": "2",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert answer.text.startswith('{\n "model_version_status": [\n  {\n   "version": "2"')
    assert len(common.call("GET", "/v1/models/double/versions/1").json["model_version_status"]) == 1
    assert len(common.call("GET", "/v1/models/double/labels/any").json["model_version_status"]) == 2


def test_metadata_describes_the_signatures(common) -> None:
    answer = common.call("GET", "/v1/models/double/versions/1/metadata").json

    assert answer["model_spec"] == {"name": "double", "signature_name": "", "version": "1"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": False},
        "name": "serving_default_x:0",
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/v1/models", None, 400, "Missing model name in request."),
        ("POST", "/v1/models/double", ROWS, 400, "Malformed request: POST /v1/models/double"),
        ("POST", "/v1/models/double:predict?x=1", ROWS, 400, "Malformed request: POST /v1/models/double:predict?x=1"),
        ("POST", "/v1/models/double:PREDICT", ROWS, 400, "Malformed request: POST /v1/models/double:PREDICT"),
        ("PUT", "/v1/models/double:predict", ROWS, 400, "Malformed request: PUT /v1/models/double:predict"),
        ("GET", "/v1/models/none", None, 404, "Could not find any versions of model none"),
        ("GET", "/v1/models/double/versions/9", None, 404, "Could not find version 9 of model double"),
        ("POST", "/v1/models/none:predict", b"", 400, "JSON Parse error: The document is empty"),
        ("POST", "/v1/models/none:predict", {}, 404, "Servable not found for request: Latest(none)"),
        (
            "POST",
            "/v1/models/double/versions/9:predict",
            {},
            404,
            "Servable not found for request: Specific(double, 9)",
        ),
        ("POST", "/v1/models/double/labels/x:predict", {}, 400, "Unrecognized servable version label: x"),
        ("POST", "/v1/models/double:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("POST", "/v1/models/double:predict", [1, 2], 400, "JSON Value: [1, 2] Is not object"),
        (
            "POST",
            "/v1/models/double:predict",
            {"signature_name": "none", "instances": [1]},
            400,
            'Serving signature name: "none" not found in signature def',
        ),
        ("POST", "/v1/models/double:predict", {"instances": []}, 400, "No values in 'instances' array"),
        ("POST", "/v1/models/double:predict", {"instances": 1}, 400, "Expecting 'instances' to be an list/array"),
        ("POST", "/v1/models/double:predict", {"instances": [1], "inputs": [1]}, 400, "expecting only one of"),
        (
            "POST",
            "/v1/models/double:predict",
            {"instances": [[1, "a"]]},
            400,
            (
                "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
                'JSON Value: "a" Type: String is not of expected type: float'
            ),
        ),
        (
            "POST",
            "/v1/models/double:predict",
            {"instances": [[1, 2], [1, True]]},
            400,
            "element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: true Type: True is not of expected",
        ),
        ("POST", "/v1/models/double:predict", {"instances": [[1, 2], [1]]}, 400, "Expecting tensor size: 2 but got: 1"),
        ("POST", "/v1/models/double:predict", {"instances": [[1, 2], {"x": 1}]}, 400, "got object at item 1"),
        ("POST", "/v1/models/double:predict", {"instances": [{"z": [1, 2]}]}, 400, "does not have named input: z"),
        ("POST", "/v1/models/double:predict", {"inputs": {"z": 1}}, 400, "Missing named input: x in 'inputs' object."),
        ("POST", "/v1/models/double:predict", {"inputs": [[1, 2], [3]]}, 400, "unexpected size: 1 at level: 1"),
        (
            "POST",
            "/v1/models/double:predict",
            {"instances": [[1, 2, 3]]},
            400,
            "has shape [1, 3], expected float32[?, 2]",
        ),
        ("POST", "/v1/models/double:predict", {"instances": [[-1000, 0]]}, 400, "bad value"),
        ("POST", "/v1/models/double:predict", b"{", 400, "JSON Parse error: "),
        (
            "POST",
            "/v1/models/double:predict",
            {"signature_name": "pair", "instances": [1]},
            400,
            "instances is a plain list, but expecting list of objects",
        ),
        (
            "POST",
            "/v1/models/double:predict",
            {"signature_name": "pair", "instances": [{"a": 1.0, "b": [1, 2]}]},
            400,
            "element: 0 key: a of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 1.0 Type: Number is not of",
        ),
        (
            "POST",
            "/v1/models/double:predict",
            {"signature_name": 1},
            400,
            "'signature_name' key must be a string value.",
        ),
    ],
)
def test_errors_have_tensorflow_servings_status_and_text(
    common, method: str, path: str, body: object, status: int, text: str
) -> None:
    answer = common.call(method, path, body)

    assert answer.status == status
    assert text in answer.json["error"]
    eventually(lambda: common.serving.num_held == 0)


def test_other_paths_get_a_page_and_a_closed_connection(common) -> None:
    answer = common.call("GET", "/elsewhere")

    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/html")
    assert "<h1>Not Found</h1>" in answer.text
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("refusal", "status", "retry_after"),
    [
        (QueueFull("no room"), 503, "1"),
        (QueueFull("no room", retry_after_s=2.3), 503, "3"),
        (DeadlineExceeded("no hope", retry_after_s=0.2), 504, "1"),
        (DeadlineExceeded("no answer"), 504, None),
    ],
)
def test_who_is_refused_learns_when_to_come_again(
    server, serving, refusal: ServingError, status: int, retry_after: str | None
) -> None:
    serving.refusal = refusal

    answers = [
        server.predict({"instances": [[1, 2]]}),
        server.call(
            "POST",
            "/v2/models/double/infer",
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]},
        ),
    ]

    assert [(one.status, one.headers["Retry-After"]) for one in answers] == [(status, retry_after)] * 2


def test_version_beyond_int64_is_refused_with_an_empty_body(common) -> None:
    answer = common.call("GET", f"/v1/models/double/versions/{2**63}")

    assert (answer.status, answer.text) == (400, "")


def test_nan_and_infinity_come_and_go(common) -> None:
    answer = common.predict(b'{"instances": [[NaN, -Infinity]]} and more')

    assert answer.text == '{"predictions":[[NaN,-Infinity]]}'


def test_float32_answers_keep_their_short_text(common) -> None:
    assert common.predict({"instances": [[0.05, 0.1]]}, "/v1/models/double/versions/1:predict").text == (
        '{"predictions":[[1.1,1.2]]}'
    )


def test_gzip_body_is_inflated_and_a_broken_one_counts_as_empty(make_server) -> None:
    server = make_server(max_body_bytes=10_000)
    packed = gzip.compress(json.dumps(ROWS).encode())

    assert server.predict(packed, headers={"Content-Encoding": "gzip"}).status == 200
    broken = server.predict(packed[:-9], headers={"Content-Encoding": "gzip"})
    assert broken.json["error"] == "JSON Parse error: The document is empty"
    bomb = server.predict(gzip.compress(b" " * 1_000_000), headers={"Content-Encoding": "gzip"})
    assert "inflated body is larger than 10000 bytes" in bomb.json["error"]


def test_head_has_no_body_and_health_needs_no_token(common) -> None:
    assert common.call("HEAD", "/v1/models/double").text == ""
    assert common.call("GET", "/healthz", token=None).json == {"status": "ok"}


def test_defect_shows_a_number_and_not_its_details(server, caplog) -> None:
    server.serving.breaks = True

    answer = server.predict(ROWS)

    assert answer.status == 500
    assert "secret" not in answer.text
    number = answer.json["error"].split()[2].rstrip(";")
    logger = logging.getLogger(answer.json["error"].partition("Python logger ")[2].partition(")")[0])
    assert logger is server.thread.log
    assert any(number in line and "secret detail" in line for line in server.thread.log_ring.lines)


def test_every_request_is_recorded_once_with_its_five_times(server) -> None:
    server.predict(ROWS)
    server.predict({"instances": [["a", 1]]})
    server.predict(ROWS, "/v1/models/none:predict")
    server.predict(ROWS, token="wrong")

    records = server.serving.wait_for_records(4)
    good, bad, unknown, denied = sorted(records, key=lambda record: record.received_s)
    assert (good.model, good.version, good.code, good.num_rows) == ("double", 2, "OK", 2)
    assert good.received_s <= good.decoded_s <= good.started_s <= good.done_s <= good.written_s
    assert (bad.version, bad.code, bad.started_s) == (2, "INVALID_ARGUMENT", None)
    assert (unknown.version, unknown.code) == (None, "NOT_FOUND")
    assert (denied.model, denied.code) == ("", "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        (
            "POST",
            "/v1/models/double:predict",
            b'{"signature_name":"text","instances":["\\ud800"]}',
            400,
            "surrogate pair",
        ),
        ("POST", "/v1/models/double:predict", b'{"a":"\\ud800x","instances":[[1,2]]}', 400, "surrogate pair"),
        (
            "POST",
            "/v1/models/double:predict",
            b'{"instances":' + b"[" * 65 + b"]" * 65 + b"}",
            400,
            "Too many dimensions: 65",
        ),
        ("GET", "/v1/models/double/versions/" + "9" * 5000, None, 400, ""),
    ],
)
def test_odd_requests_are_the_clients_errors(
    common, method: str, path: str, body: object, status: int, text: str
) -> None:
    answer = common.call(method, path, body)

    assert answer.status == status
    assert text in answer.text


def test_names_that_clients_make_up_do_not_reach_the_metrics(server) -> None:
    server.predict(b'{"signature_name":"\xff","instances":[1]}')
    server.predict({"signature_name": "invented", "instances": [1]})
    server.call("POST", "/v1/models/double:classify", {"signature_name": "invented", "examples": [{}]})
    server.predict({"parameters": {"signature_name": "invented"}, "inputs": []}, "/v2/models/double/infer")

    assert {record.signature for record in server.serving.wait_for_records(4)} == {""}


def test_a_request_may_say_for_which_signatures_it_was_made(server) -> None:
    mark = server.call("GET", "/v1/models/double/metadata").headers["X-TFServe-Signatures"]
    num_runs = len(server.serving.records)

    assert server.predict(ROWS, headers={"X-TFServe-Signatures": mark}).status == 200
    refused = server.predict(ROWS, headers={"X-TFServe-Signatures": "other"})

    assert refused.status == 412
    assert refused.json["error"].startswith("This version has other signatures")
    eventually(lambda: [one.code for one in server.serving.records[num_runs:]] == ["OK", "CANCELLED"])
