"""Whole runs: the generator's process against servers whose pace is known."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from tfserve_nb.api.benchmark import benchmark_url, compare_runs, stored_runs
from tfserve_nb.bench.figure import png_of
from tfserve_nb.bench.load.kernel_load import generate_here
from tfserve_nb.bench.load.samples import Samples
from tfserve_nb.bench.load.schedule import Load, due_times
from tfserve_nb.bench.load.targets import Described, RequestOptions, pieces_of, target_of
from tfserve_nb.bench.options import Options, carry_out
from tfserve_nb.bench.report import report_of
from tfserve_nb.bench.result import BenchmarkResult, load_result
from tfserve_nb.bench.run import Subject, Watcher, run_load
from tfserve_nb.bench.sweep import SweepResult, sweep
from tfserve_nb.cli import main
from tfserve_nb.errors import InvalidOption, InvalidRequest, ModelNotFound, NotAvailable, QueueFull
from tfserve_nb.reports.html import to_html
from tfserve_nb.reports.text import to_text
from tfserve_nb.types import SignatureSpec, TensorSpec

SHORT = {"seconds": 1.0, "warmup_s": 0.2}


def subject(server, **wish: object) -> Subject:
    return Subject("net", 3, target_of(server.url, None, RequestOptions(**wish)))


def test_numbers_for_all_rows_are_in_each_request() -> None:
    x, scale = TensorSpec("x", "float32", (None, 1)), TensorSpec("scale", "float32", ())
    signature = SignatureSpec("serving_default", {"x": x, "scale": scale}, {})
    described = Described("", {"serving_default": signature}, 1, "")

    given = pieces_of(described, RequestOptions(rows=2, values={"x": [1, 2, 3, 4], "scale": 0.5}))
    made_up = pieces_of(described, RequestOptions(rows=2))

    assert [piece["x"].tolist() for piece in given] == [[[1.0], [2.0]], [[3.0], [4.0]]]
    assert all(piece["scale"] == np.float32(0.5) for piece in given)
    assert {piece["x"].shape for piece in made_up} == {(2, 1)}
    assert {piece["scale"].shape for piece in made_up} == {()}


def test_a_stall_of_the_server_shows_in_p99_although_few_requests_met_it(server) -> None:
    server.is_single = True
    server.pause_s = lambda number: 0.8 if number == 400 else 0.0

    result = run_load(subject(server), Load(rate=400, seconds=3, warmup_s=0.2, connections=4))

    # For 0.8 of 3 seconds users had to wait, the last of them little: p99 is near the length of the stall.
    p99 = result.summary.percentile(0.99)
    assert p99 is not None
    assert 600 <= p99.ms <= 1500
    assert result.summary.num_errors == 0
    # Four connections met it: measured from sending, it would not be seen.
    assert result.summary.uncorrected_p99_ms < p99.ms / 4


def test_a_closed_loop_sends_when_it_has_its_answer_and_says_so(server) -> None:
    server.pause_s = lambda _: 0.02

    result = run_load(subject(server), Load(concurrency=4, **SHORT))

    # More than one client can send, and no more than four can that wait for each response.
    assert 1 / 0.02 < result.summary.rate <= 1.05 * 4 / 0.02
    assert "closed loop, 4 clients" in result.title


def test_an_open_loop_keeps_its_rate_whatever_the_latency(server) -> None:
    server.pause_s = lambda _: 0.2

    result = run_load(subject(server), Load(rate=150, arrivals="constant", **SHORT))

    assert result.summary.num_due == 150
    assert result.summary.percentile(0.5).ms == pytest.approx(200, rel=0.3)


def test_a_request_that_waited_for_a_connection_is_noted_with_its_own_times(server) -> None:
    server.pause_s = lambda _: 0.05
    load = Load(rate=100, arrivals="constant", connections=2, **SHORT)

    samples = run_load(subject(server), load).samples

    assert np.sort(samples.due_s) == pytest.approx(due_times(load) - load.warmup_s)
    # Sending, the pause and the answer, although more than half of them had waited before.
    assert (samples.done_s - samples.sent_s >= 0.05).all()


def test_refusals_and_timeouts_are_results(server) -> None:
    server.status = lambda number: 503 if number % 5 == 0 else 200
    server.pause_s = lambda number: 5.0 if number % 50 == 1 else 0.0

    result = run_load(subject(server), Load(rate=100, timeout_s=0.5, arrivals="constant", **SHORT))

    assert result.summary.errors["503"] == pytest.approx(20, abs=3)
    assert result.summary.errors["timed out"] >= 1
    assert result.summary.reasons["503"].find("too much") > 0
    assert "failed" in to_text(report_of(result))


def test_a_server_that_refuses_most_requests_ends_the_run_early(server) -> None:
    server.status = lambda number: 200 if number % 10 == 0 else 503

    result = run_load(subject(server), Load(rate=200, seconds=30, warmup_s=0.2))

    assert "of the last second failed" in result.summary.stopped
    assert "lower --rate" in result.summary.stopped
    assert result.summary.seconds < 10


def test_not_one_answer_is_an_error_that_says_why(server) -> None:
    server.status = lambda _: 500

    with pytest.raises(NotAvailable, match=r"answered none of \d+ requests: 500: .*too much"):
        run_load(subject(server), Load(rate=20, **SHORT))


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (503, QueueFull, "refuses requests"),
        (400, InvalidRequest, "responds with 400: too much"),
        (404, ModelNotFound, "responds with 404"),
    ],
)
def test_the_first_request_says_what_is_wrong(server, status: int, kind: type[Exception], text: str) -> None:
    server.status = lambda _: status

    with pytest.raises(kind, match=text):
        carry_out(Options(rate=10, **SHORT), (subject(server),))
    assert server.num_requests == 1


def test_nobody_there_and_no_token_are_said_at_once(server, tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match="cannot be reached: .*refused"):
        benchmark_url("http://127.0.0.1:9/v1/models/net", None, Options(**SHORT), tmp_path)
    server.needs_token = "right"
    with pytest.raises(InvalidOption, match="responds with 401: A token is needed") as caught:
        benchmark_url(server.url, None, Options(**SHORT), tmp_path)
    assert "--token-env" in caught.value.hint


def test_the_token_is_in_nobodys_sight(server, tmp_path: Path) -> None:
    server.needs_token = "very-secret-token"
    seen: list[str] = []

    class Recorder(Watcher):
        def say(self, text: str) -> None:
            seen.append(text)

        def follow(self, load: Load, samples: Samples) -> None:
            children = psutil.Process().children(recursive=True)
            seen.extend(" ".join(child.cmdline()) + str(child.environ()) for child in children)

    result = benchmark_url(server.url, "very-secret-token", Options(rate=50, **SHORT), tmp_path, Recorder())

    assert any("generator" in text for text in seen)
    assert result.summary.num_errors == 0
    assert not any(
        "very-secret-token" in text
        for text in (*seen, repr(result), to_text(report_of(result)), to_html(report_of(result)))
    )
    files = [path.read_bytes() for path in (result.save(tmp_path / "r"), tmp_path / "tfserve_nb.sqlite3")]
    assert not any(b"very-secret-token" in data for data in files)


def test_the_generator_imports_neither_tensorflow_nor_ipython() -> None:
    heavy = ("tensorflow", "keras", "IPython", "matplotlib", "scipy", "tornado")
    code = (
        "import sys; from tfserve_nb.bench.load import generator, grpc_client, http_client; "
        f"print(*[name for name in {heavy!r} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.split() == []


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_keeps_what_was_found_and_leaves_no_process(server) -> None:
    timer = threading.Timer(2.0, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()

    result = run_load(subject(server), Load(rate=100, seconds=30, warmup_s=0.2))

    timer.join()
    assert result.summary.interrupted
    assert 20 < result.summary.num_ok < 2000
    assert any(text.startswith("INTERRUPTED") for text in result.summary.warnings)
    assert [one for one in psutil.Process().children() if "generator" in " ".join(one.cmdline())] == []


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_a_rate_is_looked_for_ends_the_whole_benchmark(server, tmp_path: Path, capsys) -> None:
    timer = threading.Timer(1.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()

    code = main(["bench", server.url, "--seconds", "30", "--folder", str(tmp_path), "--quiet"])

    timer.join()
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert err.endswith("tfserve-nb bench: interrupted\n")
    assert [one for one in psutil.Process().children() if "generator" in " ".join(one.cmdline())] == []


def test_a_generator_that_stood_still_makes_its_run_invalid(server) -> None:
    def stop_it() -> None:
        for child in psutil.Process().children():
            if "generator" in " ".join(child.cmdline()):
                child.suspend()
                threading.Timer(0.3, child.resume).start()

    threading.Timer(1.5, stop_it).start()

    result = run_load(subject(server), Load(rate=200, seconds=2, warmup_s=0.2))

    assert not result.summary.is_valid
    assert "INVALID" in to_text(report_of(result))


def test_a_sweep_finds_the_rate_that_the_server_bears(server, tmp_path: Path) -> None:
    server.is_single = True
    server.pause_s = lambda _: 0.004  # at most about 220 a second

    result = benchmark_url(server.url, None, Options(sweep=True, slo_ms=60, seconds=1.0, warmup_s=0.2), tmp_path)

    assert isinstance(result, SweepResult)
    assert "knee" in to_text(report_of(result))
    assert png_of(result)[:4] == b"\x89PNG"
    if result.knee is None:  # this machine was too busy to tell, and the result says that, not that the server is slow
        assert "itself was late; the machine is too busy" in to_text(report_of(result))
        assert "no rate kept the SLO" not in to_text(report_of(result))
    else:
        assert 0 < result.knee <= 260  # a busy machine keeps the SLO at lower rates only
        assert any(one.load.rate > result.knee for one in result.results)


def test_a_sweep_runs_a_step_again_at_which_the_generator_was_late(server, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def run(subject: Subject, load: Load, **options: object) -> BenchmarkResult:
        """As the real one; the first run of each rate is invalid."""
        result = run_load(subject, dataclasses.replace(load, rate=50, seconds=0.5, warmup_s=0.1))
        seen.append(load.rate or 0)
        late = 0.5 if seen.count(load.rate or 0) == 1 else 0.0
        return dataclasses.replace(result, load=load, summary=dataclasses.replace(result.summary, late_share=late))

    monkeypatch.setattr("tfserve_nb.bench.sweep.run_load", run)
    monkeypatch.setattr("tfserve_nb.bench.sweep.MAX_STEPS", 2)

    result = sweep(subject(server), Load(rate=1), 10.0, slo_ms=1e4)

    assert seen[0] == seen[1]
    assert len(seen) == 2 * len(result.results)
    assert all(one.summary.is_valid for one in result.results)


def test_versions_are_compared_in_turns_under_the_same_arrivals(server, tmp_path: Path) -> None:
    result = benchmark_url(server.url, None, Options(rate=100, versions=(3, 4), repeats=2, **SHORT), tmp_path)

    asked = [head.split(b" ")[1].decode() for head in server.heads if head.startswith(b"POST")]
    turns = [path for place, path in enumerate(asked) if place == 0 or path != asked[place - 1]]
    assert [path.split("/")[5].split(":")[0] for path in turns][-3:] == ["3", "4", "3"]
    assert [[one.load.seed for one in pair] for pair in result.pairs] == [[0, 0], [1, 1]]
    assert png_of(result)[:4] == b"\x89PNG"


def test_runs_are_numbered_kept_compared_saved_and_read(server, tmp_path: Path) -> None:
    first = benchmark_url(server.url, None, Options(rate=100, **SHORT), tmp_path)
    second = benchmark_url(server.url, None, Options(closed=2, **SHORT), tmp_path)

    assert (first.run, second.run) == (1, 2)
    assert sorted(stored_runs(tmp_path)) == [1, 2]
    compared = compare_runs(tmp_path, 1, 2)
    assert "run 1" in compared.title
    assert "one pair has no interval" in to_text(report_of(compared))
    with pytest.raises(InvalidOption, match="there is no run 9 in .*; there are 1, 2"):
        compare_runs(tmp_path, 1, 9)
    third = benchmark_url(server.url, None, Options(closed=2, **SHORT), tmp_path)
    with closing(sqlite3.connect(tmp_path / "tfserve_nb.sqlite3")) as connection, connection:
        connection.execute("UPDATE benchmarks SET result = '{}' WHERE id = ?", (third.run,))
    assert "run 1" in compare_runs(tmp_path, 1, 2).title  # one damaged run costs itself only
    with pytest.raises(InvalidOption, match="run 3 in .* cannot be read: KeyError"):
        compare_runs(tmp_path, 1, 3)
    back = load_result(first.save(tmp_path / "folder" / "first"))
    assert back.summary == first.summary
    assert np.array_equal(back.samples.done_s, first.samples.done_s)
    assert len(back.to_dataframe()) == first.summary.num_due
    with pytest.raises(InvalidOption, match="no saved benchmark"):
        load_result(tmp_path / "tfserve_nb.sqlite3")
    assert png_of(first)[:4] == b"\x89PNG"


def test_a_full_disk_costs_the_number_and_nothing_else(server, tmp_path: Path) -> None:
    (tmp_path / "tfserve_nb.sqlite3").mkdir()

    result = benchmark_url(server.url, None, Options(rate=100, **SHORT), tmp_path)

    assert result.run is None
    assert result.summary.num_ok


def test_the_command_line_does_the_same(server, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("BENCH_TOKEN", "right")
    server.needs_token = "right"
    monkeypatch.chdir(tmp_path)
    common = [server.url, "--rate", "100", "--seconds", "1", "--warmup-seconds", "0.2"]

    code = main(["bench", *common, "--token-env", "BENCH_TOKEN", "--save", "run", "--figure", "figure.png"])

    out, err = capsys.readouterr()
    assert "net, json, open loop, poisson arrivals at 100 requests/s (seed 0)" in out
    assert (code == 0) == ("INVALID" not in out)
    assert (tmp_path / "run.npz").exists()
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert "right" not in out + err
    assert main(["bench", *common, "--token-env", "NOT_THERE"]) == 1
    assert main(["bench", "http://127.0.0.1:9/v1/models/net", "--seconds", "1"]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_the_command_line_refuses_the_kernel_as_a_protocol(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "http://127.0.0.1:9/v1/models/net", "--protocol", "kernel"])
    assert ended.value.code == 2
    assert "--protocol: 'kernel' works in a notebook only" in capsys.readouterr().err


def test_the_command_line_compares_runs_of_its_history(server, tmp_path: Path, capsys) -> None:
    folder = ["--folder", str(tmp_path), "--quiet"]
    for _ in range(2):
        main(["bench", server.url, "--rate", "50", "--seconds", "1", "--warmup-seconds", "0.2", *folder])

    assert main(["bench", "--compare", "1", "2", *folder, "--figure", str(tmp_path / "pair.png")]) == 0
    assert main(["bench", "--compare", "1", "9", *folder]) == 1
    assert main(["bench", *folder]) == 1

    out, err = capsys.readouterr()
    assert "A: run 1: net, json" in out
    assert "one pair has no interval" in out
    assert (tmp_path / "pair.png").read_bytes()[:4] == b"\x89PNG"
    assert "there is no run 9" in err
    assert "a URL is missing (try: tfserve-nb bench http://" in err


def test_any_server_that_takes_json_can_be_loaded(server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "body.json").write_text('{"question": 1}')
    url = server.url.replace("/v1/models/net", "/ask?really=1")

    code = main(["bench", url, "--body", "body.json", "--rate", "50", "--seconds", "1", "--quiet"])

    assert code in (0, 1)  # 1 when this machine was too busy for a valid run
    assert server.heads[0].startswith(b"POST /ask?really=1 ")
    assert main(["bench", url, "--body", str(Path(os.devnull)), "--seconds", "1"]) == 1


def test_calls_that_end_while_the_watcher_is_busy_are_counted() -> None:
    called: list[int] = []
    found: list[Samples] = []
    is_over = threading.Event()

    def predict(_: object) -> None:
        called.append(1)

    def keep(new: Samples) -> bool:
        found.append(new)
        is_over.wait(1.5)  # the run of 0.5 s ends meanwhile
        is_over.set()
        return True

    generate_here(predict, [0], Load(concurrency=2, seconds=0.5, warmup_s=0.0), keep)

    assert sum(map(len, found)) == len(called)
