"""`tfserve-nb parity` between real servers: the same models, one weight changed, versions of which one is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.black_box import Served, Start, environment
from helpers.saved_models import write_half_plus_two

MODELS = ("half_plus_two", "two_versions", "many")
ASKS = """
import sys
from tfserve_nb.cli import main
from tfserve_nb.protos.postponed import loaded
code = main(["parity", *sys.argv[1:]])
assert loaded() is None, "TensorFlow was imported"
sys.exit(code)
"""


def compared(a: Served, b: Served, *more: str) -> tuple[int, str]:
    """Exit code and words of a comparison, in a process that must not import TensorFlow."""
    urls = [f"http://127.0.0.1:{one.rest_port}" for one in (a, b)]
    grpc = [f"127.0.0.1:{one.grpc_port}" for one in (a, b)]
    done = subprocess.run(
        [sys.executable, "-c", ASKS, *urls, "--grpc", *grpc, "--model", ",".join(MODELS), "--labels", "stable", *more],
        capture_output=True, text=True, check=False, timeout=200, env=environment(),
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def begin(start_for_module: Start, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Start a server of the three models in a store."""

    def start(store: Path, *flags: str) -> Served:
        labels = 'version_labels { key: "stable" value: 1 }'
        config = tmp_path_factory.mktemp("config") / "models.config"
        config.write_text(
            "model_config_list {"
            + "".join(
                f'config {{ name: "{name}" base_path: "{store}/{name}" model_platform: "tensorflow" '
                f"model_version_policy {{ all {{}} }} {labels if name == 'two_versions' else ''} }}"
                for name in MODELS
            )
            + "}"
        )
        return start_for_module(
            f"--model_config_file={config}", "--allow_version_labels_for_unavailable_models", *flags
        )

    return start


@pytest.fixture(scope="module")
def a(begin, store: Path) -> Served:
    return begin(store)


def test_two_servers_of_the_same_files_are_the_same(a: Served, begin, store: Path) -> None:
    code, text = compared(a, begin(store, "--workers=1"), "--requests", "20")

    assert code == 0, text
    assert "the same: " in text
    assert "many 1 half both refuse, 16 both refuse, 16 same, 16 same, 16" in text
    assert "half_plus_two gRPC" in text
    assert "label two_versions, stable same version 1" in text


def test_a_changed_weight_and_a_missing_version_are_found(a: Served, begin, own_store: Path, tmp_path: Path) -> None:
    folder = own_store / "half_plus_two" / "00000123"
    folder.rename(tmp_path / "before")
    write_half_plus_two(folder, offset=2.001)
    (own_store / "two_versions" / "2").rename(tmp_path / "two")

    code, text = compared(a, begin(own_store), "--requests", "0")

    assert code == 1, text
    assert "versions and states two_versions different A: 1 AVAILABLE, 2 AVAILABLE; B: 1 AVAILABLE" in text
    assert "half_plus_two 123 serving_default 16 of 16 differ" in text
    assert "half_plus_two version 123, serving_default, REST, rows" in text
    assert re.search(r" y 2\.\d+ 2\.\d+ 0\.001 ", text)
    assert "many 1 int32 same" in text
