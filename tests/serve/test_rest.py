"""REST against the real server and real models: forms, dtypes, errors, and the rules that clients can see."""

from __future__ import annotations

import base64
import gzip
import math
import subprocess

import pytest


def test_predict_in_all_forms(served) -> None:
    assert served.predict({"instances": [1.0, 2.0, 5.0]}) == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert served.predict({"instances": [{"x": 1.0}, {"x": 2}]}) == (200, {"predictions": [2.5, 3.0]})
    assert served.predict({"inputs": [[1.0], [2.0]]}) == (200, {"outputs": [[2.5], [3.0]]})
    assert served.predict({"inputs": {"x": [1.0], "more": 3}}) == (200, {"outputs": [2.5]})
    assert served.predict({"inputs": 1.0}) == (200, {"outputs": 2.5})
    assert served.predict({"signature_name": "pair", "instances": [{"a": 1, "b": 2}]}, "many") == (
        200,
        {"predictions": [{"sum": 3.0, "twice": 2.0}]},
    )
    assert served.predict({"signature_name": "pair", "inputs": {"a": [1], "b": [2]}}, "many") == (
        200,
        {"outputs": {"sum": [3.0], "twice": [2.0]}},
    )


@pytest.mark.parametrize(("target", "value"), [
    ("", 3.5), ("/versions/1", 2.5), ("/versions/2", 3.5), ("/labels/stable", 2.5), ("/labels/canary", 3.5),
])  # fmt: skip
def test_versions_and_labels(served, target: str, value: float) -> None:
    assert served.predict({"instances": [1.0]}, "two", target) == (200, {"predictions": [value]})


@pytest.mark.parametrize(
    ("dtype", "given", "answer"),
    [
        ("float64", [1, 0.1, 1e300], [1.0, 0.1, 1e300]),
        ("int32", [1, -2147483648], [1, -2147483648]),
        ("int64", [9223372036854775807, -1], [9223372036854775807, -1]),
        ("uint8", [0, 255], [0, 255]),
        ("bool", [True, False], [True, False]),
    ],
)
def test_dtypes_come_back(served, dtype: str, given: list[object], answer: list[object]) -> None:
    status, value = served.predict({"signature_name": dtype, "inputs": given}, "many")

    assert (status, value) == (200, {"outputs": answer})
    assert [type(one) for one in value["outputs"]] == [type(one) for one in answer]


def test_not_a_number_and_infinity_go_in_and_out(served) -> None:
    body = b'{"signature_name": "float64", "inputs": [NaN, Infinity, -Infinity, Inf, -Inf]} and trailing bytes'

    status, value, _ = served.rest("POST", "/v1/models/many:predict", body)

    assert status == 200
    assert math.isnan(value["outputs"][0])
    assert value["outputs"][1:] == [math.inf, -math.inf, math.inf, -math.inf]


def test_text_and_bytes(served) -> None:
    coded = base64.b64encode(b"\x00\xff").decode()

    status, value = served.predict({"signature_name": "text", "instances": ["ä", {"b64": coded}]}, "many")

    assert status == 200
    assert value["predictions"][0] == {"t": "ä", "t_bytes": {"b64": "w6Q="}}
    assert value["predictions"][1]["t_bytes"] == {"b64": coded}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, "JSON Parse error: The document is empty"),
        (b"  ", 400, "JSON Parse error: The document is empty. at offset: 2"),
        (b'{"instances": [1,]}', 400, "JSON Parse error: Invalid value. at offset: 17"),
        (b"[1, 2]", 400, "JSON Value: [1, 2] Is not object"),
        (b"{}", 400, "Missing 'inputs' or 'instances' key"),
        (b'{"instances": []}', 400, "No values in 'instances' array"),
        (b'{"instances": 1}', 400, "Expecting 'instances' to be an list/array"),
        (b'{"instances": [1], "inputs": [1]}', 400, "Not formatted correctly expecting only one of"),
        (b'{"signature_name": 5, "instances": [1]}', 400, "'signature_name' key must be a string value."),
        (b'{"signature_name": "s", "instances": [1]}', 400, 'Serving signature name: "s" not found in signature def'),
        (b'{"instances": [{"y": 1}]}', 400, "JSON object: does not have named input: y"),
        (b'{"inputs": {"y": 1}}', 400, "Missing named input: x in 'inputs' object."),
        (
            b'{"instances": ["a"]}',
            400,
            (
                "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
                'JSON Value: "a" Type: String is not of expected type: float'
            ),
        ),
        (b'{"instances": [[1], [1, 2]]}', 400, "Expecting tensor size: 1 but got: 2"),
        (b'{"instances": [1, {"x": 2}]}', 400, "Expecting value/list but got object at item 1 of input list"),
        (b'{"instances": [{"x": 2}, 1]}', 400, "Expecting object but got list at item 1 of input list"),
    ],
)
def test_predict_errors(served, body: bytes, status: int, text: str) -> None:
    found, value, headers = served.rest("POST", "/v1/models/hpt:predict", body)

    assert found == status
    assert text in value["error"]
    assert headers["Content-Type"] == "application/json"


