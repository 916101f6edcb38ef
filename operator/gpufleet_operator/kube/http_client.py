"""HTTP on aiohttp, with the server, TLS and credentials that lightkube reads from a kubeconfig or a service account.

A request of the client that lightkube configures (httpx2) takes five times as much processor time, and an assignment
costs several requests.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import SingleConfig

_UNAUTHORIZED = 401


class HttpResponse(Protocol):
    """A response whose headers have arrived."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self) -> bytes:
        """Returns the whole body."""

    def lines(self) -> AsyncIterator[bytes]:
        """Yields the lines of the body as they arrive."""


class HttpClient(Protocol):
    """Sends requests. Failed connections raise aiohttp.ClientError, or TimeoutError."""

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: aiohttp.ClientTimeout,
    ) -> AbstractAsyncContextManager[HttpResponse]:
        """Sends a request to a path of the server; the response is closed with the context."""

    async def close(self) -> None:
        """Closes all connections."""


class AiohttpClient:
    """`HttpClient` on a server.

    Args:
        server: URL of the server.
        tls: Its authority, and the client's certificate.
        credentials: Source of the header `Authorization`.
    """

    def __init__(self, server: str, tls: ssl.SSLContext, credentials: "Credentials") -> None:
        self._server, self._tls, self._credentials = server.rstrip("/"), tls, credentials
        self._proxy = environment_proxy(server)
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def connect(cls, config: SingleConfig) -> "AiohttpClient":
        """Connects with a configuration; the connection is made with the first request."""
        found = ConnectionParams().httpx_params(config)
        return cls(config.cluster.server, found["verify"], Credentials(found["auth"]))

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - of each step, not of the whole
    ) -> AsyncIterator[HttpResponse]:
        if self._session is None:
            # No limit of connections: with aiohttp's 100, writes that hang in seven namespaces, 16 in each, would have
            # all of them, and every reservation would time out. The lanes of the executor limit writes.
            connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
            # aiohttp keeps cookies by default, and apiservers behind load balancers send some.
            # Without trust_env, which reads the file .netrc for each request, and rejects those with a header
            # `Authorization` if the file has a password for the server.
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        for last in (False, True):
            sent = self._session.request(
                method,
                f"{self._server}{path}",
                params=params,
                headers={**headers, **await self._credentials.headers()},
                data=body,
                timeout=timeout,
                allow_redirects=False,
                proxy=self._proxy,
            )
            async with sent as response:
                if response.status == _UNAUTHORIZED and not last and await self._credentials.renew():
                    continue
                yield _Response(response)
                return

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def environment_proxy(server: str) -> str | None:
    """Returns the URL of the proxy for a server, by `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`; None: there is none."""
    url = urlsplit(server)
    return None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)


class Credentials:
    """The header `Authorization` of lightkube's authentication: kept until a request is rejected with 401.

    Args:
        auth: None: the client's certificate is enough.
    """

    def __init__(self, auth: httpx2.Auth | None) -> None:
        self._auth = auth
        self._headers: dict[str, str] | None = {} if auth is None else None

    async def headers(self) -> Mapping[str, str]:
        """Returns the header; empty without authentication."""
        if self._headers is None:
            await self._obtain(rejected=False)
        return self._headers or {}

    async def renew(self) -> bool:
        """Reads new credentials after a 401, such as a rotated token. Returns False if there are none."""
        return await self._obtain(rejected=True)

    async def _obtain(self, *, rejected: bool) -> bool:
        if self._auth is None:
            return False
        flow = self._auth.async_auth_flow(httpx2.Request("GET", "https://apiserver"))
        request = await anext(flow)
        try:
            if rejected:
                request = await flow.asend(httpx2.Response(_UNAUTHORIZED, request=request))
        except StopAsyncIteration:
            return False
        finally:
            await flow.aclose()
        self._headers = {"Authorization": request.headers["Authorization"]}
        return True


class _Response:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def read(self) -> bytes:
        return await self._response.read()

    async def lines(self) -> AsyncIterator[bytes]:
        # aiohttp's own lines are limited to the size of its buffer, and an object may have more.
        rest = b""
        async for chunk in self._response.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                if line:
                    yield line
        if rest:
            yield rest
