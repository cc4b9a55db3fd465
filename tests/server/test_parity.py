"""Two servers compared: what is the same, what differs and where, and what cannot be compared."""

from __future__ import annotations

import itertools
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fake_servable import SIGNATURE, FakeServable, rows

import tfserve_nb
from tfserve_nb.cli.parity import parity
from tfserve_nb.errors import InvalidOption, InvalidRequest, ModelNotFound, NotAvailable, RunRejected
from tfserve_nb.export.graph.effects import Effects
from tfserve_nb.export.graph.state import GraphState
from tfserve_nb.export.warmup_requests import write_warmup_requests
from tfserve_nb.reports.html import to_html
from tfserve_nb.scaleout.parity.check import compare_servers
from tfserve_nb.scaleout.parity.findings import FEWEST, Verdict
from tfserve_nb.scaleout.parity.options import ParityOptions
from tfserve_nb.scaleout.parity.result import ParityResult
from tfserve_nb.scaleout.parity.side import Address
from tfserve_nb.server.examples import CLASSIFY_METHOD, REGRESS_METHOD
from tfserve_nb.server.settings import GrpcSettings, ServerSettings
from tfserve_nb.server.thread import ServerFeatures, ServerThread
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.core import ServingCore
from tfserve_nb.serving.models.placement import Placement
from tfserve_nb.serving.versions.source import VersionSource
from tfserve_nb.types import SignatureDefs, SignatureSpec, Tensors, TensorSpec

QUICK = ParityOptions(requests=0)
TOKEN = "right-token"
DOORS = ["REST, rows", "REST, columns", "V2", "gRPC"]


