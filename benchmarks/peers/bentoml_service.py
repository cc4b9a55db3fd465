"""BentoML with a batchable API, one worker, as its documentation advises."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    bentoml = str(Path(sys.executable).with_name("bentoml"))
    options = ["--host", "127.0.0.1", "--port", sys.argv[1], "--working-dir", str(Path(__file__).parent)]
    os.execv(bentoml, [bentoml, "serve", "bentoml_service:Bench", *options])

import bentoml
import numpy as np
from model import MAX_BATCH_SIZE, Model


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 10_000}, logging={"access": {"enabled": False}})
class Bench:
    """The model as a service."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(batchable=True, batch_dim=(0, 0), max_batch_size=MAX_BATCH_SIZE, max_latency_ms=1000)
    def predict(self, instances: np.ndarray) -> np.ndarray:
        """Run one batch."""
        return self.model.run_rows(instances)
