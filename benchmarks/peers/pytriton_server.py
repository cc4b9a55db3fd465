"""PyTriton: Triton's C++ front end and dynamic batcher, a Python back end.

Configured as its documentation advises for low latency: dynamic batching without a queue delay.
"""

from __future__ import annotations

import signal
import sys

import numpy as np
from model import MAX_BATCH_SIZE, Model
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

model = Model()


@batch
def infer(**inputs: np.ndarray) -> list[np.ndarray]:
    """Run one batch."""
    return [model.run(inputs)]


# Triton is a process of its own and leaves shared memory behind unless it is told to end.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
port = int(sys.argv[1])
config = TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2, http_address="127.0.0.1")
with Triton(config=config) as triton:
    triton.bind(
        model_name="bench",
        infer_func=infer,
        inputs=[Tensor(name=name, dtype=model.dtypes[name], shape=shape) for name, shape in model.shapes.items()],
        outputs=[Tensor(name="y", dtype=np.float32, shape=(-1,))],
        config=ModelConfig(max_batch_size=MAX_BATCH_SIZE, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        strict=False,
    )
    triton.serve()
