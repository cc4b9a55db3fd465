"""The proxies of docs/sharing.md, as its files configure them, before the real server: all answers come through."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.authority import Authority
from helpers.black_box import STOP_S, Served, Start, environment, free_port
from helpers.eventually import eventually
from helpers.server_logs import shown_on_failure

FILES = Path(__file__).parents[2] / "docs" / "sharing"
NAME = "models.example.org"
NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {site};
}}
"""
CADDY = f"""
{{{{
    admin off
    default_bind 127.0.0.1
    auto_https disable_redirects
}}}}

https://localhost:{{port}}, https://{NAME}:{{port}} {{{{"""
COMMANDS: dict[str, Callable[[Path], tuple[list[str], list[str]]]] = {
    "nginx": lambda site: (
        ["nginx", "-t", "-c", f"{site.parent}/main.conf", "-p", f"{site.parent}"],
        ["nginx", "-c", f"{site.parent}/main.conf", "-p", f"{site.parent}"],
    ),
    "caddy": lambda site: (
        ["caddy", "validate", "--adapter", "caddyfile", "--config", f"{site}"],
        ["caddy", "run", "--adapter", "caddyfile", "--config", f"{site}"],
    ),
}
"""Proxy -> how its file is checked, and how it is run."""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def behind(start_for_module: Start, store: Path) -> Served:
    """A server without a token on the loopback interface, which is called by the proxy's name too."""
    return start_for_module(
        "--model_name=hpt", f"--model_base_path={store}/quick", f"--allowed_hosts={NAME}",
    )  # fmt: skip


@pytest.fixture(params=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, behind: Served, authority: Authority, tmp_path: Path) -> Iterator[int]:
    """The port of a proxy, which is checked and started as the file of the documents says."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed: apt-get install {request.param}")
    port = free_port()
    site = tmp_path / ("nginx.conf" if request.param == "nginx" else "Caddyfile")
    site.write_text(adapted((FILES / site.name).read_text(), behind, authority, port, tmp_path))
    (tmp_path / "main.conf").write_text(NGINX.format(folder=tmp_path, site=site))
    check, run = COMMANDS[request.param](site)
    home = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    checked = subprocess.run(check, capture_output=True, text=True, check=False, timeout=60, env=home)
    assert checked.returncode == 0, checked.stderr
    log = tmp_path / "proxy.log"
    with ExitStack() as at_end:
        process = subprocess.Popen(run, stdout=at_end.enter_context(log.open("w")), stderr=subprocess.STDOUT, env=home)
        at_end.enter_context(shown_on_failure(f"{request.param}, process {process.pid}", log))
        at_end.callback(process.wait, STOP_S)
        at_end.callback(process.terminate)
        eventually(lambda: is_open(port) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield port


def adapted(text: str, behind: Served, authority: Authority, port: int, folder: Path) -> str:
    """A file of the documents with the test's ports and certificate; every change must find its place."""
    key, certificate = authority.pair()
    (folder / "key.pem").write_text(key)
    (folder / "cert.pem").write_text(certificate)
    changes = {
        "listen 443": f"listen 127.0.0.1:{port}",
        f"\n{NAME} {{": CADDY.format(port=port),
        f"/etc/ssl/certs/{NAME}.pem": f"{folder}/cert.pem",
        f"/etc/ssl/private/{NAME}.key": f"{folder}/key.pem",
        "127.0.0.1:8500": f"127.0.0.1:{behind.grpc_port}",
        "127.0.0.1:8501": f"127.0.0.1:{behind.rest_port}",
    }
    done = [old for old in changes if old in text]
    assert len(done) == len(changes) - 1, "one of the two first is the other proxy's"
    for old in done:
        text = text.replace(old, changes[old])
    return text


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_the_same_answers_come_through_a_proxy(
    proxy: int, behind: Served, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text(authority.pem)
    trusting = {"SSL_CERT_FILE": f"{tmp_path}/ca.pem", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": f"{tmp_path}/ca.pem"}
    direct, public = f"http://127.0.0.1:{behind.rest_port}", f"https://localhost:{proxy}"

    done = subprocess.run(
        [sys.executable, "-m", "tfserve_nb", "parity", direct, public, "--model", "hpt", "--requests", "0",
         "--grpc", f"127.0.0.1:{behind.grpc_port}", f"grpcs://localhost:{proxy}"],
        capture_output=True, text=True, check=False, timeout=120, env={**environment(), **trusting},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "not compared: hpt" not in done.stdout

    context = ssl.create_default_context(cadata=authority.pem)
    connection = http.client.HTTPSConnection("localhost", proxy, timeout=30, context=context)
    named = f"{NAME}:{proxy}"

    def asked(path: str, **fields: str) -> tuple[int, bool]:
        """The status, and whether it is about the model: Caddy answers 200 for hosts that it does not know."""
        connection.request("GET", path, headers={"Host": named, **fields})
        response = connection.getresponse()
        return response.status, b"AVAILABLE" in response.read()

    assert asked("/v1/models/hpt") == (200, True)
    assert asked("/v1/models/hpt", Origin=f"https://{named}") == (200, True)
    assert asked("/v1/models/hpt", Origin="https://evil.example.org") == (403, False)
    assert not asked("/v1/models/hpt", Host=f"evil.example.org:{proxy}")[1]
    assert asked("/tfserve/v1/models") == (404, False)
    connection.close()
