"""What every gRPC method does around its work: deadline, version, status codes, records.

Thread: the server's loop.

Reference: tensorflow_serving/model_servers/grpc_status_util.cc (1024 characters of an error's text).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any  # protobuf messages and gRPC's contexts

from ...errors import InvalidRequest
from ...serving.backend import Handle, ModelSpec
from ..calls import REQUEST_ID, Calls, RequestContext
from ..telemetry.log import public_error

LONGEST_S = 2147.0
"""How long a call without a deadline may take: TensorFlow Serving's INT_MAX microseconds."""

MAX_DETAIL_CHARS = 1024


class GrpcCalls:
    """Runs the work of a method and turns what becomes of it into gRPC's terms.

    Args:
        calls: the way to the core.
        log: for failures that clients see only the number of.
    """

    def __init__(self, calls: Calls, log: logging.Logger) -> None:
        self.calls = calls
        self._log = log

    async def answer(
        self, api: str, work: Callable[[Any, Any, RequestContext], Awaitable[Any]], request: Any, context: Any
    ) -> Any:
        """The response of a method, or an abort with the status code and text of its error.

        Args:
            api: the method's name.
            work: does it; gets the request, the context and the request's notes.
            request: the method's message.
            context: gRPC's.
        """
        notes = RequestContext(time.perf_counter())
        notes.api, notes.entrypoint = api, "GRPC"
        try:
            response = await work(request, context, notes)
            await _identify(context, notes)
            return response  # noqa: TRY300 - `finally` follows
        except asyncio.CancelledError:
            notes.code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 - see `public_error`
            public = public_error(error, self._log, api)
            notes.code = public.code
            await _identify(context, notes)
            await _abort(context, public.code, public.message)
        finally:
            self.calls.record(notes)

    @contextlib.contextmanager
    def acquired(self, spec: ModelSpec, notes: RequestContext, context: Any) -> Iterator[Handle]:
        """Pin the version that answers while the body runs; `context` is gRPC's."""
        notes.model, notes.label = spec.name, spec.label or ""
        handle = self.calls.acquire(spec, notes, lambda name: _metadata(context, name))
        try:
            yield handle
        finally:
            handle.release()

    @staticmethod
    def deadline_s(context: Any) -> float:
        """The client's deadline on our clock."""
        left_s = context.time_remaining()
        return time.perf_counter() + (LONGEST_S if left_s is None else min(left_s, LONGEST_S))


def spec_of(request: Any) -> ModelSpec:
    """Which model a request is for.

    Args:
        request: a message with a `model_spec`.

    Raises:
        InvalidRequest: if it names none.
    """
    if "model_spec" not in request.DESCRIPTOR.fields_by_name or not request.HasField("model_spec"):
        raise InvalidRequest("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise InvalidRequest("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(spec.name, spec.version.value if choice == "version" else None, spec.version_label or None)


def detail(message: str) -> str:
    """An error's text, cut as TensorFlow Serving cuts it: metadata of HTTP/2 must stay small."""
    return message if len(message) <= MAX_DETAIL_CHARS else message[:MAX_DETAIL_CHARS] + "...TRUNCATED"


def _metadata(context: Any, name: str) -> str | None:
    """A value of the call's metadata, or None; names are lower case there, values of `-bin` names are bytes."""
    for key, value in context.invocation_metadata() or ():
        if key == name.lower():
            return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return None


async def _identify(context: Any, notes: RequestContext) -> None:
    """Send the version, the arm and the request's id as metadata, as REST does in its headers."""
    if notes.version is None or (notes.assignment is None and not notes.request_id):
        return
    metadata = {"x-tfserve-version": str(notes.version), "x-tfserve-arm": notes.arm, REQUEST_ID: notes.request_id}
    await context.send_initial_metadata(tuple((name, value) for name, value in metadata.items() if value))


async def _abort(context: Any, code: str, message: str) -> None:
    import grpc

    await context.abort(grpc.StatusCode[code], detail(message))
