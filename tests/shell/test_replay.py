"""`%serving --capture`, `%replay` and `%deploy --check-replay` in a private shell."""

from __future__ import annotations

from typing import Any  # the shell of conftest.py

import pytest
from IPython.core.error import UsageError

from tfserve_nb.errors import ReplayFailed, VersionNotFound
from tfserve_nb.replay.result import ReplayResult


@pytest.fixture
def served(modeller: Any) -> Any:
    """A shell that serves `net`, which doubles two numbers, and captures twelve requests."""
    modeller.run("%deploy model --name net --out d --quiet")
    modeller.run("%serving net --capture on")
    modeller.run("for i in range(12): d.predict([[i, 1.0]])")
    return modeller


def test_capture_is_turned_and_told(served, capsys) -> None:
    served.run("%serving --capture ?")
    assert "12 requests kept" in capsys.readouterr().out
    assert "net: requests are captured, 12 are kept" in repr(served.run("%serving"))
    served.run("%serving net --capture off")
    assert "requests are captured" not in repr(served.run("%serving"))
    assert "capture is off" in capsys.readouterr().out
    served.run("%serving net --capture on --redact x")
    assert "redacted: x" in capsys.readouterr().out
    served.run("%serving net --capture clear")
    assert "0 requests kept, 0 MiB; capture is on" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--redact goes with --capture on"):
        served.run("%serving net --capture off --redact x")
    with pytest.raises(UsageError):
        served.run("%serving net --capture maybe")


def test_a_replay_shows_progress_and_gives_a_result(served, capsys, tmp_path) -> None:
    served.run("%deploy model --name net --stage --quiet --out d")

    result = served.run(f"%replay net --onto 2 --speed 2 --requests 10 --out r --save {tmp_path}/c.parquet")

    out = capsys.readouterr().out
    assert "saved: " in out
    assert "replaying 10 requests onto version 1 and version 2" in out
    assert isinstance(result, ReplayResult)
    assert served.user_ns["r"] is result
    assert (result.num_requests, result.disagreement) == (10, 0.0)
    shown = served.display_formatter.format(result)[0]["text/plain"]
    assert shown.startswith("replay 1: 10 captured requests onto net version 2 beside version 1 at 2 times the speed")

    served.run("%serving net --capture clear")
    again = served.run(f"%replay net --onto 2 --from {tmp_path}/c.parquet --requests 4 --quiet --out r")
    assert again is None
    assert served.user_ns["r"].num_requests == 4


def test_a_deploy_is_gated(served, capsys) -> None:
    served.run("%deploy model --name net --check-replay --max-slowdown 1000")
    assert "replaying" in capsys.readouterr().out
    assert served.user_ns["d"].version == 2

    served.run("other = make(5.0)")
    with pytest.raises(ReplayFailed, match="version 3 of net was not deployed"):
        served.run("%deploy other --name net --check-replay --quiet")
    assert (served.user_ns["d"].version, served.user_ns["d"].status().on_disk) == (2, (1, 2))
    served.run("%deploy other --name net --check-replay --max-disagreement 1 --max-slowdown 1000 --quiet --out d")
    assert served.user_ns["d"].version == 4


def test_a_gated_deploy_takes_what_the_outputs_are(served) -> None:
    served.run("close = make(2.02)")
    gated = "%deploy close --name net --check-replay --max-slowdown 1000 --quiet --out d"
    with pytest.raises(ReplayFailed, match="it disagrees on 100 % of 12 rows"):
        served.run(f"{gated} --kind regression")
    with pytest.raises(ReplayFailed, match="it disagrees on 100 % of 12 rows"):
        served.run(f"{gated} --kind exact")

    served.run(f"{gated} --kind regression --tolerance 0.1")
    assert served.user_ns["d"].version == 4


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("%replay net", "--onto VERSION, one of 1"),
        ("%replay net --onto 1 --speed 0", "speed=0.0 must be a number"),
        ("%replay net --onto 1 --from nowhere.parquet", "nowhere.parquet holds no captured requests"),
        ("%replay net --onto 1 --requests 0", "requests=0"),
        ("%replay net --onto 1 --out 1x", "no variable name"),
        ("%deploy model --name net --max-slowdown 2", "limits of --check-replay"),
        ("%deploy model --name net --check-replay --max-disagreement -1", "max_disagreement=-1.0"),
        (
            "%deploy model --name net --kind exact",
            "kind set how outputs are compared, and nothing is replayed or optimized",
        ),
        ("%deploy model --name net --check-replay --kind nearly", "argument --kind: invalid choice: 'nearly'"),
        ("%deploy model --name net --check-replay --tolerance -1", "tolerance=-1.0 must be a number of at least 0"),
        ("%deploy model --name new --check-replay", "nothing to replay onto the first version of new"),
    ],
)
def test_wrong_options_are_one_line(served, line: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        served.run(line)


def test_a_version_that_is_not_loaded_is_named(served) -> None:
    with pytest.raises(VersionNotFound, match="version 9 of net is not loaded; loaded: 1"):
        served.run("%replay net --onto 9")
