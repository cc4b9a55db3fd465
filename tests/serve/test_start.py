"""How `tfserve-nb serve` starts, refuses to start, and ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest
from helpers.black_box import START_S, Start, command, environment, free_port
from helpers.client_requests import predict_request
from helpers.eventually import eventually
from helpers.saved_models import write_half_plus_two


def run(*flags: str) -> tuple[int, str]:
    """Exit code and output of a server that must not start."""
    done = subprocess.run(
        command(*flags), capture_output=True, text=True, check=False, timeout=START_S, env=environment()
    )
    return done.returncode, done.stdout + done.stderr


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((), "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (
            ("--port=0", "--model_base_path=/x"),
            "At least one of server_options.grpc_port or server_options.grpc_socket",
        ),
        (
            ("--model_base_path=relative",),
            "Expected model default to have an absolute path or URI; got base_path()=rel",
        ),
        (("--model_config_file=/none.txt",), "/none.txt cannot be read: No such file or directory"),
        (
            ("--model_base_path=/x", "--batching_parameters_file=/b"),
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true.",
        ),
        (
            ("--model_base_path=/x", "--tensorflow_session_parallelism=1", "--tensorflow_intra_op_parallelism=1"),
            "You cannot configure all.",
        ),
        (("--model_base_path=/x", "--grpc_channel_arguments=a"), "--grpc_channel_arguments: 'a' is no k=v"),
        (("--model_base_path=/x", "--allow_ops=Read File"), "--allow_ops: 'Read File' is no name of an op"),
        (("--model_base_path=/x", "--auth_token_file=/none"), "--auth_token_file=/none cannot be read"),
    ],
)
def test_flags_that_make_no_server(flags: tuple[str, ...], text: str) -> None:
    code, output = run(*flags)

    assert code == 255
    assert "Failed to start server. Error: " in output
    assert text in output


def test_numbers_and_booleans_are_checked() -> None:
    code, output = run("--port=many")
    assert code == 255
    assert output == ("tfserve-nb serve: argument --port: invalid int value: 'many'\ntry: tfserve-nb serve --help\n")
    assert run("--enable_batching=maybe")[0] == 255


def test_version_and_help() -> None:
    code, output = run("--version")
    assert code == 0
    assert "TensorFlow ModelServer: " in output
    assert "TensorFlow Library: " in output
    code, output = run("--help")
    assert code == 0
    for words in ("--model_config_file TEXT", "batching:", "accepted, and without effect here:", "--host"):
        assert words in output


def test_files_that_are_wrong_are_named(tmp_path: Path, store: Path) -> None:
    config = write(tmp_path / "m.config", "model_config_list { config { title: 'x' } }")
    code, output = run(f"--model_config_file={config}")
    assert code == 255
    assert f"Invalid protobuf file: '{config}'" in output
    assert 'no field named "title"' in output
    assert "Traceback" not in output

    batching = write(tmp_path / "b.config", "max_batch_size { value: 8 } allowed_batch_sizes: 4")
    code, output = run(f"--model_base_path={store}/many", "--enable_batching", f"--batching_parameters_file={batching}")
    assert code == 255
    assert f"{batching}: Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8" in (
        output
    )
    tls = write(tmp_path / "tls.config", 'server_key: "/etc/key.pem" server_cert: "x"')
    code, output = run(f"--model_base_path={store}/many", f"--ssl_config_file={tls}")
    assert code == 255
    assert f"{tls}: server_key holds no PEM text" in output


def test_models_that_cannot_be_served_end_the_process(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, output = run(f"--model_base_path={empty}", "--port=" + str(free_port()))
    assert code == 255
    assert "1 servable(s) did not become available: {{name: default}" in output
    assert f"No versions of servable default found under base path {empty}" in output

    code, output = run(f"--model_base_path={tmp_path}/none", "--port=" + str(free_port()))
    assert code == 255
    assert f"Could not find base path {tmp_path}/none for servable default" in output

    (empty / "1").mkdir()
    (empty / "1" / "saved_model.pb").write_bytes(b"\x08")
    code, output = run(
        f"--model_base_path={empty}",
        f"--port={free_port()}",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=1",
    )
    assert code == 255
    assert "1 servable(s) did not become available: {{name: default version: 1} due to error: " in output
    assert output.count("Loading servable: {name: default version: 1} failed") == 2


def test_a_model_that_reaches_outside_is_served_only_when_that_is_allowed(start: Start, store: Path) -> None:
    code, output = run("--model_name=m", f"--model_base_path={store}/until_file", f"--port={free_port()}")

    assert code == 255
    why = "/1 is not served: its graph reaches outside (MatchingFiles); if you trust it: --allow_ops=MatchingFiles"
    assert f"FAILED_PRECONDITION: {store}/until_file{why}" in output
    assert "Successfully loaded" not in output
    assert output.count("Loading servable: {name: m version: 1} failed") == 1  # what is refused is not tried again

    served = start("--model_name=m", f"--model_base_path={store}/until_file", "--allow-ops")
    assert "Servable {name: m version: 1}: its graph reaches outside (MatchingFiles)" in served.text
    assert served.stop() == 0


def test_a_port_that_is_taken_is_named(start: Start, store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = run(f"--model_base_path={store}/quick", f"--port={port}")
        assert code == 255
        assert f"127.0.0.1:{port}" in output
        assert "in use" in output
        code, output = run(f"--model_base_path={store}/quick", f"--port={free_port()}", f"--rest_api_port={port}")
    assert code == 255
    assert f"port {port} on 127.0.0.1 is taken" in output


def test_start_order_log_lines_and_flags_in_both_forms(start: Start, store: Path) -> None:
    served = start(
        "--model_name", "m", f"--model_base_path={store}/half_plus_two", "--what=1", "--grpc_max_threads", "4"
    )

    lines = [
        "unknown argument: --what=1",
        "--grpc_max_threads has no effect: gRPC runs on one event loop",
        "Successfully loaded servable version {name: m version: 123}",
        f"Running gRPC ModelServer at 127.0.0.1:{served.grpc_port} ...",
        f"Exporting HTTP/REST API at:localhost:{served.rest_port} ...",
        "Entering the event loop ...",
    ]
    places = [served.text.index(line) for line in lines]
    assert places == sorted(places)
    assert served.predict({"instances": [1.0]}, "m") == (200, {"predictions": [2.5]})
    assert served.stop() == 0


def test_other_addresses_are_bound_when_told(start: Start, store: Path) -> None:
    served = start("--model_name=hpt", f"--model_base_path={store}/quick", "--host=::")

    assert "Every machine that can reach this one may call the models" in served.text
    assert served.rest("GET", "/v1/models/hpt", headers={"Host": "models.example.org"})[0] == 200
    answer = served.stub(address=f"127.0.0.1:{served.grpc_port}").Predict(predict_request(), timeout=30)
    assert list(answer.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert served.stop() == 0


def test_one_port_for_both_skips_rest(start: Start, store: Path) -> None:
    port = free_port()

    served = start(f"--model_base_path={store}/quick", f"--port={port}", f"--rest_api_port={port}", rest=False)

    assert "Skipped exporting HTTP/REST API." in served.text
    assert served.stop(signal.SIGINT) == 0


def test_sigterm_lets_running_requests_finish(start: Start, store: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    served = start("--model_name=until_file", f"--model_base_path={store}/until_file", "--allow_ops=MatchingFiles")
    end = tmp_path / "end"
    request = predict_request("until_file", None)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([str(end)]))
    answers: list[object] = []
    stub = served.stub()

    def by_grpc() -> None:
        answers.append(stub.Predict(request, timeout=30).outputs["y"].string_val[0].decode())

    def by_rest() -> None:
        answers.append(served.predict({"inputs": [str(end)]}, "until_file")[1]["outputs"][0])

    threads = [threading.Thread(target=call) for call in (by_grpc, by_rest)]
    for thread in threads:
        thread.start()
    process = psutil.Process(served.process.pid)
    eventually(lambda: sum(one.status == "ESTABLISHED" for one in process.net_connections("tcp")) >= 2)
    time.sleep(0.2)  # what was sent is read; no request can be seen to run from outside
    served.process.send_signal(signal.SIGTERM)
    served.wait_for("Stopping: running requests may finish")
    assert answers == []
    end.touch()
    for thread in threads:
        thread.join()

    assert served.process.wait(START_S) == 0
    assert answers == [str(end)] * 2
    served.close_channels()


def test_tags_and_a_session_config(start: Start, tmp_path: Path) -> None:
    write_half_plus_two(tmp_path / "m" / "1", tags=("serve", "gpu"))
    config = write(tmp_path / "session.config", "intra_op_parallelism_threads: 1 log_device_placement: false")

    served = start(
        "--model_name=hpt", f"--model_base_path={tmp_path}/m", "--saved_model_tags=serve,gpu",
        f"--tensorflow_session_config_file={config}", "--enable_signature_method_name_check",
        "--enable_serialization_as_tensor_content",
    )  # fmt: skip

    assert served.predict({"instances": [1.0]}) == (200, {"predictions": [2.5]})
    answer = served.stub().Predict(predict_request(), timeout=30)
    assert answer.outputs["y"].float_val == []
    assert len(answer.outputs["y"].tensor_content) == 12
    served.stop()


def test_a_signal_that_reaches_another_thread_ends_the_server_too(start: Start, store: Path) -> None:
    import ctypes

    served = start(f"--model_base_path={store}/half_plus_two")
    pid = served.process.pid
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    other = next(thread for thread in threads if thread != pid)

    assert ctypes.CDLL(None).tgkill(pid, other, signal.SIGTERM) == 0

    assert served.process.wait(START_S) == 0
    assert "Stopping: running requests may finish" in served.text
