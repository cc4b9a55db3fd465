"""gRPC Predict with many calls in flight: a client in a process of its own, and a server that does nothing to compare.

Usage: python benchmarks/grpc_load.py client PORT TOKEN MODEL SECONDS
       python benchmarks/grpc_load.py empty PORT
       python benchmarks/grpc_load.py threads PORT NUM_THREADS [handed-over]

The client's messages are bytes that it made once, and it does not read the answers, except for the first: it costs as
little as a Python client can. The empty server is the same grpc.aio with the same messages, parsed and made anew for
each call, and a handler that does nothing in between. `threads` is gRPC's synchronous server with such a handler, and
`handed-over` lets each call wait for another thread's loop, as a call of ours would have to.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

IN_FLIGHT = 64
METHOD = "/tensorflow.serving.PredictionService/Predict"
NUM_CLASSES = 10


def make_request(row: np.ndarray) -> bytes:
    """A serialised PredictRequest."""
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    request = PredictRequest()
    request.model_spec.name = "bench"
    fill(request.inputs["x"], row)
    data: bytes = request.SerializeToString()
    return data


def fill(proto: Any, rows: np.ndarray) -> None:
    """Write float32 numbers into a TensorProto."""
    proto.dtype = 1
    for size in rows.shape:
        proto.tensor_shape.dim.add().size = size
    proto.tensor_content = rows.astype("<f4").tobytes()


def check(answer: bytes, wanted: np.ndarray) -> None:
    """Compare the first answer with the model's own."""
    from tensorflow_serving.apis.predict_pb2 import PredictResponse

    (proto,) = PredictResponse.FromString(answer).outputs.values()
    numbers = np.frombuffer(proto.tensor_content, "<f4") if proto.tensor_content else np.array(proto.float_val)
    if not np.allclose(numbers, wanted.reshape(-1), atol=1e-4):
        sys.exit("answers differently from the model")


async def load(port: int, token: str, request: bytes, seconds: float, wanted: np.ndarray | None) -> float:
    """Answers per second."""
    import grpc.aio

    metadata = (("authorization", f"Bearer {token}"),) if token else None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        predict: Callable[..., Awaitable[bytes]] = channel.unary_unary(METHOD)
        first = await predict(request, metadata=metadata, wait_for_ready=True, timeout=60)
        if wanted is not None:
            check(first, wanted)

        async def ask_until(until_s: float) -> int:
            num_done = 0
            while time.perf_counter() < until_s:
                await predict(request, metadata=metadata)
                num_done += 1
            return num_done

        rates = []
        for duration_s in (0.5, seconds):
            started_s = time.perf_counter()
            counts = await asyncio.gather(*(ask_until(started_s + duration_s) for _ in range(IN_FLIGHT)))
            rates.append(sum(counts) / (time.perf_counter() - started_s))
        return rates[-1]


def nothing(request: Any) -> Any:
    """The answer of an empty handler."""
    from tensorflow_serving.apis.predict_pb2 import PredictResponse

    response = PredictResponse()
    response.model_spec.CopyFrom(request.model_spec)
    fill(response.outputs["y"], np.zeros((1, NUM_CLASSES), np.float32))
    return response


async def serve_nothing(port: int) -> None:
    """Parse each request and answer with the same numbers."""
    import grpc.aio
    from tensorflow_serving.apis.prediction_service_pb2_grpc import (
        PredictionServiceServicer,
        add_PredictionServiceServicer_to_server,
    )

    class Nothing(PredictionServiceServicer):  # type: ignore[misc]  # generated code
        async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            del context
            return nothing(request)

    server = grpc.aio.server()
    add_PredictionServiceServicer_to_server(Nothing(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def serve_nothing_in_threads(port: int, num_threads: int, *, is_handed_over: bool) -> None:
    """The same by threads, each of which answers one call at a time."""
    import grpc
    from tensorflow_serving.apis.prediction_service_pb2_grpc import (
        PredictionServiceServicer,
        add_PredictionServiceServicer_to_server,
    )

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="bench-loop", daemon=True).start()

    class Nothing(PredictionServiceServicer):  # type: ignore[misc]  # generated code
        def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            del context
            if is_handed_over:
                done = threading.Event()
                loop.call_soon_threadsafe(done.set)
                done.wait()
            return nothing(request)

    server = grpc.server(ThreadPoolExecutor(num_threads))
    add_PredictionServiceServicer_to_server(Nothing(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def main() -> int:
    """Run the client or an empty server."""
    if sys.argv[1] == "empty":
        asyncio.run(serve_nothing(int(sys.argv[2])))
        return 0
    if sys.argv[1] == "threads":
        port, num_threads, *handed_over = sys.argv[2:]
        serve_nothing_in_threads(int(port), int(num_threads), is_handed_over=bool(handed_over))
        return 0
    port, token, model, seconds = sys.argv[2:]
    rows, answers = (np.load(Path(model).parent.with_suffix(suffix)) for suffix in (".x.npy", ".y.npy"))
    request = make_request(rows[:1])
    wanted = None if token == "empty" else answers[:1]  # noqa: S105 - no secret
    rate = asyncio.run(load(int(port), "" if wanted is None else token, request, float(seconds), wanted))
    print(json.dumps({"rate": rate}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
