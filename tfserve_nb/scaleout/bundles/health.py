"""Health checks that need nothing but bash, which both images have: TensorFlow Serving's has no curl.

Thread: any.
"""

from __future__ import annotations

from urllib.parse import quote

from .serving_files import REST_PORT


def model_path(name: str) -> str:
    """The path of a model's status; it is answered while TensorFlow Serving has the model."""
    return f"/v1/models/{quote(name, safe='')}"


def health_command(path: str, port: int = REST_PORT) -> list[str]:
    """A command that succeeds while a GET of `path` on this machine is answered with 200."""
    request = rf"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".replace("%", "%%")  # printf's
    return [
        "bash",
        "-c",
        f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf '{request}' >&3 && head -n 1 <&3 | grep -q ' 200 '",
    ]
