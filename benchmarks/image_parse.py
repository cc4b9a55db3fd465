"""How long 224×224×3 numbers take from a request's text to an array: our reader, and orjson with NumPy.

Usage: python benchmarks/image_parse.py SECONDS

A binary body is read to its array too, and measured from the bytes of its request through our whole server without
sockets, to the bytes of the answer of a model that does nothing.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import orjson
import path_cost
from wire_formats import BINARY, V1, Request

from tfserve_nb.server.rest.inference_v2 import HEADER_LENGTH, parse_infer
from tfserve_nb.server.rest.json_numbers import NumbersReader
from tfserve_nb.types import SignatureSpec, TensorSpec

SHAPE = (224, 224, 3)
SIGNATURE = SignatureSpec("serving_default", {"x": TensorSpec("x", "float32", (None, *SHAPE))}, {})


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """The median time of a call."""
    took_s = []
    until_s = time.perf_counter() + seconds
    while (started_s := time.perf_counter()) < until_s:
        call()
        took_s.append(time.perf_counter() - started_s)
    return 1e3 * statistics.median(took_s)


def bytes_to_bytes_ms(request: Request, seconds: float) -> float:
    """From the bytes of a request to those of its answer, one at a time."""
    fields = {"Host": "localhost", **request.headers, "Authorization": "Bearer secret"}
    head = "POST /v2/models/bench/infer HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in fields.items()
    )
    text = f"{head}Content-Length: {len(request.body)}\r\n\r\n".encode() + request.body
    with tempfile.TemporaryDirectory() as folder:
        core = path_cost.make_core(folder, SHAPE)
        try:
            return 1e3 / path_cost.run_loop(core, text, num_open=1, seconds=seconds)
        finally:
            core.stop()


def main() -> int:
    """Check that both read the same, then measure."""
    rows = np.random.default_rng(0).random((1, *SHAPE)).round(6)
    body = V1.make(rows).body
    reader = NumbersReader()

    def ours() -> np.ndarray:
        numbers = reader.read(body, {"serving_default": SIGNATURE})
        if numbers is None:
            sys.exit("our reader leaves this body to the careful path")
        return numbers.tensors["x"]

    def orjson_and_numpy() -> np.ndarray:
        return np.asarray(orjson.loads(body)["instances"], np.float32)

    if not np.array_equal(ours(), orjson_and_numpy()):
        sys.exit("the two read different numbers")
    found = {"ours": median_ms(ours, seconds := float(sys.argv[1]))}
    found["orjson and NumPy"] = median_ms(orjson_and_numpy, seconds)
    request = BINARY.make(rows.astype(np.float32))
    length = request.headers[HEADER_LENGTH]
    found["binary"] = median_ms(lambda: parse_infer(request.body, length), seconds)
    found["binary, bytes to bytes"] = bytes_to_bytes_ms(request, seconds)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
