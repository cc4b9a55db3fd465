"""A private IPython shell with the extension loaded; cells that fail raise."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


class RaisingShell(InteractiveShell):
    """`run(cell)` returns the value of the cell and raises what it raises."""

    def run(self, cell: str) -> Any:
        result = self.run_cell(cell, store_history=False)
        result.raise_error()
        return result.result


@pytest.fixture
def plain_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RaisingShell]:
    """A shell without the extension, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    config = Config()
    config.HistoryManager.enabled = False
    shell = RaisingShell(config=config)
    yield shell
    shell.run("import tfserve_nb; tfserve_nb.shutdown()")
    shell.restore_sys_module_state()
    atexit.unregister(shell.atexit_operations)
    shell.atexit_operations()


@pytest.fixture
def shell(plain_shell: RaisingShell) -> RaisingShell:
    """A shell after `%load_ext tfserve_nb`."""
    plain_shell.run("%load_ext tfserve_nb")
    return plain_shell


@pytest.fixture
def modeller(shell: RaisingShell) -> RaisingShell:
    """A shell with a function `make(factor)` in it: a Keras model that multiplies `x` (two numbers) by a factor."""
    shell.run(
        """
import numpy as np
import keras
def make(factor):
    made = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Rescaling(factor)])
    return made
model = make(2.0)
"""
    )
    return shell
