"""Ray Serve with `@serve.batch`, one replica, HAProxy as its front end and its settings for high throughput.

`RAY_SERVE_ENABLE_HA_PROXY` and `RAY_SERVE_THROUGHPUT_OPTIMIZED` are read when Ray Serve is imported, also by the
processes that Ray starts: who starts this sets them.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
import ray
from model import MAX_BATCH_SIZE, Model
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=10_000)
class Bench:
    """The model as a deployment."""

    def __init__(self) -> None:
        self.model = Model()

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=0.001)
    async def run(self, rows: list[Any]) -> list[Any]:
        """Run one batch."""
        return list(self.model.run_rows(np.asarray(rows)))

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answer one row."""
        body = await request.json()
        return {"predictions": [(await self.run(body["instances"][0])).tolist()]}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Bench.bind())
    asyncio.run(asyncio.sleep(1e9))
