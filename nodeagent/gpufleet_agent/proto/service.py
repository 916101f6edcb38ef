"""Services of gRPC servers: methods by name, each a function of typed messages."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

Service: TypeAlias = Mapping[str, Handler]
"""Handlers by `/SERVICE/METHOD`."""


def unary(
    function: Callable[[Request], Awaitable[Response]], request: type[Request], response: type[Response]
) -> Handler:
    """Returns the handler of a method with one response. `GRPCError` sends an error instead."""

    async def handle(stream: "Stream[Request, Response]") -> None:
        received = await stream.recv_message()
        if received is not None:  # None: the client hung up
            await stream.send_message(await function(received))

    return Handler(handle, Cardinality.UNARY_UNARY, request, response)


def streaming(
    function: Callable[[Request], AsyncGenerator[Response, None]], request: type[Request], response: type[Response]
) -> Handler:
    """Returns the handler of a method with a stream of responses. The generator is closed when the client hangs up."""

    async def handle(stream: "Stream[Request, Response]") -> None:
        received = await stream.recv_message()
        if received is None:
            return
        async with aclosing(function(received)) as responses:
            async for each in responses:
                await stream.send_message(each)

    return Handler(handle, Cardinality.UNARY_STREAM, request, response)


def service(name: str, methods: Mapping[str, Any]) -> Service:
    """Returns the handlers of a service by `/SERVICE/METHOD`.

    Args:
        name: Of the service.
        methods: Handlers by the method's name.
    """
    return {f"/{name}/{method}": handler for method, handler in methods.items()}
