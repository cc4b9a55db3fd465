"""Kernels with the extension loaded, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.real_kernel import Kernel

PRELUDE = """
import atexit, os, pathlib
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
atexit.register(lambda: pathlib.Path("exited").write_text("cleanly"))  # registered first, so it runs last
%load_ext tfserve_nb
"""

MODEL = """
import keras
keras.utils.set_random_seed(1)

def make(factor):
    return keras.Sequential([
        keras.Input((2,), name="x"),
        keras.layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(factor)),
    ])
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A fresh kernel with the extension loaded."""
    with Kernel(tmp_path) as running:
        running.check(PRELUDE)
        yield running


@pytest.fixture
def serving_kernel(kernel: Kernel) -> Kernel:
    """A fresh kernel that serves version 1 of the model `double` (its answer is twice the sum) with the handle `d`."""
    kernel.check(MODEL)
    kernel.check("%%deploy model --name double --out d\nmodel = make(2.0)")
    return kernel


@pytest.fixture(scope="module")
def shared_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all tests of a module: importing TensorFlow takes longer than most of them."""
    with Kernel(tmp_path_factory.mktemp("kernel")) as running:
        running.check(PRELUDE)
        running.check(MODEL)
        yield running


@pytest.fixture
def name(shared_kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[str]:
    """A model of its own for each test of the shared kernel, served as by `serving_kernel`."""
    model = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)[-40:].strip("_")
    shared_kernel.check(f"%%deploy model --name {model} --out d\nmodel = make(2.0)")
    yield model
    shared_kernel.check(f"%undeploy {model}")
