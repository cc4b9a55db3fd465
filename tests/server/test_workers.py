"""Worker processes: nobody notices that they are there, nor when one of them dies."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import psutil
import pytest
from helpers.eventually import eventually
from helpers.fake_serving import BAD
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.errors import InvalidOption, QueueFull, ServingError
from tfserve_nb.server.config_files import TlsFiles
from tfserve_nb.server.http.message import RequestHead
from tfserve_nb.server.settings import GrpcSettings, ServerSettings
from tfserve_nb.server.workers.frames import from_frame, to_frame
from tfserve_nb.server.workers.hub import BundleRun
from tfserve_nb.server.workers.link import Link
from tfserve_nb.server.workers.link_backend import LinkBackend
from tfserve_nb.server.workers.messages import (
    Bundle,
    BundleAnswer,
    Catalog,
    Drain,
    Forward,
    Forwarded,
    Hello,
    Piece,
    Records,
)
from tfserve_nb.serving.backend import Answer, ModelSpec, ModelView, Outcome, VersionView
from tfserve_nb.serving.telemetry.records import RequestRecord
from tfserve_nb.types import SignatureSpec, Tensors, TensorSpec

ROWS = {"instances": [[1.0, 2.0]]}
WORKER = "tfserve_nb.server.workers.worker"


@pytest.fixture
def workers() -> int:
    return 2


def workers_below(pid: int) -> tuple[int, ...]:
    """The worker processes of a process."""
    children = psutil.Process(pid).children()
    return tuple(child.pid for child in children if is_running(child.pid) and WORKER in child.cmdline())


def pids_of(server) -> tuple[int, ...]:
    del server  # this process has no other
    return workers_below(os.getpid())


def test_a_worker_holds_no_tensorflow(server) -> None:
    assert server.predict(ROWS).json == {"predictions": [[4.0, 6.0]]}

    for pid in pids_of(server):
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        assert "tensorflow" not in maps
        assert "httptools" in maps


def test_a_worker_that_dies_is_replaced_and_the_others_lose_nothing(server, caplog) -> None:
    server.predict(ROWS)
    before = pids_of(server)
    stop = threading.Event()
    lost: list[str] = []
    answered = [0] * 4

    def ask(client: int) -> None:
        while not stop.is_set():
            try:
                answer = server.predict(ROWS)
            except (ConnectionError, OSError) as error:
                lost.append(type(error).__name__)  # it was with the one that was killed
                continue
            assert answer.json == {"predictions": [[4.0, 6.0]]}
            answered[client] += 1

    def all_go_on() -> None:
        before = list(answered)
        eventually(lambda: all(now > then + 10 for now, then in zip(answered, before, strict=True)))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, client) for client in range(4)]
        try:
            all_go_on()
            os.kill(before[0], signal.SIGKILL)
            eventually(lambda: len(pids_of(server)) == 2 and before[0] not in pids_of(server))
            all_go_on()
        finally:
            stop.set()
        for future in asking:
            future.result(60)
    assert len(lost) <= 4, "only requests that were on their way through the dead process"
    assert before[1] in pids_of(server)
    assert "a worker ended, another one is started" in caplog.text
    assert server.serving.num_held == 0


def test_a_bad_request_does_not_harm_its_bundle(server) -> None:
    server.serving.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        values = [BAD if number % 8 == 3 else float(number) for number in range(24)]
        asking = [pool.submit(server.predict, {"instances": [[value, 0.0]]}) for value in values]
        eventually(lambda: len(server.serving.tickets) >= 2)
        server.serving.gate.set()
        answers = [future.result(20) for future in asking]

    for value, answer in zip(values, answers, strict=True):
        if value == BAD:
            assert (answer.status, answer.json) == (400, {"error": "bad value"})
        else:
            assert answer.json == {"predictions": [[2 * value + 2, 2.0]]}
    assert server.serving.num_held == 0


def test_workers_end_with_their_server(tmp_path: Path) -> None:
    program = tmp_path / "serve.py"
    program.write_text(
        textwrap.dedent("""
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from helpers.fake_serving import FakeServing
        from tfserve_nb.server.settings import ServerSettings
        from tfserve_nb.server.thread import ServerThread

        server = ServerThread(FakeServing(), ServerSettings(workers=2))
        server.start()
        print("ready", flush=True)
        time.sleep(60)
        """),
        encoding="utf-8",
    )
    with subprocess.Popen(
        [sys.executable, program, Path(__file__).parents[1]], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        pids = workers_below(process.pid)
        assert len(pids) == 2
        process.kill()

    eventually(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    """Whether a process runs: one that has ended may wait for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [-1, 65, True, "2", 1.5])