def described(*signatures: SignatureSpec) -> SignatureDefs:
    def infos(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
        return {name: info(spec) for name, spec in specs.items()}

    def info(spec: TensorSpec) -> dict[str, Any]:
        sizes = [{"size": str(size or -1), "name": ""} for size in spec.shape or ()]
        dtype = {"float32": "DT_FLOAT", "string": "DT_STRING"}[spec.dtype]
        return {"dtype": dtype, "name": f"{spec.name}:0", "tensor_shape": {"dim": sizes, "unknown_rank": False}}

    definitions = {
        one.name: {"inputs": infos(one.inputs), "outputs": infos(one.outputs), "method_name": one.method_name}
        for one in signatures
    }
    return SignatureDefs(b"", {"signature_def": definitions})


class Model(FakeServable):
    """`y = 2 x + version`, and `off` more in its second number.

    Args:
        version: as for `FakeServable`.
        off: what a weight is off by.
        draws: whether each answer is another one.
        says_so: whether it tells that.
        writes: whether a run changes something.
        method_name: in its metadata.
    """

    def __init__(
        self, version: int, off: float = 0.0, *, draws: bool = False, says_so: bool = True, writes: bool = False,
        method_name: str = "tensorflow/serving/predict",
    ) -> None:  # fmt: skip
        super().__init__(version)
        self.signature_defs = described(replace(SIGNATURE, method_name=method_name))
        self._off = off
        self._generator = np.random.default_rng(1) if draws else None
        state = GraphState(draws=("RandomUniform",) if draws and says_so else ())
        self.effects = Effects({"serving_default": state} if state.draws else {}, ["ReadFile"] if writes else [])

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        drawn = 0.0 if self._generator is None else self._generator.normal()
        y = super().run(signature, inputs)["y"]
        return {"y": (y + np.array([0.0, self._off]) + drawn).astype(np.float32)}


class Noisy(Model):
    """Has a second signature, `with_dropout`, whose answers differ each time."""

    def __init__(self, version: int, off: float = 0.0, *, says_so: bool = True) -> None:
        super().__init__(version, off)
        noisy = replace(SIGNATURE, name="with_dropout")
        self.signatures = {**self.signatures, "with_dropout": noisy}
        self.signature_defs = described(SIGNATURE, noisy)
        self.effects = Effects({"with_dropout": GraphState(draws=("RandomUniform",))} if says_so else {})
        self._dropout = np.random.default_rng(1)

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        y = super().run("serving_default", inputs)["y"]
        return {"y": y + np.float32(self._dropout.normal()) if signature == "with_dropout" else y}


EXAMPLES = {"inputs": TensorSpec("inputs", "string", (None,))}
CLASSIFIED = {
    "classes": TensorSpec("classes", "string", (None, 2)),
    "scores": TensorSpec("scores", "float32", (None, 2)),
}
BY_EXAMPLES = {
    "sort": SignatureSpec("sort", EXAMPLES, CLASSIFIED, CLASSIFY_METHOD),
    "rate": SignatureSpec("rate", EXAMPLES, {"outputs": TensorSpec("outputs", "float32", (None, 1))}, REGRESS_METHOD),
}


class ByExamples(FakeServable):
    """Takes `tf.Example`s with a number `x`: `sort` gives two classes, `rate` the number itself.

    Args:
        classes: the names of the classes.
        off: what a weight of both is off by.
    """

    def __init__(self, classes: tuple[bytes, bytes] = (b"no", b"yes"), off: float = 0.0) -> None:
        super().__init__(1)
        self.signatures, self.signature_defs = BY_EXAMPLES, described(*BY_EXAMPLES.values())
        self._classes, self._off = classes, np.float32(off)

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        from google.protobuf.message import DecodeError
        from tensorflow_serving.apis.input_pb2 import ExampleListWithContext

        try:
            examples = [type(ExampleListWithContext().context).FromString(one) for one in inputs["inputs"]]
        except DecodeError as error:
            raise RunRejected("Could not parse example input") from error
        if any("x" not in example.features.feature for example in examples):
            raise RunRejected("Feature: x (data type: float) is required but could not be found.")
        x = np.float32([example.features.feature["x"].float_list.value[0] for example in examples])[:, None] + self._off
        if signature == "rate":
            return {"outputs": x}
        return {"classes": np.tile(np.array(self._classes, object), (len(x), 1)), "scores": np.hstack([1 - x, x])}


Serve = Callable[..., Address]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve versions of the model `net`, with gRPC; a token lets the other side ask for labels."""
    numbers = itertools.count(1)
    with ExitStack() as at_end:

        def begin(*models: FakeServable, token: str | None = TOKEN, labels: dict[str, int] | None = None) -> Address:
            base = tmp_path / f"server{next(numbers)}"
            by_number = {model.version: model for model in models}
            core = ServingCore(lambda path, _: by_number[int(path.name)])
            core.start()
            at_end.callback(core.stop)
            for number in by_number:
                path = base / "net" / str(number)
                path.mkdir(parents=True)
                source = VersionSource(path, BatchingOptions(max_batch_size=8), is_trusted=True)
                core.deploy("net", number, source, base, Placement(keep=9))
            for label, number in (labels or {}).items():
                core.set_label("net", label, number)
            settings = ServerSettings(port=0, token=token, grpc=GrpcSettings(port=0))
            thread = ServerThread(core, settings, ServerFeatures(admin=core if token else None))
            thread.start()
            at_end.callback(thread.stop)
            return Address(f"http://127.0.0.1:{thread.port}", token, f"127.0.0.1:{thread.grpc_port}")

        yield begin


def text_of(result: ParityResult) -> str:
    return " ".join(str(result).split())


def remarks(result: ParityResult, verdict: Verdict) -> dict[str, str]:
    return {f"{one.what} of {one.subject}": one.remark for one in result.checks if one.verdict is verdict}


def test_servers_that_do_the_same_are_the_same_over_every_protocol(serve: Serve) -> None:
    a, b = serve(Model(1), Model(2)), serve(Model(1), Model(2))

    result = compare_servers(a, b, options=ParityOptions(rows=rows(1, 2, 3), requests=FEWEST))

    assert result.is_same, text_of(result)
    assert (result.exit_code, result.models) == (0, ("net",))
    assert [(one.where.version, one.where.door, one.num_rows) for one in result.predictions] == [
        (version, door, 3) for version in (1, 2) for door in DOORS
    ]
    assert [one.door for one in result.latencies] == DOORS
    assert all(one.has_enough and one.ratio > 0 for one in result.latencies)
    page = to_html(result.report)
    assert "the same: " in page
    assert "same, 3" in page
    assert "23 refused with the same code and text" in page


def test_one_weight_that_differs_is_named_by_row_output_and_size(serve: Serve) -> None:
    result = compare_servers(
        serve(Model(1)), serve(Model(1, off=0.25)), options=ParityOptions(rows=rows(1, 2, 3), requests=0)
    )

    assert result.exit_code == 1
    assert {one.where.door: one.num_different for one in result.predictions} == dict.fromkeys(DOORS, 3)
    row = next(iter(result.predictions)).rows_that_differ[0]
    assert (row.output, row.difference) == ("y[1]", pytest.approx(0.25))
    assert 0 < row.allowed < 0.01
    assert float(row.b) - float(row.a) == pytest.approx(0.25)
    text = text_of(result)
    assert "3 of 3 differ" in text
    assert re.search(r"net version 1, serving_default 4 protocols \d y\[1\] ", text)


@pytest.mark.parametrize(("off", "tolerance", "exit_code"), [(1e-5, 1e-4, 0), (1e-2, 1e-4, 1), (1e-2, 1e-1, 0)])
def test_the_tolerance_decides(serve: Serve, off: float, tolerance: float, exit_code: int) -> None:
    options = ParityOptions(rows=rows(1, 2, 3), tolerance=tolerance, requests=0)

    assert compare_servers(serve(Model(1)), serve(Model(1, off)), options=options).exit_code == exit_code


def test_versions_labels_and_metadata_that_differ_are_named(serve: Serve) -> None:
    a = serve(Model(1), Model(2), labels={"stable": 1})
    b = serve(Model(1, method_name="other"), Model(3))

    result = compare_servers(a, b, options=QUICK)

    assert result.exit_code == 1
    assert remarks(result, Verdict.DIFFERENT) == {
        "versions and states of net": "A: 1 AVAILABLE, 2 AVAILABLE; B: 1 AVAILABLE, 3 AVAILABLE",
        "default version of net": "A: version 2; B: version 3",
        "label of net, stable": "A: version 1; B: 400 Unrecognized servable version label: stable",
        "metadata of net, version 1": "serving_default.method_name: A tensorflow/serving/predict, B other",
    }
    assert {one.where.version for one in result.predictions} == {1}


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            lambda: Model(1, draws=True),
            "answers to one request differ each time: a run draws random numbers (RandomUniform)",
        ),
        (lambda: Model(1, draws=True, says_so=False), "differ each time: A gave other outputs when it was asked again"),
        (lambda: Model(1, writes=True), "requests leave something behind, and none is sent"),
    ],
)
def test_answers_that_cannot_be_compared_are_not_called_different(
    serve: Serve, model: Callable[[], Model], why: str
) -> None:
    result = compare_servers(serve(model()), serve(model()), options=QUICK)

    assert (result.verdict, result.exit_code) == (Verdict.NOT_COMPARED, 2)
    assert {one.verdict for one in result.predictions} == {Verdict.NOT_COMPARED}
    assert why in result.predictions[0].remark
    assert "could not compare: no prediction of net was compared" in text_of(result)


@pytest.mark.parametrize("says_so", [True, False])
def test_a_signature_that_draws_leaves_the_others_to_be_compared(serve: Serve, says_so: bool) -> None:
    a = serve(Noisy(1, says_so=says_so))

    same, different = (compare_servers(a, serve(Noisy(1, off, says_so=says_so)), options=QUICK) for off in (0.0, 0.25))

    assert (same.exit_code, different.exit_code) == (0, 1)
    for result in (same, different):
        left_out = {one.where.signature for one in result.predictions if one.verdict is Verdict.NOT_COMPARED}
        assert left_out == {"with_dropout"}
        assert [one.where.door for one in result.predictions if one.where.signature == "serving_default"] == DOORS
        assert "not compared: net version 1, with_dropout, REST, rows and 3 more: answers to one" in text_of(result)
        assert "; 4 not compared for the reasons below" in text_of(result)
    assert {row.where.signature for one in different.predictions for row in one.rows_that_differ} == {"serving_default"}


@pytest.fixture
def sorting(tmp_path: Path) -> ParityOptions:
    """Three rows for the signature `sort`."""
    (tmp_path / "sort.json").write_text(
        '{"signature_name": "sort", "examples": [{"x": 1.0}, {"x": [0.5]}, {"x": 0.1}]}'
    )
    return ParityOptions(rows=tmp_path / "sort.json", requests=0)


def test_the_calls_that_a_signature_is_for_are_compared_too(serve: Serve, sorting: ParityOptions) -> None:
    a = serve(ByExamples())

    same = compare_servers(a, serve(ByExamples()), options=sorting)
    renamed = compare_servers(a, serve(ByExamples((b"no", b"YES"))), options=sorting)
    moved = compare_servers(a, serve(ByExamples(off=0.01)), options=sorting)

    ways = {
        signature: [("predict", door) for door in DOORS] + [(call, "REST"), (call, "gRPC")]
        for signature, call in (("rate", "regress"), ("sort", "classify"))
    }
    assert same.is_same, text_of(same)
    assert [(one.where.signature, (one.where.call, one.where.door)) for one in same.predictions] == [
        (signature, way) for signature, its_ways in ways.items() for way in its_ways
    ]
    assert {one.num_rows for one in same.predictions if one.where.signature == "sort"} == {3}
    assert "x (data type: float) is required" in next(one.remark for one in same.predictions)
    assert "net 1 sort classify same, 3 same, 3" in text_of(same)
    for result, output in ((renamed, "classes[1]"), (moved, "scores[")):
        found = {
            (one.where.call, one.where.door): one.rows_that_differ
            for one in result.predictions
            if one.where.signature == "sort"
        }
        assert [len(found[way]) >= 3 for way in ways["sort"]] == [True] * len(ways["sort"]), text_of(result)
        assert all(row.output.startswith(output) for some in found.values() for row in some)
    assert found["classify", "REST"][0].difference == pytest.approx(0.01, abs=1e-6)
    assert "net version 1, sort, classify 2 protocols" in text_of(moved)


class TensorFlowServingsRoutes(BaseHTTPRequestHandler):
    """Passes on what TensorFlow Serving has, and answers all else as it does."""

    origin = ""

    def do_GET(self) -> None:
        if not self.path.startswith("/v1/"):
            self._answer(404, "text/html", b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD></HTML>\n")
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
        request = urllib.request.Request(self.origin + self.path, body, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                self._answer(response.status, "application/json", response.read())
        except urllib.error.HTTPError as error:
            with error:
                self._answer(error.code, "application/json", error.read())

    do_POST = do_GET  # noqa: N815 - the name that is looked for

    def log_request(self, *args: object) -> None: ...

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def with_tensorflow_servings_routes(origin: str) -> Iterator[str]:
    """The URL of a server that has them and nothing else."""
    handler = type("Routes", (TensorFlowServingsRoutes,), {"origin": origin})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


def test_a_protocol_that_is_not_there_is_no_difference(serve: Serve) -> None:
    a, b = serve(Model(1)), serve(Model(1), token=None)

    with with_tensorflow_servings_routes(b.url) as url:
        result = compare_servers(a, Address(url, grpc=b.grpc), options=QUICK)

    assert result.is_same, text_of(result)
    assert {one.where.door: one.verdict for one in result.predictions} == {
        **dict.fromkeys(DOORS, Verdict.SAME), "V2": Verdict.NOT_THERE,
    }  # fmt: skip
    assert remarks(result, Verdict.NOT_THERE) == {
        "bad requests of net, V2": "B has no Open Inference Protocol (404 for /v2)"
    }
    text = text_of(result)
    assert "net 1 serving_default same, 16 same, 16 not there same, 16" in text
    assert "; 2 not there on one of them; 2 not compared for the reasons below" in text
    assert "not there: net version 1, serving_default, V2: B has no Open Inference Protocol (404 for /v2)" in text


def test_what_a_server_does_not_have_or_tell_is_said(serve: Serve) -> None:
    a = serve(Model(1), labels={"stable": 1})
    b = serve(Model(1), token=None)

    result = compare_servers(a, Address(b.url), options=ParityOptions(rows=rows(1.0)))

    missing = remarks(result, Verdict.NOT_COMPARED)
    assert missing["models of the server"] == "B does not list its models"
    assert missing["labels of net"] == "B does not list other labels; --labels NAME,NAME compares them"
    assert missing["bad requests of net, gRPC"] == "no gRPC address is given for B (--grpc HOST:PORT HOST:PORT)"
    assert {one.where.door for one in result.predictions if one.verdict is Verdict.NOT_COMPARED} == {"gRPC"}
    assert [one.door for one in result.latencies] == DOORS[:3]
    assert remarks(result, Verdict.DIFFERENT).keys() == {"label of net, stable"}
    assert "not compared: net version 1, serving_default, gRPC: no gRPC address is given for B" in text_of(result)


@pytest.mark.parametrize(
    "file",
    ["x.npy", "x.npz", "list.json", "instances.json", "named.json", "inputs.json", "x.parquet", "version"],
)
def test_rows_of_a_file_are_sent(serve: Serve, tmp_path: Path, file: str) -> None:
    x, path = rows(1, 2, 3), tmp_path / file
    values = {
        "list.json": x.tolist(),
        "instances.json": {"instances": x.tolist()},
        "named.json": {"instances": [{"x": row} for row in x.tolist()]},
        "inputs.json": {"inputs": {"x": x.tolist()}, "signature_name": "serving_default"},
    }
    if file == "x.npy":
        np.save(path, x)
    elif file == "x.npz":
        np.savez(path, x=x)
    elif file in values:
        path.write_text(json.dumps(values[file]))
    served = serve(Model(1))
    if file == "x.parquet":
        handle = tfserve_nb.connect(served.url, TOKEN).capture()
        handle.predict(x)
        handle.captured().save(path)
        handle.capture(False).clear_captured()
    elif file == "version":
        path.mkdir()
        write_warmup_requests(path, "net", {"x": x})

    result = compare_servers(served, served, options=ParityOptions(rows=path, requests=0))

    assert [one.num_rows for one in result.predictions] == [len(x)] * len(DOORS)
    assert any(str(path) in note for note in result.notes)


@pytest.mark.parametrize(
    ("written", "kind", "text"),
    [
        (None, InvalidOption, "cannot be read: No such file or directory"),
        ("[1, ", InvalidOption, "cannot be read: Expecting value"),
        ('{"rows": 1}', InvalidOption, "neither a list of rows nor an object"),
        ('{"instances": [[1, 2]], "signature_name": "other"}', InvalidRequest, "signature 'other', which net has not"),
        ("[[1, 2, 3]]", InvalidRequest, "x"),
        ("[]", InvalidOption, "rows.json.*no rows"),
        ('{"examples": [1]}', InvalidOption, "rows.json.* cannot be read: Example must be JSON object"),
    ],
)
def test_rows_that_do_not_do_are_named(
    serve: Serve, tmp_path: Path, written: str | None, kind: type[Exception], text: str
) -> None:
    path = tmp_path / "rows.json"
    if written is not None:
        path.write_text(written)
    served = serve(Model(1))

    with pytest.raises(kind, match=text):
        compare_servers(served, served, options=ParityOptions(rows=path, requests=0))


def test_captured_requests_are_the_rows_when_there_are_any(serve: Serve) -> None:
    served = serve(Model(1))
    handle = tfserve_nb.connect(served.url, TOKEN)
    handle.capture()
    handle.predict(rows(1, 2))
    handle.predict(rows(3))

    result = handle.parity(served.url, token=TOKEN, requests=0)

    assert result.is_same, text_of(result)
    assert {one.num_rows for one in result.predictions if one.num_rows} == {3}
    assert "rows of net: 2 requests that A captured" in text_of(result)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"url": "http://127.0.0.1:1"}, NotAvailable, r"http://127.0.0.1:1 cannot be reached"),
        ({"grpc": "127.0.0.1:1"}, NotAvailable, r"127.0.0.1:1 cannot be reached over gRPC"),
        ({"token": "wrong"}, InvalidOption, r"B \(http.*\) refuses: 401 The token is wrong"),
    ],
)
def test_a_server_that_cannot_be_asked_is_one_error(
    serve: Serve, change: dict[str, str], kind: type[Exception], text: str
) -> None:
    a, b = serve(Model(1)), serve(Model(1))
    fields = {"url": b.url, "token": b.token, "grpc": b.grpc, **change}

    with pytest.raises(kind, match=text):
        compare_servers(a, Address(**fields), ("net",), QUICK)


def test_models_that_are_not_there(serve: Serve) -> None:
    a, b = serve(Model(1), token=None), serve(Model(1), token=None)

    with pytest.raises(ModelNotFound, match="neither server lists its models"):
        compare_servers(a, b)
    with pytest.raises(ModelNotFound, match="neither server has a model 'other'"):
        compare_servers(a, b, ("other",))
    with pytest.raises(InvalidOption, match=r"B \(http.*\) refuses: 401 A token is needed"):
        compare_servers(a, Address(serve(Model(1)).url))


def test_the_command_line(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfserve_nb.cli.parity.postpone", lambda: None)  # this process has other tests to run
    a, b, changed = serve(Model(1)), serve(Model(1), token=None), serve(Model(1, off=0.5))
    (tmp_path / "token").write_text(f"{TOKEN}\n")

    def run(other: Address, *more: str) -> int:
        files = ("--token-file", f"{tmp_path}/token", f"{tmp_path}/token" if other.token else "-")
        return parity([f"{a.url}/v1/models/net", other.url, *files, "--requests", "2", *more])

    assert run(b, "--grpc", str(a.grpc), str(b.grpc)) == 0
    out = capsys.readouterr().out
    assert "the same: " in out
    assert f"(needs {FEWEST} requests)" in out
    assert run(changed) == 1
    assert "Rows that differ" in capsys.readouterr().out
    assert run(Address("http://127.0.0.1:1")) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tfserve-nb parity: http://127.0.0.1:1 cannot be reached: ")
    assert len(captured.err.splitlines()) == 1
    assert run(b, "--model", "net,other") == 2
    assert "neither server has a model 'other'" in capsys.readouterr().err
    assert parity([a.url, b.url, "--token-env", "NO_SUCH", "-"]) == 2
    assert "there is no environment variable 'NO_SUCH'" in capsys.readouterr().err
    assert parity([f"{a.url}/v1/models/x", f"{b.url}/v1/models/y"]) == 2
    assert "the URLs name different models: x, y" in capsys.readouterr().err
