"""Who is let in: calls are refused by their metadata, before their messages are read, and messages are counted.

gRPC reads the message of a unary call before its handler runs. A handler of a stream reads when it likes, and a client
of a unary call sees no difference: refused calls get one that reads nothing. What is not read fills the client's
flow-control window only.

Thread: the server's loop.

Reference: grpc.aio's `ServerInterceptor`; the health checking protocol (grpc/doc/health-checking.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any  # gRPC's objects

from ..budget import FREE_BYTES, ByteBudget
from ..security import is_token_right

HEALTH = "/grpc.health.v1.Health/"
TOKEN_NEEDED = "A token is needed: send the metadata 'authorization: Bearer TOKEN'"  # noqa: S105 - no token

Work = Callable[[Any, Any], Awaitable[Any]]
"""Answers one call: message and context in, message out."""

HealthCheck = Callable[[], Awaitable[bytes]]
"""A serialized `HealthCheckResponse` for the whole server."""


def new_entrance(token: str | None, budget: ByteBudget, check: HealthCheck | None) -> Any:
    """An interceptor.

    Args:
        token: what calls must carry, or None.
        budget: no call is let in while it is full.
        check: answers health checks that carry no token, without reading which service they name; None to refuse them.
    """
    import grpc
    from grpc import aio

    unauthenticated = _refusing(grpc.StatusCode.UNAUTHENTICATED, TOKEN_NEEDED)
    exhausted = _refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, budget.refusal)
    health = {} if check is None else _health_handlers(check)

    class Entrance(aio.ServerInterceptor):  # type: ignore[misc]
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            if token is not None:
                authorization = dict(details.invocation_metadata).get("authorization", "")
                if not is_token_right(str(authorization), token):
                    return health.get(details.method, unauthenticated)
            return exhausted if budget.is_full else await continuation(details)

    return Entrance()


def _refusing(code: Any, text: str) -> Any:
    """A handler that fails any call."""
    import grpc

    async def refuse(_: Any, context: Any) -> AsyncIterator[bytes]:
        await context.abort(code, text)
        yield b""

    return grpc.stream_stream_rpc_method_handler(refuse)


def _health_handlers(check: HealthCheck) -> dict[str, Any]:
    """Handlers that answer for the whole server; see `listener` for those that read what they are asked."""
    import grpc

    async def answer(_: Any, __: Any) -> AsyncIterator[bytes]:
        yield await check()

    async def watch(_: Any, __: Any) -> AsyncIterator[bytes]:
        yield await check()
        await asyncio.Event().wait()  # until the client leaves

    handler = grpc.stream_stream_rpc_method_handler
    return {HEALTH + "Check": handler(answer), HEALTH + "Watch": handler(watch)}


def counted(work: Work, message: Any, budget: ByteBudget) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """Answers a call whose message came as bytes, which count until it is answered.

    Args:
        work: answers it.
        message: the class of its message.
        budget: counts.
    """
    import grpc
    from google.protobuf.message import DecodeError

    async def answer(body: bytes, context: Any) -> bytes:
        num_bytes = len(body) if len(body) > FREE_BYTES else 0
        if num_bytes and not budget.take(num_bytes):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, budget.refusal)
        try:
            request = message.FromString(body)
            del body
            response: bytes = (await work(request, context)).SerializeToString()
        except DecodeError:
            await context.abort(grpc.StatusCode.INTERNAL, f"The message is no {message.DESCRIPTOR.full_name}")
            raise
        finally:
            budget.give_back(num_bytes)
        return response

    return answer


def handlers_of(service: Any, servicer: object, budget: ByteBudget) -> Any:
    """Handlers for the unary methods of a service.

    Args:
        service: its descriptor.
        servicer: has methods of the same names.
        budget: counts messages.
    """
    import grpc
    from google.protobuf.message_factory import GetMessageClass

    methods = {
        method.name: grpc.unary_unary_rpc_method_handler(
            counted(getattr(servicer, method.name), GetMessageClass(method.input_type), budget)
        )
        for method in service.methods
        if hasattr(servicer, method.name)
    }
    return grpc.method_handlers_generic_handler(service.full_name, methods)
