"""TLS for gRPC and REST, tokens, Unix sockets, and certificates that do not do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.authority import Authority
from helpers.black_box import Start
from helpers.client_requests import predict_request, reload_request
from helpers.eventually import eventually

UNLIMITED = [("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def ssl_config(path: Path, key: str, certificate: str, ca: str = "", *, verify: bool = False) -> Path:
    path.write_text(
        f"server_key: {json.dumps(key)} server_cert: {json.dumps(certificate)} custom_ca: {json.dumps(ca)} "
        f"client_verify: {str(verify).lower()}"
    )
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_tls_for_grpc_and_rest_a_token_and_a_unix_socket(
    start: Start, store: Path, tmp_path: Path, authority: Authority, refused: Any, workers: int
) -> None:
    import grpc
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    config = ssl_config(tmp_path / "tls.config", *authority.pair(), authority.pem)
    (tmp_path / "token").write_text("secret\n")
    served = start(
        "--model_name=hpt", f"--model_base_path={store}/quick", f"--ssl_config_file={config}",
        f"--rest_api_ssl_config_file={config}", f"--auth_token_file={tmp_path}/token",
        f"--grpc_socket_path={tmp_path}/s", "--grpc_channel_arguments=grpc.max_connection_age_ms=600000,grpc.x=y",
        "--enable_grpc_healthcheck_service", f"--workers={workers}",
    )  # fmt: skip
    trusted = grpc.ssl_channel_credentials(authority.pem.encode())
    stub = served.stub(address=f"localhost:{served.grpc_port}", credentials=trusted)
    token = [("authorization", "Bearer secret")]

    assert list(stub.Predict(predict_request(), timeout=30, metadata=token).outputs["y"].float_val) == [2.5, 3.0, 4.5]
    code, text = refused(stub.Predict, predict_request())
    assert (code, text) == ("UNAUTHENTICATED", "A token is needed: send the metadata 'authorization: Bearer TOKEN'")
    assert refused(stub.Predict, predict_request(), metadata=[("authorization", "Bearer x")])[0] == "UNAUTHENTICATED"
    # The name in the certificate is not the socket's, so the client is told which name to expect.
    options = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(f"unix:{tmp_path}/s", trusted, options) as channel:
        by_socket = PredictionServiceStub(channel)
        assert by_socket.Predict(predict_request(), timeout=30, metadata=token).model_spec.name == "hpt"

    context = ssl.create_default_context(cadata=authority.pem)
    url = f"https://localhost:{served.rest_port}/v1/models/hpt:predict"
    request = urllib.request.Request(url, b'{"instances": [1.0]}', {"Authorization": "Bearer secret"})
    with urllib.request.urlopen(request, timeout=30, context=context) as response:
        assert json.load(response) == {"predictions": [2.5]}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, b"{}", timeout=30, context=context)
    assert caught.value.code == 401
    caught.value.close()
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    # Nothing of these messages is read: the server's memory stays as it is.
    process, large = psutil.Process(served.process.pid), b"x" * 150_000_000
    before = process.memory_info().rss
    with grpc.secure_channel(f"localhost:{served.grpc_port}", trusted, UNLIMITED) as channel:
        for method in ("/tensorflow.serving.PredictionService/Predict", "/tensorflow.serving.ModelService/x", "/x/y"):
            assert refused(channel.unary_unary(method), large)[0] == "UNAUTHENTICATED"
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(large, timeout=60) == b"\x08\x01"
    assert process.memory_info().rss - before < 100_000_000

    with grpc.secure_channel(f"localhost:{served.grpc_port}", trusted) as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30).status == 1
    assert served.stop() == 0
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_certificates_are_renewed_when_their_file_changes_and_at_sighup(
    start: Start, store: Path, tmp_path: Path, authority: Authority, workers: int
) -> None:
    config = ssl_config(tmp_path / "tls.config", *authority.pair())
    served = start(
        "--model_name=hpt", f"--model_base_path={store}/quick", f"--ssl_config_file={config}",
        f"--rest_api_ssl_config_file={config}", f"--workers={workers}",
    )  # fmt: skip
    assert f"--ssl_config_file={config} can be read by other users (mode 0644): chmod 600 {config}" in served.text

    def shown(port: int) -> str:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=30)

    first = shown(served.rest_port)
    assert shown(served.grpc_port) == first
    context = ssl.create_default_context(cadata=authority.pem)
    with (
        socket.create_connection(("127.0.0.1", served.rest_port), timeout=30) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as kept,
    ):
        state = config.stat()
        key, certificate = authority.pair()
        ssl_config(config, key, certificate)
        eventually(lambda: {shown(served.rest_port), shown(served.grpc_port)} == {certificate})
        # A file that does not do changes nothing, and neither does a connection that is open.
        ssl_config(config, key, authority.pair()[1])
        served.wait_for("The TLS certificates stay as they are: ")
        assert shown(served.rest_port) == certificate
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert kept.recv(100).startswith(b"HTTP/1.1 200")

    key, certificate = authority.pair()
    ssl_config(config, key, certificate)
    os.utime(config, ns=(state.st_atime_ns, state.st_mtime_ns))
    served.process.send_signal(signal.SIGHUP)
    eventually(lambda: {shown(served.rest_port), shown(served.grpc_port)} == {certificate})
    assert served.stop() == 0


def test_a_plain_unix_socket_without_a_port_and_verified_clients(
    start: Start, store: Path, tmp_path: Path, authority: Authority
) -> None:
    import grpc

    alone = start(
        "--port=0", "--model_name=hpt", f"--model_base_path={store}/quick", f"--grpc_socket_path={tmp_path}/s"
    )
    answer = alone.stub(address=f"unix:{tmp_path}/s").Predict(predict_request(), timeout=30)
    assert list(answer.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert alone.stop() == 0

    config = ssl_config(tmp_path / "tls.config", *authority.pair(), authority.pem, verify=True)
    served = start("--model_name=hpt", f"--model_base_path={store}/quick", f"--ssl_config_file={config}")
    address = f"localhost:{served.grpc_port}"
    ca = authority.pem.encode()
    key, certificate = (text.encode() for text in authority.pair("client"))
    known = served.stub(address=address, credentials=grpc.ssl_channel_credentials(ca, key, certificate))
    unknown = served.stub(address=address, credentials=grpc.ssl_channel_credentials(ca))
    assert known.Predict(predict_request(), timeout=30).model_spec.version.value == 123
    with pytest.raises(grpc.RpcError):
        unknown.Predict(predict_request(), timeout=5)
    known_models = served.stub("model", address, grpc.ssl_channel_credentials(ca, key, certificate))
    elsewhere = {"name": "hpt", "path": shutil.copytree(store / "quick", tmp_path / "elsewhere")}
    known_models.HandleReloadConfigRequest(reload_request(elsewhere), timeout=60)  # its sender is known
    assert served.stop() == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_without_a_token_reloads_stay_in_their_folders_and_foreign_pages_outside(
    start: Start, own_store: Path, refused: Any, workers: int
) -> None:
    base = own_store / "quick"
    served = start("--model_name=hpt", f"--model_base_path={base}", f"--workers={workers}")
    assert f"reloads of the configuration with models below {base}. --auth_token_file" in served.text
    reload = served.stub("model").HandleReloadConfigRequest
    (base / "link").symlink_to(own_store / "two_versions")

    for path in (own_store / "two_versions", base / "link", f"{base}/../two_versions", own_store):
        code, text = refused(reload, reload_request({"name": "hpt", "path": base}, {"name": "other", "path": path}))
        assert code == "PERMISSION_DENIED"
        assert "outside of the configured base paths" in text
    reload(reload_request({"name": "hpt", "path": base}, {"name": "again", "path": base}), timeout=60)
    for model in ("hpt", "again"):
        assert served.predict({"instances": [1.0]}, model) == (200, {"predictions": [2.5]})
    assert served.rest("GET", "/v1/models/other")[0] == 404

    for action in ("resume", "models/x/deploy", "models/..%252Fx/deploy", "models/hpt/undeploy"):
        assert served.rest("POST", f"/tfserve/v1/{action}", {"base_path": str(own_store)})[0] == 404

    own = f"http://127.0.0.1:{served.rest_port}"
    for origin, status in (("http://evil.example", 403), ("null", 403), ("https://127.0.0.1", 403), (own, 200)):
        for method, path, body in (
            ("POST", "/v1/models/hpt:predict", {"instances": [1.0]}),
            ("GET", "/v1/models/hpt", None),
            (
                "POST",
                "/v2/models/hpt/infer",
                {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]},
            ),
        ):
            found, _, headers = served.rest(method, path, body, {"Origin": origin, "Content-Type": "application/json"})
            assert (found, "Access-Control-Allow-Origin" in headers) == (status, False), (origin, path)


def test_certificates_that_do_not_do_are_named(tmp_path: Path, authority: Authority) -> None:
    from tfserve_nb.errors import ServerFailed
    from tfserve_nb.server.config_files import read_tls
    from tfserve_nb.server.tls import check

    path = tmp_path / "tls.config"
    key, certificate = authority.pair()
    check(read_tls(str(ssl_config(path, key, certificate))))
    with pytest.raises(ServerFailed, match=rf"{path}: server_cert \(CN=localhost\) expired on \d"):
        check(read_tls(str(ssl_config(path, *authority.pair(days=-1)))))
    with pytest.raises(ServerFailed, match="server_key does not belong to server_cert"):
        check(read_tls(str(ssl_config(path, authority.pair()[0], certificate))))
    with pytest.raises(ServerFailed, match="server_cert is no PEM certificate"):
        check(read_tls(str(ssl_config(path, key, "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"))))