def test_their_number_is_checked(number: object) -> None:
    with pytest.raises(InvalidOption, match="workers"):
        ServerSettings(workers=number)  # type: ignore[arg-type]


arrays = st.builds(
    lambda dtype, shape: np.arange(int(np.prod(shape))).astype(dtype).reshape(shape),
    st.sampled_from(
        ["float32", "float64", ">f4", "int8", "int64", "uint16", "bool", ml_dtypes.bfloat16, "complex64", "S3"]
    ),
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
)


@given(st.lists(st.dictionaries(st.text(max_size=4), arrays, max_size=3), max_size=5))
def test_messages_arrive_as_they_were_sent(inputs: list[dict[str, np.ndarray]]) -> None:
    sent = [Bundle(number, ModelSpec("m"), 1, "s", (1, 2), 3.5, one) for number, one in enumerate(inputs)]

    got = from_frame(memoryview(to_frame(sent)))

    assert len(got) == len(sent)
    for one, other in zip(sent, got, strict=True):
        assert other[:6] == one[:6]
        assert other.inputs.keys() == one.inputs.keys()
        for name, array in one.inputs.items():
            assert other.inputs[name].dtype == array.dtype
            np.testing.assert_array_equal(other.inputs[name], array)


def test_what_is_served_requests_and_odd_values_arrive_too(serving) -> None:
    settings = ServerSettings(grpc=GrpcSettings(tls=TlsFiles(b"key", b"certificate", b"", True, "file")))
    head = RequestHead("POST", "/v1/m\xff", True, [(b"host", b"\xff")], {b"host": b"\xff"}, True)
    record = RequestRecord("m\ud800", 2**70, "s", "OK", np.int64(3), 0.5, 0.5, None, None, 1.5)
    sent = [
        Hello(settings), Catalog(serving.catalog()), Forward(1, head, b"\0" * 5000, ("::1", True)),
        Forwarded(1, None, True), Records((record,)),
        Piece(1, {"t": np.arange(12).reshape(3, 4)[:, ::2].T}, float("inf"), -0.0, None), Drain(),
    ]  # fmt: skip

    got = from_frame(memoryview(to_frame(sent)))

    assert got[:5] == sent[:5]
    assert got[5].outputs["t"].tolist() == sent[5].outputs["t"].tolist()
    assert got[5][2:] == sent[5][2:]
    assert got[6] == sent[6]


def test_frames_hold_values_and_nothing_else() -> None:
    with pytest.raises(TypeError, match="module is part of no message"):
        to_frame([Piece(1, {}, 0.0, 1.0, sys)])  # type: ignore[arg-type]
    text = b'[["os.system", "true"]]'
    with pytest.raises((KeyError, ValueError)):
        from_frame(memoryview(struct.pack("<QQ", len(text), 0) + text))


def test_text_and_errors_arrive_too() -> None:
    error = QueueFull("full", hint="later")
    error.code = "ABORTED"
    text = np.array([[b"a\0", "ä".encode()]], dtype=object)

    (piece,) = from_frame(memoryview(to_frame([Piece(1, {"t": text}, 0.0, 1.0, error)])))
    assert (str(piece.error), piece.error.code, piece.error.http_status) == ("full", "ABORTED", 503)

    assert piece.outputs["t"].tolist() == text.tolist()
    assert isinstance(piece.error, ServingError)
    assert (type(piece.error), piece.error.message, piece.error.hint) == (QueueFull, "full", "later")


def test_an_answer_for_a_model_that_is_gone_reaches_its_client_all_the_same() -> None:
    spec = SignatureSpec("serving_default", {"x": TensorSpec("x", "float32", (None, 2))}, {})
    view = VersionView({"serving_default": spec}, {"serving_default": True}, 8, 64, checks_shapes=True)

    async def make_backend() -> LinkBackend:
        return LinkBackend(Link(lambda _: None, lambda: None))

    backend = asyncio.run(make_backend())
    backend.set_models({"net": ModelView({1: 50.0, 2: 50.0}, {}, {1: view, 2: view}, arms={1: "a", 2: "b"})})
    handle = backend.acquire(ModelSpec("net"), key="ann")
    backend.set_models({})

    handle.answered_by(3 - handle.version)

    assert handle.assignment is not None
    assert (handle.assignment.arm, handle.assignment.key) == ("", "ann")


