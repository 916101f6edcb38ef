"""A small HTTP server for Prometheus and the kubelet's probes, on the agent's own event loop.

It runs on that loop on purpose: an answer from /healthz proves that the loop runs. Slow handlers are asynchronous and
do their work in a thread.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import structlog

log = structlog.get_logger(__name__)

MAX_REQUEST_BYTES = 16 * 1024
MAX_CONNECTIONS = 64
TIMEOUT_SECONDS = 5.0
"""For the client to send its request, and again to receive the response."""


@dataclass(frozen=True, slots=True)
class Response:
    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


Headers = Mapping[str, str]
"""By lower-case name."""

Handler = Callable[[Headers], Response]
AsyncHandler = Callable[[Headers], Awaitable[Response]]


class RequestError(Exception):
    """The request is malformed or not supported."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class HttpServer:
    """Serves GET and HEAD for fixed paths, one request per connection.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 picks a free one.
        routes: Handlers by path.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Handler | AsyncHandler]) -> None:
        self._host = host
        self._port = port
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises:
            RuntimeError: Not started.
        """
        if self._server is None:
            raise RuntimeError("the HTTP server is not started")
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Starts listening.

        Raises:
            OSError: The address is in use or not local.
        """
        self._server = await asyncio.start_server(self._connected, self._host, self._port, limit=MAX_REQUEST_BYTES)

    async def close(self) -> None:
        """Stops listening and drops open connections."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is always handled in a task")
        self._connections.add(task)
        try:
            if len(self._connections) <= MAX_CONNECTIONS:
                await self._serve(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass  # the client closed the connection or was too slow
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = False
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                method, path, headers = await _request(reader)
            head = method == "HEAD"
            response = await self._respond(path, headers)
        except RequestError as error:
            response = Response(f"{error.status.phrase}\n".encode(), error.status)
        writer.write(_head(response) + (b"" if head else response.body))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await writer.drain()

    async def _respond(self, path: str, headers: Headers) -> Response:
        handler = self._routes.get(path)
        if handler is None:
            raise RequestError(HTTPStatus.NOT_FOUND)
        response = handler(headers)
        return response if isinstance(response, Response) else await response


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, Headers]:
    """Returns method, path without query, and headers of the connection's request."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise RequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from error
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):  # noqa: PLR2004 - method, target and version
        raise RequestError(HTTPStatus.BAD_REQUEST)
    method, target, _ = parts
    if method not in {"GET", "HEAD"}:
        raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED)
    fields = (line.partition(":") for line in lines if line)
    return method, target.partition("?")[0], {name.strip().lower(): value.strip() for name, _, value in fields}


def _head(response: Response) -> bytes:
    status = response.status
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
