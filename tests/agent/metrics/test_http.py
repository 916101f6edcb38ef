import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest

from gpufleet_agent.metrics import http
from gpufleet_agent.metrics.http import Headers, HttpServer, Response


def page(headers: Headers) -> Response:
    return Response(f"hello {headers.get('x-name', 'nobody')}".encode(), content_type="text/x-test")


@asynccontextmanager
async def serving() -> AsyncIterator[HttpServer]:
    server = HttpServer("127.0.0.1", 0, {"/page": page})
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def ask(server: HttpServer, request: bytes) -> tuple[str, str]:
    """Status line and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    ("request_head", "status", "body"),
    [
        pytest.param(b"GET /page HTTP/1.1\r\nX-Name: you\r\n\r\n", HTTPStatus.OK, "hello you", id="a page"),
        pytest.param(b"GET /page?a=b HTTP/1.1\r\n\r\n", HTTPStatus.OK, "hello nobody", id="a query is left aside"),
        pytest.param(b"HEAD /page HTTP/1.1\r\n\r\n", HTTPStatus.OK, "", id="the head alone"),
        pytest.param(b"GET /other HTTP/1.1\r\n\r\n", HTTPStatus.NOT_FOUND, "Not Found\n", id="no such page"),
        pytest.param(
            b"POST /page HTTP/1.1\r\n\r\n",
            HTTPStatus.METHOD_NOT_ALLOWED,
            "Method Not Allowed\n",
            id="a method too many",
        ),
        pytest.param(b"\x16\x03\x01\r\n\r\n", HTTPStatus.BAD_REQUEST, "Bad Request\n", id="not HTTP"),
        pytest.param(
            b"GET /page HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            "Request Header Fields Too Large\n",
            id="a header too long",
        ),
    ],
)
async def test_a_request(request_head: bytes, status: HTTPStatus, body: str) -> None:
    async with serving() as server:
        head, answered = await ask(server, request_head)
        assert head.startswith(f"HTTP/1.1 {status.value} {status.phrase}\r\n")
        assert answered == body
        if status is HTTPStatus.OK:
            assert "Content-Type: text/x-test" in head
            assert f"Content-Length: {len(body) or len('hello nobody')}" in head


async def test_a_client_that_sends_nothing_is_dropped_and_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT_SECONDS", 0.1)
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /page HT")
        assert (await ask(server, b"GET /page HTTP/1.1\r\n\r\n"))[1] == "hello nobody"
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_connections_beyond_the_limit_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 1)
    async with serving() as server:
        _, waiting = await asyncio.open_connection("127.0.0.1", server.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        for each in (waiting, writer):
            each.close()
            await each.wait_closed()


async def test_close_drops_connections_and_frees_the_port() -> None:
    async with serving() as server:
        port = server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # The server has accepted once it answers another.
        await ask(server, b"GET /page HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    again = HttpServer("127.0.0.1", port, {})
    await again.start()
    await again.close()


async def test_a_port_that_is_taken_is_an_error() -> None:
    async with serving() as server:
        with pytest.raises(OSError, match="in use"):
            await HttpServer("127.0.0.1", server.port, {}).start()
