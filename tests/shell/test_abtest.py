"""`%abtest` in a private shell: what it begins, shows and ends, and what wrong input gets."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError

from tfserve_nb.errors import InvalidOption, InvalidRequest, LabelNotFound, VersionNotFound


@pytest.fixture
def two(modeller: Any) -> Any:
    """A shell that serves `net`: version 1 answers, version 2 is staged, version 3 takes other inputs."""
    modeller.run("%deploy model --name net --label stable --quiet --keep 5 --out d")
    modeller.run("better = make(3.0)")
    modeller.run("%deploy better --name net --stage --quiet --keep 5 --out d")
    modeller.run("wide = keras.Sequential([keras.Input((5,), name='x'), keras.layers.Rescaling(2.0)])")
    modeller.run("%deploy wide --name net --stage --quiet --keep 5 --out d")
    return modeller


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("net", UsageError, r"two versions: %abtest net --a 1 --b 2 \(net has 1, 2, 3\)"),
        ("net --a 1", UsageError, "needs two versions"),
        ("net --a 1 --b 1", UsageError, "both version 1"),
        ("net --a 1 --b 9", VersionNotFound, "no version 9; it has 1, 2, 3"),
        ("net --a 1 --b nope", LabelNotFound, "net has no label 'nope'; it has stable"),
        ("net --a 1 --b 3", UsageError, r"takes x float32\[\?, 2\], version 3 takes x float32\[\?, 5\]"),
        ("net --a 1 --b 2 --split 150", UsageError, "split=150.0 must be a number from 0 to 100"),
        ("net --a 1 --b 2 --split half", UsageError, "--split: invalid float value: 'half'"),
        ("net --a 1 --b 2 --steps 25,5", UsageError, "must increase"),
        ("net --a 1 --b 2 --steps 1,x", UsageError, "'1,x' must be numbers with commas"),
        ("net --a 1 --b 2 --split 60 --steps 1,50", UsageError, "--split and --steps exclude each other"),
        ("net --a 1 --b 2 --hold 5", UsageError, "--hold is the least time of each step"),
        ("net --a 1 --b 2 --rate 5", UsageError, "--rate is for asking with rows"),
        ("net --a 1 --b 2 --seconds 5", UsageError, "--seconds is for asking with rows"),
        ("net --a 1 --b 2 --values nix", UsageError, "there is no variable 'nix'"),
        ("net --a 1 --b 2 --values rows --rate -5", UsageError, "rate=-5.0"),
        ("net --a 1 --b 2 --values rows", InvalidRequest, r"expected float32\[\?, 2\]"),
        ("net --stop", UsageError, "no running experiment"),
        ("net --stop --promote", UsageError, "--stop and --promote exclude each other"),
        ("net --stop --a 1", UsageError, "leave --a and --b out"),
    ],
)
def test_what_cannot_be_compared_is_told_and_nothing_begins(two, line, error, words) -> None:
    two.run("rows = np.zeros((4, 7), 'float32')")

    with pytest.raises(error, match=words):
        two.run(f"%abtest {line}")

    handle = two.user_ns["d"]
    assert handle.traffic == {1: 100.0}
    assert handle.experiment() is None


def test_a_cell_without_rows_is_told(two) -> None:
    with pytest.raises(UsageError, match="must give the rows"):
        two.run("%%abtest net --a 1 --b 2\nNone")


def test_a_second_experiment_is_refused_while_one_goes_on(two) -> None:
    two.run("%abtest net --a stable --b 2 --out t --quiet")

    with pytest.raises(
        UsageError, match=r"running experiment: version 2 compared with version 1 \(try: %abtest net --stop\)"
    ):
        two.run("%abtest net --a 1 --b 2")

    assert two.user_ns["t"].state.phase == "running"
    assert two.user_ns["d"].traffic == {1: 50.0, 2: 50.0}


def test_the_name_alone_shows_the_latest_experiment(two) -> None:
    two.run("%abtest net --a 1 --b 2 --quiet")
    assert two.run("%abtest net").state.phase == "running"

    ended = two.run("%abtest net --stop")

    assert ended.verdict.endswith("; stopped by hand")
    assert two.run("%abtest net").state.phase == "stopped"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%abtest ", {"net", "--a", "--b", "--values"}),
        ("%abtest net --a ", {"1", "2", "3", "stable"}),
        ("%abtest net --a 1 --b ", {"1", "2", "3", "stable"}),
        ("%abtest net --metric ", {"latency", "p95", "quality"}),
        ("%%abtest net --sh", {"--shadow"}),
        ("%serving net --capture ", {"on", "off", "clear", "?"}),
    ],
)
def test_tab_completes_versions_labels_and_choices(two, line, expected) -> None:
    with provisionalcompleter():
        found = {one.text for one in two.Completer.completions(line, len(line))}
    assert expected <= found


def test_a_label_that_is_no_class_is_refused_and_counts_nothing(two) -> None:
    two.run("%abtest net --a 1 --b 2 --out t --quiet")
    handle = two.user_ns["d"]
    handle.predict([[1.0, 0.0]], request_id="one")

    with pytest.raises((InvalidOption, InvalidRequest), match="label 'seven' is text"):
        handle.feedback("one", "seven")

    assert handle.feedback("one", 0)


def test_a_label_that_is_faster_than_the_servers_own_notes_is_joined_to_its_request(two) -> None:
    two.run("%abtest net --a 1 --b 2 --quiet")
    handle = two.user_ns["d"]

    def slow(inputs: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.005)  # on the server's thread, after the answer was written and before it is remembered
        return inputs

    handle.capture(redact=slow)
    headers = {"Authorization": f"Bearer {handle.token}", "X-Request-Id": "quick"}
    requests.post(f"{handle.rest_url}:predict", json={"instances": [[1.0, 0.0]]}, headers=headers, timeout=10)

    assert handle.feedback("quick", 0)
