"""`%benchmark` and `%%benchmark` in a private shell."""

from __future__ import annotations

import dataclasses
from typing import Any  # the shell of conftest.py

import numpy as np
import pytest
import requests
from IPython.core.error import UsageError

from tfserve_nb.bench.result import BenchmarkResult
from tfserve_nb.errors import ModelNotFound
from tfserve_nb.notebook.benchmark import ending_of

SHORT = "--seconds 1 --warmup-seconds 0.2"


@pytest.fixture
def served(modeller: Any) -> Any:
    """A shell that serves `net`, which doubles two numbers."""
    modeller.run("%deploy model --name net --out d --quiet --grpc-port 0")
    return modeller


def test_the_line_magic_shows_progress_and_gives_a_result(served, capsys) -> None:
    result = served.run(f"%benchmark net --rate 100 {SHORT} --out r")

    assert isinstance(result, BenchmarkResult)
    assert served.user_ns["r"] is result
    assert (result.name, result.version, result.summary.num_errors) == ("net", 1, 0)
    assert result.run == 1
    assert "made up" in result.payload
    assert served.display_formatter.format(result)[0]["text/plain"].startswith("run 1: net version 1, json, open loop")
    assert [event.action for event in served.user_ns["d"].history()] == ["benchmark", "deploy"]


def test_what_stays_of_the_progress_tells_whether_it_was_interrupted(served) -> None:
    result = served.run(f"%benchmark net --rate 50 {SHORT}")
    broken_off = dataclasses.replace(result, summary=dataclasses.replace(result.summary, interrupted=True))

    assert ending_of(result).startswith("done: run 1: net version 1")
    assert ending_of(broken_off).startswith("interrupted: run 1: net version 1")


def test_the_cell_magic_sends_the_rows_of_its_last_expression(served) -> None:
    served.user_ns["d"].sample_requests()

    result = served.run(f"%%benchmark net --closed 2 --rows 2 {SHORT} -q -o r\nx = np.full((6, 2), 7.0)\nx")

    assert result is None
    assert "given" in served.user_ns["r"].payload
    samples = served.user_ns["d"].samples()
    assert all((sample.inputs["x"] == 7.0).all() and sample.num_rows == 2 for sample in samples)
    assert served.user_ns["r"].summary.rows_per_s == pytest.approx(2 * served.user_ns["r"].summary.rate)


@pytest.mark.parametrize("protocol", ["json", "binary", "grpc", "kernel"])
def test_every_protocol_reaches_the_model(served, protocol: str) -> None:
    result = served.run(f"%benchmark --rate 50 --protocol {protocol} {SHORT}")

    assert result.protocol == protocol
    assert (result.summary.num_errors, result.summary.num_ok > 20) == (0, True)
    metrics = served.user_ns["d"].metrics()
    assert metrics.versions[1].num_errors == 0


def test_a_split_is_told_instead_of_a_version(served) -> None:
    served.run("%deploy model --name net --canary 25 --quiet --label new --out d")

    split = served.run(f"%benchmark net --rate 50 {SHORT}")
    labelled = served.run(f"%benchmark net --rate 50 --label new {SHORT}")

    assert (split.version, labelled.version) == (None, 2)
    assert split.payload.endswith("made up; traffic: version 1 75 %, version 2 25 %")
    assert "traffic" not in labelled.payload


def test_without_a_rate_a_modest_one_is_found_and_told(served, capsys) -> None:
    result = served.run(f"%benchmark net {SHORT}")

    out = capsys.readouterr().out
    assert "looking for a modest rate" in out
    assert f"{result.load.rate:g} requests/s, at most half of the " in out


def test_versions_are_compared_and_runs_of_the_history_too(served) -> None:
    served.run("%deploy model --name net --stage --quiet --out d")

    compared = served.run(f"%benchmark net --versions 1,2 --rate 60 --repeats 1 {SHORT}")
    again = served.run("%benchmark net --compare 1 2")

    assert [one.version for one in compared.pairs[0]] == [1, 2]
    assert again.pairs[0][0].summary == compared.pairs[0][0].summary
    with pytest.raises(UsageError, match=r"there is no run 77 in .*; there are 1, 2"):
        served.run("%benchmark net --compare 1 77")


def test_a_url_is_loaded_with_the_token_of_the_environment(served, monkeypatch) -> None:
    handle = served.user_ns["d"]
    monkeypatch.setenv("NET_TOKEN", handle.token)

    result = served.run(f"%benchmark --url {handle.rest_url}:predict --token-env NET_TOKEN --rate 50 {SHORT}")

    assert (result.name, result.summary.num_errors) == ("net", 0)
    over_grpc = f"--protocol grpc --grpc-address {handle.grpc_address}"
    result = served.run(f"%benchmark --url {handle.rest_url} --token-env NET_TOKEN {over_grpc} --rate 50 {SHORT}")
    assert (result.protocol, result.summary.num_errors, result.summary.num_ok > 20) == ("grpc", 0, True)
    with pytest.raises(UsageError, match="responds with 401"):
        served.run(f"%benchmark --url {handle.rest_url} --rate 50 {SHORT}")
    with pytest.raises(UsageError, match="no environment variable 'NOT_SET'"):
        served.run(f"%benchmark --url {handle.rest_url} --token-env NOT_SET {SHORT}")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--rate 0", "rate=0.0 must be a positive number"),
        ("--rate 1 --closed 1", "rate and closed exclude each other"),
        ("--sweep --rate 5", "a sweep chooses its rates itself"),
        ("--versions 1", "--versions needs two"),
        ("--seconds -1", "seconds=-1.0"),
        ("--out 1x --rate 5", "no variable name"),
        ("--signature other --rate 5", "there is no signature 'other'"),
        ("--rows 0 --rate 5", "rows=0 must be at least 1"),
    ],
)
def test_wrong_options_are_one_line(served, line: str, text: str) -> None:
    with pytest.raises(UsageError, match=text.replace("(", r"\(")):
        served.run(f"%benchmark net {line}")


def test_a_model_that_is_not_served_and_a_cell_without_rows(served) -> None:
    with pytest.raises(ModelNotFound, match="missing"):
        served.run("%benchmark missing --rate 5")
    with pytest.raises(UsageError, match="last expression must give the rows"):
        served.run("%%benchmark net --rate 5\nx = 1")


def test_a_benchmark_disturbs_nobody(served) -> None:
    handle = served.user_ns["d"]
    served.run(f"%benchmark net --closed 4 {SHORT} -q")

    reply = requests.post(
        f"{handle.rest_url}:predict", json={"instances": [[1.0, 2.0]]},
        headers={"Authorization": f"Bearer {handle.token}"}, timeout=10,
    )  # fmt: skip
    assert reply.json() == {"predictions": [[2.0, 4.0]]}
    np.testing.assert_array_equal(handle.predict([[1.0, 2.0]]), [[2.0, 4.0]])