class OneByOne:
    """A handle of a version whose rows belong together: a run gives the sum of its rows."""

    def __init__(self, *, is_known: bool) -> None:
        self.version = 2
        self.signatures = {"serving_default": SUM}
        self.is_known = is_known
        self.sizes: list[int] = []

    def shares_runs(self, _: str) -> bool:
        return not self.is_known

    def submit(self, _: str, inputs: Tensors, *, on_done: Callable[[Outcome], None], **__: object) -> object:
        self.sizes.append(len(inputs["x"]))
        on_done(Answer({"y": inputs["x"].sum(axis=0, keepdims=True)}, 0.0, 1.0))
        return object()

    def release(self) -> None:
        """Nothing is held."""


SUM = SignatureSpec(
    "serving_default", {"x": TensorSpec("x", "float32", (None,))}, {"y": TensorSpec("y", "float32", (None,))}
)


class WorkerEnd:
    """What a bundle's run needs of the worker that waits for it."""

    def __init__(self) -> None:
        self.completions = self
        self.answers: list[BundleAnswer] = []

    def put(self, function: Callable[[Outcome], None], outcome: Outcome) -> None:
        function(outcome)

    def log_request(self, *_: object) -> None:
        """No request log."""

    def wake(self) -> None:
        """Nothing waits."""

    def finished(self, _: Bundle, answer: BundleAnswer) -> None:
        self.answers.append(answer)


@pytest.mark.parametrize("is_known", [True, False], ids=["the version is known for it", "a run shows it"])
def test_requests_that_a_worker_put_together_run_apart_where_they_must(is_known: bool) -> None:
    end, handle = WorkerEnd(), OneByOne(is_known=is_known)
    inputs = {"x": np.array([1, 2, 3, 4, 5], np.float32)}
    bundle = Bundle(1, ModelSpec("net"), 1, "serving_default", (1, 2, 2), 1e12, inputs)

    BundleRun(end, bundle, handle).start()  # type: ignore[arg-type]

    (answer,) = end.answers
    assert [piece.outputs["y"].tolist() for piece in answer.pieces if piece.outputs] == [[1.0], [5.0], [9.0]]
    assert handle.sizes == ([1, 2, 2] if is_known else [5, 1, 2, 2])


def test_requests_without_a_common_number_of_rows_are_not_put_together() -> None:
    both = {"a": TensorSpec("a", "float32", (None,)), "b": TensorSpec("b", "float32", (None,))}
    view = VersionView(
        {"serving_default": SignatureSpec("serving_default", both, {})}, {"serving_default": True}, 8, 64,
        checks_shapes=False,
    )  # fmt: skip
    sent: list[Bundle] = []

    class Wire:
        is_congested = False

        def send(self, message: Bundle) -> None:
            sent.append(message)

    backend = LinkBackend(Wire())  # type: ignore[arg-type]
    backend.set_models({"net": ModelView({1: 100.0}, {}, {1: view})})
    handle = backend.acquire(ModelSpec("net"))
    for num_a, num_b in ((2, 2), (2, 3), (1, 1)):
        inputs = {"a": np.zeros(num_a, np.float32), "b": np.zeros(num_b, np.float32)}
        handle.submit("serving_default", inputs, deadline_s=1e12, on_done=print, wakes=False)

    backend.wake()

    assert [bundle.row_counts for bundle in sent] == [(2,), (1,), (1,)]


def test_requests_whose_deadlines_lie_far_apart_do_not_share_a_bundle() -> None:
    spec = SignatureSpec("serving_default", {"x": TensorSpec("x", "float32", (None, 2))}, {})
    view = VersionView({"serving_default": spec}, {"serving_default": True}, 8, 64, checks_shapes=True)
    sent: list[Any] = []

    class FakeLink(Link):
        def send(self, message: Any) -> None:
            sent.append(message)

    async def make_backend() -> LinkBackend:
        return LinkBackend(FakeLink(lambda _: None, lambda: None))

    backend = asyncio.run(make_backend())
    backend.set_models({"net": ModelView({1: 100.0}, {}, {1: view})})
    now_s = time.perf_counter()
    for limit_s in (20.0, 20.1, 60.0):
        handle = backend.acquire(ModelSpec("net"))
        row = {"x": np.ones((1, 2), np.float32)}
        handle.submit("serving_default", row, deadline_s=now_s + limit_s, on_done=lambda _: None, wakes=False)
    backend.wake()

    assert [bundle.row_counts for bundle in sent] == [(1, 1), (1,)]
