"""The tables of options in README and docs say what the options are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("option_tables", ROOT / "tools" / "option_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_up_to_date(tables) -> None:
    stale = [
        path.name for path in tables.FILES if tables.with_tables(path.read_text("utf-8")) != path.read_text("utf-8")
    ]

    assert stale == [], "run: .venv/bin/python tools/option_tables.py"


def test_every_command_with_many_options_has_its_table(tables) -> None:
    text = "\n".join(path.read_text("utf-8") for path in tables.FILES)

    assert [name for name in tables.TABLES if f"{tables.MARK}{name} " not in text] == []


def test_a_changed_option_changes_its_row(tables) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    changed = text.replace("| `--keep N` |", "| `--keep ALL` |")

    assert changed != text
    assert tables.with_tables(changed) == text
