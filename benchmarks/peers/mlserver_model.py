"""MLServer with adaptive batching: a custom runtime in its own process, without the way to a worker and back."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL_SETTINGS = {
    "name": "bench",
    "implementation": "mlserver_model.Runtime",
    "max_batch_size": 64,
    "max_batch_time": 0.001,
}

if __name__ == "__main__":
    port = int(sys.argv[1])
    settings = {
        "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "host": "127.0.0.1", "parallel_workers": 0,
        "debug": False,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "settings.json").write_text(json.dumps(settings))
        (Path(folder) / "model-settings.json").write_text(json.dumps(MODEL_SETTINGS))
        mlserver = Path(sys.executable).with_name("mlserver")
        sys.exit(subprocess.call([mlserver, "start", folder]))

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from model import Model


class Runtime(MLModel):
    """The model as an MLServer runtime."""

    async def load(self) -> bool:
        """Load it."""
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one batch."""
        answers = self.model.run({one.name: NumpyCodec.decode_input(one) for one in payload.inputs})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", answers)])
