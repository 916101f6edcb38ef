"""Requests on real connections: credentials that are renewed, long lines, failed connections."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User

from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import UnauthorizedError, UnavailableError
from gpufleet_operator.kube.http_client import environment_proxy

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def listening(respond: Respond) -> AsyncIterator[str]:
    """Yields the URL of a server."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


def connected(server: str, user: User | None = None) -> Api:
    config = KubeConfig.from_one(user=user or User(), cluster=Cluster(server=server), namespace="default").get()
    assert config is not None
    return Api.connect(config, ServerClock())


@asynccontextmanager
async def serving(respond: Respond, user: User | None = None) -> AsyncIterator[Api]:
    async with listening(respond) as server:
        api = connected(f"{server}/prefix", user)
        yield api
        await api.close()


async def test_path_of_the_server_parameters_and_body_arrive() -> None:
    seen: list[object] = []

    async def respond(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, dict(request.query), request.content_type, await request.json()))
        return web.json_response({"kind": "Pod"})

    async with serving(respond) as api:
        assert await api.create("/api/v1/pods", {"a": "ö"}, strict=True) == {"kind": "Pod"}

    query = {"fieldManager": "gpufleet-operator", "fieldValidation": "Strict"}
    assert seen == [("POST", "/prefix/api/v1/pods", query, "application/json", {"a": "ö"})]


async def test_selectors_arrive_as_they_are() -> None:
    async def respond(request: web.Request) -> web.Response:
        return web.json_response(dict(request.query))

    selectors = {"labelSelector": "!gpufleet.dev/workload", "fieldSelector": "spec.nodeName!=,status.phase!=Failed"}
    async with serving(respond) as api:
        assert await api.get("/x", selectors) == selectors


async def test_rotated_token_is_read_again_after_a_401(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    seen: list[str] = []

    async def respond(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({}, status=200 if seen[-1] == "Bearer new" or len(seen) == 1 else 401)

    async with serving(respond, User(token_file=str(token))) as api:
        await api.get("/x")
        token.write_text("new\n")
        await api.get("/x")
        await api.get("/x")

    assert seen == ["Bearer old", "Bearer old", "Bearer new", "Bearer new"]


async def test_token_that_stays_invalid_is_an_error_after_one_retry(tmp_path: Path) -> None:
    token, seen = tmp_path / "token", []
    token.write_text("old")

    async def respond(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({"message": "Unauthorized"}, status=401)

    async with serving(respond, User(token_file=str(token))) as api:
        with pytest.raises(UnauthorizedError, match="Unauthorized"):
            await api.get("/x")
    assert seen == ["Bearer old"] * 2


@pytest.mark.parametrize(
    ("user", "header"),
    [(User(token="t"), "Bearer t"), (User(username="u", password="p"), "Basic dTpw"), (User(), "")],
    ids=["token", "password", "certificate"],
)
async def test_each_kind_of_credentials_is_sent_and_not_renewed(user: User, header: str) -> None:
    seen: list[str] = []

    async def respond(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization", ""))
        return web.json_response({}, status=401)

    async with serving(respond, user) as api:
        with pytest.raises(UnauthorizedError):
            await api.get("/x")
    assert seen == [header]


async def test_password_of_netrc_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = tmp_path / "netrc"
    passwords.write_text("default login u password p\n")
    monkeypatch.setenv("NETRC", str(passwords))

    async def respond(request: web.Request) -> web.Response:
        return web.json_response({"sent": request.headers.get("Authorization", "")})

    async with serving(respond, User(token="t")) as api:
        assert await api.get("/x") == {"sent": "Bearer t"}


async def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def respond(request: web.Request) -> web.Response:
        return web.json_response({"host": request.host, "authorization": request.headers.get("Proxy-Authorization")})

    async with listening(respond) as proxy:
        monkeypatch.setenv("http_proxy", proxy.replace("://", "://u:p@"))
        api = connected("http://apiserver.test:6443")
        assert await api.get("/x") == {"host": "apiserver.test", "authorization": "Basic dTpw"}
        await api.close()


@pytest.mark.parametrize(
    ("server", "proxy"),
    [
        ("https://10.0.0.1:6443", "http://proxy:1"),
        ("http://apiserver.test", None),
        ("https://apiserver.internal:6443/prefix", None),
    ],
)
def test_proxy_is_that_of_the_scheme(server: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", "10.0.0.2,.internal")
    assert environment_proxy(server) == proxy


async def test_watch_yields_objects_larger_than_any_buffer() -> None:
    large = "x" * 3_000_000

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for text in ("a", large, "b"):
            line = f'{{"type": "ADDED", "object": {{"text": "{text}"}}}}\n'
            await response.write(line.encode())
        return response

    async with serving(respond) as api:
        found = [body["text"] async for _, body in api.watch("/x", {}, "1", 300)]
    assert found == ["a", large, "b"]


async def test_server_that_closes_the_connection_is_unavailable() -> None:
    async def respond(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(respond) as api:
        with pytest.raises(UnavailableError, match="Server"):
            await api.json_patch("/x", [])


async def test_redirect_is_not_followed() -> None:
    async def respond(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/elsewhere"}, text="moved")

    async with serving(respond) as api:
        with pytest.raises(Exception, match="moved") as caught:
            await api.get("/x")
    assert getattr(caught.value, "code", 0) == 302
