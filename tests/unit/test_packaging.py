"""What is installed in different ways is the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
OF_POSTBUILD = {"tensorflow", "tensorflow-serving-api"}
"""Binder has `tensorflow-cpu` for the one, and binder/postBuild installs the other without its dependencies."""


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!;\[ ]", requirement, maxsplit=1)[0].lower()


def test_binder_installs_what_the_package_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = re.findall(r"^ +- ([\w.-]+)", (ROOT / "binder" / "environment.yml").read_text(), re.MULTILINE)

    needed = {name_of(one) for one in project["dependencies"]} - OF_POSTBUILD

    assert needed <= {one.lower() for one in listed}


def test_the_commit_hooks_run_the_versions_that_make_check_runs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()

    pinned = {one for one in project["optional-dependencies"]["dev"] if "==" in one}

    tools = {name_of(one) for one in pinned} - {"mypy"}  # mypy looks at the whole package, not at what is committed
    assert tools == {"codespell", "nbstripout", "ruff"}
    assert {one for one in re.findall(r'"([\w-]+==[\d.]+)"', hooks) if name_of(one) in tools} == pinned - {
        one for one in pinned if name_of(one) == "mypy"
    }
