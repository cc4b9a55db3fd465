"""A real ipykernel in a process of its own, driven through jupyter_client."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import requests
from jupyter_client.manager import KernelManager

READY_S = 120
REPLY_S = 240


@dataclass(slots=True)
class Result:
    """What running a piece of code gave.

    Attributes:
        status: `ok`, `error` or `aborted`, from the kernel's reply.
        ename: the exception's class name, "" without one.
        evalue: the exception's text.
        stdout: what was printed.
        stderr: what was printed there.
        errors: tracebacks shown as outputs, as nbclient and papermill see them.
    """

    status: str = ""
    ename: str = ""
    evalue: str = ""
    stdout: str = ""
    stderr: str = ""
    errors: list[str] = field(default_factory=list)


class Kernel:
    """A running kernel in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        try:
            self.client.wait_for_ready(timeout=READY_S)
        except RuntimeError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process(self) -> psutil.Process:
        """The kernel's process."""
        provisioner: Any = self.manager.provisioner
        return psutil.Process(provisioner.pid)

    def run(self, code: str, *, on_stdout: Callable[[str], None] | None = None) -> Result:
        """Run code as a cell and wait for the reply."""
        result = Result()

        def collect(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                setattr(result, content["name"], getattr(result, content["name"]) + content["text"])
                if on_stdout and content["name"] == "stdout":
                    on_stdout(content["text"])
            elif message["msg_type"] == "error":
                result.errors.append("\n".join(content["traceback"]))

        reply = self.client.execute_interactive(
            code, timeout=REPLY_S, output_hook=collect, allow_stdin=False, stop_on_error=False
        )["content"]
        result.status = reply["status"]
        result.ename, result.evalue = reply.get("ename", ""), reply.get("evalue", "")
        return result

    def check(self, code: str) -> str:
        """Run code that must succeed; what it printed."""
        result = self.run(code)
        assert result.status == "ok", f"{result.ename}: {result.evalue}\n{result.stderr}\n{result.errors}"
        return result.stdout

    def value(self, expression: str) -> Any:
        """The value of an expression, through JSON."""
        return json.loads(self.check(f"import json; print(json.dumps({expression}))"))

    def ask(self, rows: list[list[float]], *, where: str = "") -> list[list[float]]:
        """Predictions of the deployment `d` over HTTP, from this process; `where` such as `/versions/2`."""
        url, token = self.value("[d.rest_url, d.token]")
        reply = requests.post(
            f"{url}{where}:predict", json={"instances": rows}, headers={"Authorization": f"Bearer {token}"}, timeout=10
        )
        assert reply.status_code == requests.codes.ok, reply.text
        predictions: list[list[float]] = reply.json()["predictions"]
        return predictions

    def close(self) -> None:
        """End the kernel, however it is doing."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
