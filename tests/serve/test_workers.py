"""Workers hold gRPC too: without TensorFlow, replaced when they die, and not shared with another server."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from helpers.black_box import Served, Start, command, environment
from helpers.client_requests import predict_request
from helpers.eventually import eventually


@pytest.fixture
def served(start: Start, store: Path) -> Served:
    return start("--model_name=hpt", f"--model_base_path={store}/half_plus_two", "--workers=1")


def pids_of(served: Served) -> list[int]:
    return [child.pid for child in psutil.Process(served.process.pid).children(recursive=True)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_grpc_without_tensorflow_and_after_a_death(served: Served, how: signal.Signals) -> None:
    (first,) = pids_of(served)
    assert list(served.stub().Predict(predict_request(), timeout=30).outputs["y"].float_val) == [2.5, 3.0, 4.5]
    maps = Path(f"/proc/{first}/maps").read_text(encoding="utf-8")
    assert "grpc" in maps
    assert "libtensorflow" not in maps

    os.kill(first, how)
    eventually(lambda: pids_of(served) not in ([], [first]))

    answer = served.stub().Predict(predict_request(), timeout=30, wait_for_ready=True)
    assert list(answer.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    served.close_channels()
    assert served.stop() == 0


def test_a_second_server_does_not_share_the_ports(start: Start, store: Path) -> None:
    import subprocess

    flags = ("--model_name=hpt", f"--model_base_path={store}/quick", "--workers=1")
    served = start(*flags)
    grpc, rest = f"--port={served.grpc_port}", f"--rest_api_port={served.rest_port}"
    for ports, text in (
        ((grpc, "--rest_api_port=0"), f"gRPC cannot listen on 127.0.0.1:{served.grpc_port}"),
        (("--port=0", f"--grpc_socket_path={store}/s", rest), f"port {served.rest_port} on 127.0.0.1 is taken"),
    ):
        second = subprocess.run(
            command(*ports, *flags), capture_output=True, text=True, env=environment(), check=False, timeout=120
        )
        assert second.returncode == 255
        assert text in second.stderr
    assert served.stop() == 0
