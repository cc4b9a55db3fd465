"""docs/limits.md says the defaults that the code has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfserve_nb import limited_process
from tfserve_nb.cli.serve_flags import GROUPS
from tfserve_nb.export import arrays, layout, warmup_requests
from tfserve_nb.server import budget, open_files, settings, vital_signs
from tfserve_nb.server.grpc import listener
from tfserve_nb.server.rest import handler, json_tensors
from tfserve_nb.serving import shadow
from tfserve_nb.serving.batching import long_runs
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.engines import conversion
from tfserve_nb.serving.engines.saved_model import session
from tfserve_nb.serving.models import model, placement
from tfserve_nb.serving.telemetry import capture, request_samples

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
KERNEL = settings.ServerSettings()
SERVE = {flag.name: flag.default for flags in GROUPS.values() for flag in flags}
MIB = 2**20


@pytest.mark.parametrize(
    "text",
    [
        f"kernel {KERNEL.max_body_bytes // MIB} MiB, serve {SERVE['max_request_bytes'] // 2**30} GiB",
        f"kernel {KERNEL.max_bytes_in_flight // MIB} MiB, serve {SERVE['max_bytes_in_flight'] // 2**30} GiB",
        f"those up to {budget.FREE_BYTES // 1024} KiB not counted",
        f"after inflating | {handler.MAX_INFLATED_BYTES // MIB} MiB",
        f"headers | {KERNEL.max_header_bytes // 1024} KiB",
        f"requests of a connection | {KERNEL.idle_timeout_s:g} s",
        f"connection without a call | {listener.IDLE_MS // 1000} s",
        f"body to arrive | {KERNEL.body_timeout_s:g} s",
        f"read its response | {KERNEL.write_timeout_s:g} s",
        f"waiting and running | {KERNEL.request_timeout_s:g} s",
        f"tensor in JSON | {json_tensors.MAX_RANK} |",
        f"{KERNEL.max_connections}, and at most {100 * open_files.HTTP_SHARE:g} % of the files",
        f"kernel {settings.GrpcSettings().max_connections}, serve {SERVE['max_connections']}",
        f"at most {100 * open_files.GRPC_SHARE:g} % of the files",
        f"0, at most {settings.MAX_WORKERS} |",
        f"rows of a run | kernel and isolated {BatchingOptions().max_batch_size}",
        f"kernel and isolated {BatchingOptions().max_enqueued_batches} |",
        f"that TensorFlow cannot stop | {long_runs.MAX_OVERDUE} |",
        f"of a graph with loops | {session.LONGEST_RUN_S:g} s",
        f"holds up other models | {long_runs.PATIENCE_S:g} s",
        f"stopped by a signal | {vital_signs.MOST_STOPPED * vital_signs.PAUSE_S:g} s",
        f"of at most {vital_signs.ANSWER_S:g} s",
        f"loading a version | {model.LOAD_LIMIT_S:g} s",
        f"for engines | {conversion.LIMIT_S:g} s, {100 * limited_process.SHARE:g} % of the free memory",
        f"stay loaded | {placement.DEFAULT_KEEP} |",
        f"{shadow.MAX_WAITING} requests, {shadow.MAX_WAITING_BYTES // MIB} MiB",
        f"name of a model | {layout.MAX_NAME_BYTES} bytes",
        f"that are read | {warmup_requests.MAX_WARMUP_RECORDS},",
        f"{capture.MAX_REQUESTS} requests, {capture.MAX_ROWS:,} rows, {capture.MAX_MIB:g} MiB".replace(",0", " 0"),
        f"one in {request_samples.EVERY_S:g} s, at most {request_samples.MAX_ROWS} rows and "
        f"{request_samples.MAX_BYTES // MIB} MiB each",
        f"live one | {arrays.MAX_CHECKED_ROWS} of",
    ],
)
def test_a_default(text: str) -> None:
    assert text in PAGE
