"""`workers` and `frontends` are two names of one option, wherever it is given; `auto` fits the cores."""

from __future__ import annotations

import pytest
from IPython.core.magic_arguments import parse_argstring

import tfserve_nb
from tfserve_nb.api.servers import ListenOptions
from tfserve_nb.cli import serve_plan
from tfserve_nb.cli.serve_flags import parse_serve
from tfserve_nb.cli.serve_plan import make_plan
from tfserve_nb.errors import InvalidOption
from tfserve_nb.notebook.magics import DeployMagics
from tfserve_nb.server.settings import num_workers

TOO_MANY = "workers=65 must be a number from 0 to 64, or auto"


@pytest.mark.parametrize(
    ("line", "workers"),
    [
        ("net --workers 2", 2),
        ("net --frontends 2", 2),
        ("net --workers=2", 2),
        ("net --workers auto", "auto"),
        ("net --frontends=auto", "auto"),
    ],
)
def test_the_magic_takes_both_names(line: str, workers: int | str) -> None:
    assert parse_argstring(DeployMagics.deploy, line).workers == workers


@pytest.mark.parametrize(
    ("flag", "workers"),
    [("--workers=2", 2), ("--frontends=2", 2), ("--workers=auto", "auto"), ("--frontends=auto", "auto")],
)
def test_the_command_line_takes_both_names(flag: str, workers: int | str) -> None:
    assert parse_serve([flag]).workers == workers


@pytest.mark.parametrize("options", [{"workers": 65}, {"frontends": 65}, {"workers": 65, "frontends": 65}])
def test_deploy_takes_both_names(options: dict[str, int]) -> None:
    with pytest.raises(InvalidOption, match=TOO_MANY):
        tfserve_nb.deploy(object(), "net", provenance=False, **options)


@pytest.mark.parametrize("workers", ["many", True, -1, 2.0])
def test_what_is_no_number_of_workers_is_refused(workers: object) -> None:
    with pytest.raises(InvalidOption, match=f"workers={workers!r} must be a number from 0 to 64, or auto"):
        ListenOptions(workers=workers)  # type: ignore[arg-type]


def test_another_word_is_no_option_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_serve(["--workers=many"])
    assert "'many' must be a whole number or auto" in capsys.readouterr().err


def test_two_numbers_are_refused() -> None:
    with pytest.raises(InvalidOption, match="workers=1 and frontends=2 are the same option"):
        tfserve_nb.deploy(object(), "net", provenance=False, workers=1, frontends=2)


@pytest.mark.parametrize(
    ("cores", "workers"), [(1, 0), (2, 0), (3, 0), (4, 2), (6, 3), (8, 4), (10, 5), (16, 5), (128, 5)]
)
def test_auto_leaves_cores_for_the_model_and_adds_no_worker_that_would_wait(cores: int, workers: int) -> None:
    assert num_workers(cores) == workers


@pytest.mark.parametrize(("cores", "workers"), [(2, 0), (8, 4)])
def test_the_command_line_counts_the_cores_for_auto(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int) -> None:
    monkeypatch.setattr(serve_plan, "num_cores", lambda: cores)

    assert make_plan(parse_serve(["--model_base_path=/x", "--workers=auto"])).settings.workers == workers
