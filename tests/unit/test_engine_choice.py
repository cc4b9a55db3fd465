"""Which engine runs a signature: comparison, measurement and choice, with engines that are a few lines of Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tfserve_nb.errors import RunRejected
from tfserve_nb.reports.engines import engine_table
from tfserve_nb.reports.report import Report
from tfserve_nb.reports.text import to_text
from tfserve_nb.serving.engines.choice import Findings, choose, examine, gain, rows_of, speed_note, threads_pay
from tfserve_nb.serving.engines.convert import _listed, litert_problem
from tfserve_nb.serving.engines.engine import gpu_of, unsuited
from tfserve_nb.serving.engines.evidence import MADE_UP, MAX_KEPT_BYTES, Evidence, worth_keeping
from tfserve_nb.serving.engines.onnx import CUDA, providers
from tfserve_nb.serving.engines.strange import NEGATIVE, NOT_FINITE, GuardedEngine, LeftToTensorFlow
from tfserve_nb.types import SignatureSpec, Tensors, TensorSpec

CPU = "CPUExecutionProvider"
ROWS = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}


def signature(dtype: str = "float32", shape: tuple[int | None, ...] | None = (None, 2)) -> SignatureSpec:
    return SignatureSpec("s", {"x": TensorSpec("x", dtype, shape)}, {"y": TensorSpec("y", dtype, shape)})


class Fake:
    """An engine that computes `y` of `x`."""

    def __init__(self, name: str, y_of: Callable[[np.ndarray], np.ndarray]) -> None:
        self.name, self.num_threads = name, 1
        self.sizes: list[int] = []
        self._y_of = y_of

    def run(self, inputs: Tensors) -> Tensors:
        self.sizes.append(len(inputs["x"]))
        return {"y": self._y_of(inputs["x"])}


def double(inputs: Tensors) -> Tensors:
    return {"y": inputs["x"] * 2}


def found(problems: Mapping[str, str], **ms: float) -> Findings:
    return Findings(problems, {name: {1: took, 8: 2 * took} for name, took in ms.items()}, "rows")


@pytest.mark.parametrize(
    ("wanted", "findings", "chosen", "words"),
    [
        ("auto", found({}, tensorflow=1.0, a=0.5, b=0.2), "b", {"a": "2 × TensorFlow's speed, b 5 ×"}),
        ("auto", found({}, tensorflow=1.0, a=0.95), "tensorflow", {"a": "1.1 × TensorFlow's speed, which is too"}),
        ("auto", found({}, tensorflow=1.0, a=2.0), "tensorflow", {"a": "0.5 × TensorFlow's speed"}),
        ("auto", found({"b": "it differs"}, tensorflow=1.0, a=0.5), "a", {"b": "it differs"}),
        ("auto", found({"a": "no op"}, tensorflow=1.0), "tensorflow", {"a": "no op"}),
        ("auto", found({"a": "no rows"}), "tensorflow", {"a": "no rows"}),
        ("a", found({}, tensorflow=1.0, a=3.0, b=0.1), "a", {"b": "a was asked for"}),
        ("a", found({"a": "no op"}, tensorflow=1.0), "tensorflow", {"a": "no op"}),
        ("tensorflow", found({}, tensorflow=1.0, a=0.1), "tensorflow", {"a": "tensorflow was asked for"}),
        ("auto", found({}, tensorflow=1.0, slow_sizes=0.1, a=0.5), "a", {"slow_sizes": "sizes"}),
    ],
)
def test_the_fastest_that_agrees_is_chosen(wanted: str, findings: Findings, chosen: str, words: dict[str, str]) -> None:
    name, reasons = choose(wanted, findings, {"slow_sizes": "sizes"})

    assert name == chosen
    for engine, reason in words.items():
        assert reason in reasons[engine]


def test_a_gain_is_that_of_the_sizes_both_were_measured_at() -> None:
    assert gain({1: 4.0, 8: 1.0, 64: 9.0}, {1: 1.0, 8: 1.0}) == pytest.approx(2.0)
    assert gain({}, {1: 1.0}) == 0.0


def test_every_size_is_compared_and_measured() -> None:
    engine = Fake("a", lambda x: x + x)

    findings = examine(signature(), double, {"a": engine}, [Evidence(ROWS, "rows of --check")], (1, 4))

    assert findings.problems == {}
    assert findings.rows == "rows of --check"
    assert {name: set(ms) for name, ms in findings.ms.items()} == {"tensorflow": {1, 4}, "a": {1, 4}}
    assert set(engine.sizes) == {1, 4}
    assert findings.guards == {"a": {}}


def test_an_engine_that_differs_or_fails_is_not_measured() -> None:
    def fail(_: np.ndarray) -> np.ndarray:
        raise RuntimeError("no kernel")

    engines = {
        "a": Fake("a", lambda x: x * 2.01),
        "b": Fake("b", fail),
        "c": Fake("c", lambda x: (x * 2).astype(np.float64)),
    }

    findings = examine(signature(), double, engines, [Evidence(ROWS, "rows")], (1, 4))

    assert findings.problems["a"].startswith("output 'y' of a differs from TensorFlow")
    assert findings.problems["b"] == "it fails on rows that TensorFlow runs: RuntimeError: no kernel"
    assert set(findings.ms) == {"tensorflow", "c"}
    assert findings.compared == {"a": False, "b": False, "c": True}


def test_an_engine_that_fails_while_it_is_measured_is_out() -> None:
    left = iter(range(3))

    def twice(x: np.ndarray) -> np.ndarray:
        next(left)
        return x * 2

    findings = examine(signature(), double, {"a": Fake("a", twice)}, [Evidence(ROWS, "rows")], (1, 4))

    assert set(findings.ms) == {"tensorflow"}
    assert findings.problems["a"].startswith("it failed when it was measured: StopIteration")


def test_an_engine_has_one_thread_where_that_is_faster() -> None:
    def slowly(x: np.ndarray) -> np.ndarray:
        time.sleep(0.01)
        return x * 2

    slow, fast = Fake("a", slowly), Fake("a", lambda x: x * 2)

    one = examine(signature(), double, {"a": slow}, [Evidence(ROWS, "rows")], (1, 4), {"a": fast})
    several = examine(signature(), double, {"a": fast}, [Evidence(ROWS, "rows")], (1, 4), {"a": slow})

    assert (one.single, several.single) == (("a",), ())
    assert set(one.ms) == set(several.ms) == {"tensorflow", "a"}


def test_several_threads_have_to_be_clearly_faster_than_one() -> None:
    alone_ms = {1: 1.0, 64: 10.0}

    assert threads_pay({1: 1.0, 64: 5.0}, alone_ms)
    assert not threads_pay({1: 1.0, 64: 8.0}, alone_ms)
    assert not threads_pay({1: 2.0, 64: 5.0}, alone_ms)


def test_made_up_rows_count_only_without_others_and_rows_that_fail_are_passed_over() -> None:
    def picky(inputs: Tensors) -> Tensors:
        if (inputs["x"] > 100).any():
            raise RunRejected("too large")
        return double(inputs)

    bad, made_up = {"x": ROWS["x"] + 1000}, {"x": ROWS["x"] + 5}
    engines = {"a": Fake("a", lambda x: x * 2)}

    one = examine(signature(), picky, engines, [Evidence(ROWS, "mine"), Evidence(made_up, MADE_UP)], (1,))
    two = examine(signature(), picky, engines, [Evidence(bad, "mine"), Evidence(made_up, MADE_UP)], (1,))
    three = examine(signature(), picky, engines, [Evidence(bad, "mine")], (1,))

    assert (one.rows, two.rows, three.rows) == ("mine", MADE_UP, "")
    assert three.problems == {"a": "no rows are known that the model can run"}
    assert (one.compared, three.compared) == ({"a": True}, {})


def test_a_row_that_the_model_refuses_keeps_no_size_from_being_tried() -> None:
    def picky(inputs: Tensors) -> Tensors:
        if (inputs["x"] > 4).any():
            raise RunRejected("out of range")
        return double(inputs)

    findings = examine(signature(), picky, {"a": Fake("a", lambda x: x * 2)}, [Evidence(ROWS, MADE_UP)], (1, 2, 4, 8))

    assert set(findings.ms["a"]) == {1, 2, 4, 8}


def test_values_that_an_engine_treats_otherwise_are_left_to_tensorflow() -> None:
    def strict(inputs: Tensors) -> Tensors:
        if inputs["x"].size and (inputs["x"] < 0).any():
            raise RunRejected("indices must not be negative")
        return double(inputs)

    engine = Fake("a", lambda x: np.abs(x) * 2)
    rows = {"x": np.arange(6, dtype=np.int32).reshape(3, 2)}

    findings = examine(signature("int32"), strict, {"a": engine}, [Evidence(rows, "rows")], (2,))

    assert findings.problems == {}
    assert findings.guards == {"a": {"x": (NEGATIVE,)}}
    guarded = GuardedEngine(engine, findings.guards["a"])
    assert guarded.run(rows)["y"].tolist() == [[0, 2], [4, 6], [8, 10]]
    for strange in (rows["x"] - 1, rows["x"][:0]):
        with pytest.raises(LeftToTensorFlow):
            guarded.run({"x": strange})


def test_infinities_and_nan_are_looked_for_in_one_pass() -> None:
    engine = Fake("a", lambda x: np.nan_to_num(x) * 2)
    rows = {"x": np.ones((3, 2), np.float16)}

    findings = examine(signature("float16"), double, {"a": engine}, [Evidence(rows, "rows")], (2,))

    assert findings.guards == {"a": {"x": (NOT_FINITE,)}}
    guarded = GuardedEngine(engine, findings.guards["a"])
    large = np.full((400, 2), 20000, np.float16)
    assert guarded.run({"x": large})["y"].shape == (400, 2)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(LeftToTensorFlow):
            guarded.run({"x": np.array([[1.0, value]], np.float16)})


def test_given_rows_are_kept_as_far_as_there_is_room() -> None:
    long = np.zeros((100, 2), np.float32)
    wide = signature(shape=(None, MAX_KEPT_BYTES // 8))

    assert worth_keeping({"x": long}, signature())["x"].shape == (16, 2)
    assert worth_keeping({"x": np.zeros((3, MAX_KEPT_BYTES // 8), np.float32)}, wide)["x"].shape[0] == 2
    assert worth_keeping({"x": np.zeros((1, MAX_KEPT_BYTES), np.float32)}, wide) == {}
    assert worth_keeping({"x": ROWS["x"]}, signature(shape=(3, 2)))["x"].shape == (3, 2)
    assert worth_keeping({"x": np.array([[b"a", b"b"]], dtype=object)}, signature("string")) == {}


def test_a_signature_that_counts_no_rows_is_run_as_it_is() -> None:
    engine = Fake("a", lambda x: x * 2)

    findings = examine(signature(shape=(3, 2)), double, {"a": engine}, [Evidence(ROWS, "rows")], (1, 64))

    assert set(findings.ms["a"]) == {3}
    assert set(engine.sizes) == {3}


@pytest.mark.parametrize(
    ("device", "available", "asked"),
    [
        (None, (CUDA, CPU), [CPU]),
        ("/CPU:0", (CUDA, CPU), [CPU]),
        ("/GPU:0", (CUDA, CPU), [(CUDA, {"device_id": 0}), CPU]),
        ("/job:localhost/replica:0/task:0/device:gpu:3", (CUDA, CPU), [(CUDA, {"device_id": 3}), CPU]),
        ("/GPU:0", ("AzureExecutionProvider", CPU), [CPU]),
    ],
)
def test_onnx_runtime_is_asked_for_the_gpu_of_the_version(device: str | None, available: Any, asked: Any) -> None:
    assert providers(gpu_of(device), available) == asked


def test_signatures_that_only_tensorflow_has_the_types_for() -> None:
    assert unsuited(signature("string")) == "input 'x' is text, which only TensorFlow runs"
    assert unsuited(signature("bfloat16")) == "input 'x' is bfloat16, which only TensorFlow runs"
    assert unsuited(SignatureSpec("s", {}, {})) == "it has no inputs"
    assert unsuited(signature("int8")) == ""


def test_a_gain_is_said_for_the_smallest_and_the_largest_batch() -> None:
    findings = Findings({}, {"tensorflow": {1: 1.0, 8: 2.0, 64: 6.0}, "a": {1: 0.5, 8: 1.0, 64: 2.0}}, "made-up rows")

    assert speed_note("a", findings) == (
        "2 × TensorFlow's speed at 1 row and 3 × at 64 rows, with the same outputs on made-up rows"
    )


def test_places_are_named_by_layers_without_the_functions_around_them() -> None:
    found_at = [
        ("BesselI0", "StatefulPartitionedCall/sequential/odd/BesselI0"),
        ("Svd", "PartitionedCall_1/PartitionedCall/Svd"),
        ("HashTableV2", "unknown"),
    ]

    assert _listed(found_at) == "BesselI0 (in sequential/odd/BesselI0), Svd (in Svd), HashTableV2"


CALL = 'fused["StatefulPartitionedCall:", "StatefulPartitionedCall@__inference_call_9"]'
LGAMMA = f'<unknown>:0: error: loc(fused["Lgamma:", "odd/Lgamma@__call_9"] at {CALL}): failed'
BESSEL = (
    f'<unknown>:0: error: loc(fused["BesselI0:", "odd/i0/BesselI0@__call_9"] at {CALL}): \'tf.BesselI0\' op is no op'
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{LGAMMA}\n{BESSEL}\n{CALL}: called from", "LiteRT has no operation for BesselI0 (in odd/i0/BesselI0)"),
        (f"Not translated.{LGAMMA}\nerror: loc({CALL})", "LiteRT cannot convert Lgamma (in odd/Lgamma)"),
        ("out of memory", ""),
    ],
)
def test_what_the_converter_of_litert_failed_at_is_named_with_its_own_place(text: str, words: str) -> None:
    assert litert_problem(text) == words


def test_the_table_tells_times_agreement_and_reasons() -> None:
    problems = {"b": "no op Svd", "c": "it differs"}
    findings = replace(found(problems, tensorflow=1.0, a=0.25), compared={"a": True, "c": False})
    rows = rows_of("s", "auto", findings, ("a", "b", "c"), {})

    text = to_text(Report("Engines", sections=(engine_table("", rows),)))

    assert [(row.engine, row.agrees, row.is_chosen) for row in rows if row.batch_size != 8] == [
        ("tensorflow", True, False),
        ("a", True, True),
        ("b", None, False),
        ("c", False, False),
    ]
    assert ["not compared" in line for line in text.splitlines() if line.split()[:1] in (["a"], ["b"], ["c"])] == [
        False,
        True,
        False,
    ]
    assert "a has 4 × its speed" in text
    assert "no op Svd" in text
    assert "chosen" in text
    assert "ms, 1 row" in text
    assert "8 rows" in text
