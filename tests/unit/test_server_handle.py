"""What a server's handle says about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tfserve_nb.api.connect import remote_server
from tfserve_nb.api.deployment import Deployment
from tfserve_nb.server.handle import Kind, ServerHandle

NOTHING: Any = None  # what administers it is not asked here


def handle(kind: Kind, url: str) -> ServerHandle:
    return ServerHandle(kind, NOTHING, NOTHING, url, "secret", "127.0.0.1:8500")


def test_handles_of_the_same_server_are_equal_and_so_are_deployments() -> None:
    first, second = remote_server("http://127.0.0.1:9", "token"), remote_server("http://127.0.0.1:9", "token")
    other = remote_server("http://127.0.0.1:9", "another")

    assert (first == second, first == other) == (True, False)
    assert len({Deployment("net", first), Deployment("net", second), Deployment("net", other)}) == 2
    assert Deployment("net", first) != Deployment("net")


def test_a_token_is_never_shown() -> None:
    assert "secret" not in repr(handle("in_child", "http://127.0.0.1:8501"))


def test_names_of_models_are_quoted_in_urls() -> None:
    assert handle("in_kernel", "http://127.0.0.1:8501").rest_url("a b/c") == "http://127.0.0.1:8501/v1/models/a%20b%2Fc"


@pytest.mark.parametrize(
    ("kind", "url", "port", "is_on_this_machine"),
    [
        ("in_kernel", "http://127.0.0.1:8501", 8501, True),
        ("in_child", "http://127.0.0.1:8501", 8501, True),
        ("standalone", "", None, True),
        ("remote", "http://localhost:8501", None, True),
        ("remote", "http://[::1]:8501", None, True),
        ("remote", "https://models.example.org", None, False),
    ],
)
def test_port_and_machine_follow_from_kind_and_url(
    kind: Kind, url: str, port: int | None, is_on_this_machine: bool
) -> None:
    found = handle(kind, url)

    assert (found.port, found.is_on_this_machine) == (port, is_on_this_machine)


def test_a_handle_is_a_value() -> None:
    found = handle("remote", "http://127.0.0.1:9")

    with pytest.raises(AttributeError):
        found.url = "http://127.0.0.1:10"  # type: ignore[misc]  # that is the point
    assert replace(found, url="http://127.0.0.1:10") != found
