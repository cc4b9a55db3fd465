"""`workers` and `frontends` are two names of one option, wherever it is given."""

from __future__ import annotations

import pytest
from IPython.core.magic_arguments import parse_argstring

import tfserve_nb
from tfserve_nb.cli.serve_flags import parse_serve
from tfserve_nb.errors import InvalidOption
from tfserve_nb.notebook.magics import DeployMagics

TOO_MANY = "workers=65 must be a number from 0 to 64"


@pytest.mark.parametrize("line", ["net --workers 2", "net --frontends 2", "net --workers=2"])
def test_the_magic_takes_both_names(line: str) -> None:
    assert parse_argstring(DeployMagics.deploy, line).workers == 2


@pytest.mark.parametrize("flag", ["--workers=2", "--frontends=2"])
def test_the_command_line_takes_both_names(flag: str) -> None:
    assert parse_serve([flag]).workers == 2


@pytest.mark.parametrize("options", [{"workers": 65}, {"frontends": 65}, {"workers": 65, "frontends": 65}])
def test_deploy_takes_both_names(options: dict[str, int]) -> None:
    with pytest.raises(InvalidOption, match=TOO_MANY):
        tfserve_nb.deploy(object(), "net", provenance=False, **options)


def test_two_numbers_are_refused() -> None:
    with pytest.raises(InvalidOption, match="workers=1 and frontends=2 are the same option"):
        tfserve_nb.deploy(object(), "net", provenance=False, workers=1, frontends=2)
