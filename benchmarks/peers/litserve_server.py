"""LitServe with batching, one worker, as its documentation shows; the time-out lets a batch form with little wait."""

# Without postponed annotations: LitServe reads the type of `request` to know that it wants the body.
import sys
from typing import Any

import litserve
import numpy as np
from model import MAX_BATCH_SIZE, Model


class Api(litserve.LitAPI):
    """The model behind LitServe's own queue."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        del device
        self.model = Model()

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        """One row."""
        return np.asarray(request["instances"][0])

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Rows of several requests."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Run one batch."""
        return self.model.run_rows(x)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Back to rows."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """One answer."""
        return {"predictions": [output.tolist()]}


if __name__ == "__main__":
    api = Api(max_batch_size=MAX_BATCH_SIZE, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
