"""Requests that were sampled: inputs, outputs, and where their time went.

Thread: any; pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...markup import note, table, text
from ...reports.html import table_html
from ...reports.report import Table, names, numbers
from ...serving.telemetry.request_samples import EVERY_S, KEPT, MAX_ROWS, RequestSample
from ...types import Tensors
from ..charts.svg import format_number
from ..snapshot import clock
from .values import rendered

COLUMNS = (*names("request", "time", "version", "by", "answer"),
           *numbers("rows", "total", "decode", "queue", "run", "encode"))  # fmt: skip
NUM_SHOWN = 12


def requests_table(samples: Sequence[RequestSample], chosen: RequestSample | None, *, is_on: bool) -> str:
    """The newest samples.

    Args:
        samples: newest first.
        chosen: the one that is shown in full, or None.
        is_on: whether sampling goes on.
    """
    if not samples:
        hint = "Waiting for requests." if is_on else "Nothing is kept of requests until you turn sampling on."
        return note(
            f"{hint} A sample of up to {KEPT} requests, at most {1 / EVERY_S:.0f} a second, stays in the server's "
            "memory; headers and tokens do not."
        )
    shown = samples[:NUM_SHOWN]
    current = next(
        (place for place, one in enumerate(shown) if chosen is not None and one.number == chosen.number), None
    )
    return table_html(Table("Sampled requests; times in ms", COLUMNS, tuple(map(_row, shown)), stressed=current))


def request_page(sample: RequestSample) -> str:
    """One request in full."""
    parts = [_message(sample), tensors_table(f"Request {sample.number}", sample.inputs, sample.outputs)]
    if sample.is_cut:
        parts.append(note(f"At most {MAX_ROWS} rows and 1 MiB of each tensor are kept."))
    return "".join(parts)


def again_page(sample: RequestSample, outputs: Tensors, where: str) -> str:
    """The response to a request that was sent again.

    Args:
        sample: the request.
        outputs: of the new response.
        where: which version it was sent to, in words.
    """
    same = {name: array for name, array in outputs.items() if name in sample.outputs}
    worst = [_difference(array, sample.outputs[name]) for name, array in same.items()]
    known = [one for one in worst if one is not None]
    caption = f"Request {sample.number} again, to {where}"
    difference = f"largest difference from before: {format_number(max(known))}" if known else ""
    return tensors_table(caption, sample.inputs, outputs) + note(difference)


def label_of(sample: RequestSample) -> str:
    """One line for a list of choices."""
    version = "" if sample.version is None else f" v{sample.version}"
    return f"{sample.number}: {clock(sample.at)}{version} {sample.code}"


def tensors_table(caption: str, inputs: Tensors, outputs: Tensors) -> str:
    """Inputs and outputs, row by row."""
    columns = [*(f"in: {name}" for name in inputs), *(f"out: {name}" for name in outputs)]
    tensors = [*inputs.values(), *outputs.values()]
    num_rows = min(MAX_ROWS, max((len(array) for array in tensors if array.ndim), default=1))
    rows = [
        {"row": str(place), **{column: _cell(array, place) for column, array in zip(columns, tensors, strict=True)}}
        for place in range(num_rows)
    ]
    return table(text(caption), ["row", *columns], rows)


def named(outputs: np.ndarray | Mapping[str, np.ndarray], sample: RequestSample) -> Tensors:
    """What `send_again` returns, by the names of the sample's outputs."""
    if isinstance(outputs, np.ndarray):
        return {next(iter(sample.outputs), "output"): outputs}
    return outputs


def _cell(array: np.ndarray, place: int) -> str:
    if not array.ndim:
        return rendered(array) if place == 0 else ""
    return rendered(np.asarray(array[place], dtype=array.dtype)) if place < len(array) else ""


def _row(sample: RequestSample) -> tuple[str, ...]:
    return (
        str(sample.number),
        clock(sample.at),
        "" if sample.version is None else str(sample.version),
        sample.entrypoint.lower(),
        sample.code,
        str(sample.num_rows),
        format_number(sample.total_ms),
        *("–" if part is None else format_number(part) for part in sample.parts),
    )


def _message(sample: RequestSample) -> str:
    return note(f"{sample.code}: {sample.message}") if sample.code != "OK" else ""


def _difference(now: np.ndarray, before: np.ndarray) -> float | None:
    if now.shape != before.shape or now.dtype.kind not in "fiu":
        return None
    return float(np.abs(now.astype(np.float64) - before.astype(np.float64)).max(initial=0.0))
