"""How long both servers take for the same request, one at a time and in turns: what slows the machine slows both.

Thread: the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from ...errors import InvalidRequest
from ...types import SignatureSpec, Tensors
from .doors import DOORS, Door, Encoded
from .findings import Latencies
from .side import Side

NUM_WARMUP = 3
"""Requests to each server that are not counted: connections open with the first."""
LONGEST_S = 20.0
"""For one protocol; a slow model gets fewer requests."""


def measure(a: Side, b: Side, model: str, signature: SignatureSpec, inputs: Tensors, num: int) -> Iterator[Latencies]:
    """Send a predict request to both servers in turns, over every protocol that both have.

    Args:
        a: the measure.
        b: the other server.
        model: the model; the default version answers.
        signature: the signature.
        inputs: of the request.
        num: requests to each server.
    """
    for door in DOORS:
        if door.why_closed(a) or door.why_closed(b):
            continue
        try:
            request = door.encode(model, None, signature, inputs)
        except InvalidRequest:
            continue
        yield Latencies(model, door.name, *_in_turns(a, b, door, model, signature, request, num))


def _in_turns(
    a: Side, b: Side, door: Door, model: str, signature: SignatureSpec, request: Encoded, num: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Milliseconds of A and of B. Who is first changes from turn to turn; a turn with a refusal does not count."""
    taken: dict[Side, list[float]] = {a: [], b: []}
    end_s = time.perf_counter() + LONGEST_S
    for turn in range(-NUM_WARMUP, num):
        if time.perf_counter() > end_s:
            break
        found: dict[Side, float] = {}
        for side in (a, b) if turn % 2 else (b, a):
            sent_s = time.perf_counter()
            answer = door.ask(side, model, None, signature, request)
            if answer.outputs is not None:
                found[side] = 1e3 * (time.perf_counter() - sent_s)
        if turn >= 0 and len(found) == 2:
            for side, ms in found.items():
                taken[side].append(ms)
    return tuple(taken[a]), tuple(taken[b])