def test_what_json_cannot_carry(served) -> None:
    status, value = served.predict({"signature_name": "float16", "inputs": [1]}, "many")
    assert (status, value["error"]) == (501, "Conversion of JSON Value: 1 to type: half")
    status, value = served.predict({"signature_name": "half", "inputs": [1]}, "many")
    assert (status, value["error"]) == (400, "Failed to write JSON value for tensor type: half")
    status, value = served.predict({"signature_name": "int32", "inputs": [1.0]}, "many")
    assert status == 400
    status, value = served.predict({"signature_name": "pair", "instances": [1]}, "many")
    assert value["error"].startswith("instances is a plain list, but expecting list of objects")


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/no", 404, "Could not find any versions of model no"),
        ("GET", "/v1/models/hpt/versions/9", 404, "Could not find version 9 of model hpt"),
        ("GET", "/v1/models/hpt?x=1", 404, "Could not find any versions of model hpt?x=1"),
        ("GET", "/v1/foo", 400, "Malformed request: GET /v1/foo"),
        ("POST", "/v1/models/hpt:PREDICT", 400, "Malformed request: POST /v1/models/hpt:PREDICT"),
        ("DELETE", "/v1/models/hpt", 400, "Malformed request: DELETE /v1/models/hpt"),
        ("POST", "/v1/models/no:predict", 404, "Servable not found for request: Latest(no)"),
        ("POST", "/v1/models/two/versions/9:predict", 404, "Servable not found for request: Specific(two, 9)"),
        ("POST", "/v1/models/two/labels/x:predict", 400, "Unrecognized servable version label: x"),
        ("GET", "/v1/models/two/labels/x/metadata", 400, "Unrecognized servable version label: x"),
    ],
)
def test_routes_that_lead_nowhere(served, method: str, path: str, status: int, text: str) -> None:
    found, value, _ = served.rest(method, path, {} if method == "POST" else None)

    assert (found, value["error"]) == (status, text)


def test_status(served) -> None:
    status, value, _ = served.rest("GET", "/v1/models/two/labels/unknown")

    ok = {"error_code": "OK", "error_message": ""}
    assert status == 200
    assert value == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": ok},
            {"version": "1", "state": "AVAILABLE", "status": ok},
        ]
    }


def test_metadata(served) -> None:
    status, value, _ = served.rest("GET", "/v1/models/hpt/metadata")

    assert status == 200
    assert value["model_spec"] == {"name": "hpt", "signature_name": "", "version": "123"}
    definitions = value["metadata"]["signature_def"]["signature_def"]
    assert definitions["regress_x_to_y"]["method_name"] == "tensorflow/serving/regress"
    shape = {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False}
    found = definitions["serving_default"]["inputs"]["x"]
    assert (found["dtype"], found["name"]) == ("DT_FLOAT", "x:0")
    assert found["tensor_shape"] in (shape, {"dim": [], "unknown_rank": True})
    _, value, _ = served.rest("GET", "/v1/models/many/metadata")
    assert "__saved_model_init_op" in value["metadata"]["signature_def"]["signature_def"]


def test_classify_and_regress(served) -> None:
    def ask(signature: str, call: str, **more: object) -> object:
        body = {"signature_name": signature, "examples": [{"x": 1.0}, {"x": [2.0]}], **more}
        status, value, _ = served.rest("POST", f"/v1/models/hpt:{call}", body)
        assert status == 200, value
        return value

    assert ask("regress_x_to_y", "regress") == {"results": [2.5, 3.0]}
    assert ask("regress_x2_to_y3", "regress", context={"x2": 8.0}) == {"results": [7.0, 7.0]}
    assert ask("classify_x_to_y", "classify") == {"results": [[["", 2.5]], [["", 3.0]]]}
    assert ask("classify_labels", "classify")["results"][0] == [["half plus two", 2.5]]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": 1}, 400, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, 400, "'examples' value is an empty array"),
        ({"examples": [[1]]}, 400, "Example must be JSON object but got JSON Array"),
        ({"examples": [{"x": None}]}, 400, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [10, 10.0]}]}, 400, "Unexpected element type in feature: x expecting type: int64"),
        ({"examples": [{"x": 2**63}]}, 400, "Feature: x has uint64_t element. Only int64_t is supported."),
        ({"examples": [{"x": 1.0}], "signature_name": "no"}, 400, "No signature was found with the name: no"),
        ({"examples": [{"x": 1.0}]}, 400, "No classification inputs found in SignatureDef: "),
    ],
)
def test_example_errors(served, body: object, status: int, text: str) -> None:
    found, value, _ = served.rest("POST", "/v1/models/hpt:classify", body)

    assert found == status
    assert text in value["error"]


def test_gzip(served) -> None:
    packed = gzip.compress(b'{"instances": [1.0]}')
    gzipped = {"Content-Encoding": "gzip"}

    assert served.rest("POST", "/v1/models/hpt:predict", packed, gzipped)[:2] == (200, {"predictions": [2.5]})
    status, value, _ = served.rest("POST", "/v1/models/hpt:predict", b"no gzip", gzipped)
    assert (status, value["error"]) == (400, "JSON Parse error: The document is empty")


def test_cors(served) -> None:
    status, text, headers = served.rest("OPTIONS", "/v1/models/hpt:predict", None, {"Origin": "http://a.example"})
    assert (status, text) == (200, "")
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Access-Control-Allow-Methods"] == "POST, GET"
    assert headers["Access-Control-Allow-Headers"] == "Content-Type"
    assert served.rest("OPTIONS", "/v1/models/hpt:predict")[:2] == (400, "")
    status, _, headers = served.rest("POST", "/v1/models/no:predict", {}, {"Origin": "http://a.example"})
    assert status == 404
    assert headers["Access-Control-Allow-Origin"] == "*"


def test_curl_and_a_form_content_type(served) -> None:
    url = f"http://localhost:{served.rest_port}/v1/models/hpt:predict"

    done = subprocess.run(
        ["curl", "-s", "-d", '{"instances": [1.0]}', url], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.replace(" ", "").replace("\n", "") == '{"predictions":[2.5]}'


def test_a_head_request_and_reason_phrases(served) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", served.rest_port, timeout=30)
    try:
        connection.request("HEAD", "/v1/models/hpt")
        response = connection.getresponse()
        assert (response.status, response.read()) == (400, b"")
        assert response.headers["Server"] is None
    finally:
        connection.close()
