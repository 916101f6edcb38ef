"""An HTTP proxy between an operator and the apiserver, which kills the operator at one of its writes."""

import asyncio
import base64
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from gpufleet_e2e.faults.writes import Writes

_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_LARGEST_BODY = 2**26
_ENDLESS = aiohttp.ClientTimeout(total=None, sock_read=None)


class When(StrEnum):
    """When the operator is killed."""

    BEFORE = "before the write"
    AFTER = "after the write is stored, before its response"


Kills = Mapping[str, Sequence[When]]
"""What happens at the next writes of each kind, one after the other."""


class KillingProxy:
    """Passes all requests on, with the credentials that they carry.

    Args:
        kubeconfig: Names the apiserver and its authority.
        kill: Kills the operator; returns when its process has ended.
    """

    def __init__(self, kubeconfig: Path, kill: Callable[[], None]) -> None:
        cluster = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        self._kill = kill
        self._writes = Writes()
        self._due: dict[str, list[When]] = {}
        self._processes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        """Number of the process that opened a connection: some requests of a killed one are still to be read."""
        self.port = 0
        self.kills: list[tuple[str, When]] = []
        """The writes at which the operator was killed."""

    def kill_at(self, kills: Kills) -> None:
        """Plans kills, in place of those before."""
        self._due = {kind: list(times) for kind, times in kills.items()}

    def due(self) -> Kills:
        """Returns the kills that have not happened."""
        return {kind: times for kind, times in self._due.items() if times}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        sender = self._processes.setdefault(request.transport, len(self.kills))
        body = await request.read()
        kind = self._writes.kind(request.method, request.path, request.query_string, body)
        if sender != len(self.kills) or self._killed(kind, When.BEFORE):
            raise web.HTTPServiceUnavailable  # its process has ended
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        url = URL(self._server + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, data=body or None, headers=headers, timeout=_ENDLESS, allow_redirects=False
        ) as response:
            kept = {name: value for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP}
            if "watch" not in request.query:
                content = await response.read()
                if response.ok and kind is not None:
                    self._writes.store(request.method, request.path, body)
                    if sender == len(self.kills):
                        self._killed(kind, When.AFTER)
                return web.Response(status=response.status, headers=kept, body=content)
            stream = web.StreamResponse(status=response.status, headers=kept)
            with suppress(ConnectionResetError):  # the operator ended
                await stream.prepare(request)
                async for chunk in response.content.iter_any():
                    await stream.write(chunk)
            return stream

    def _killed(self, kind: str | None, when: When) -> bool:
        """Kills the operator if that is planned, and returns whether it was."""
        planned = self._due.get(kind or "")
        if kind is None or not planned or planned[0] is not when:
            return False
        planned.pop(0)
        self._kill()
        self.kills.append((kind, when))
        return True

    async def run(self, started: Callable[[], None], ended: asyncio.Event) -> None:
        """Serves on a free port of 127.0.0.1 until `ended` is set."""
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            application = web.Application(client_max_size=_LARGEST_BODY)
            application.router.add_route("*", "/{path:.*}", self.handle)
            runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.port = runner.addresses[0][1]
                started()
                await ended.wait()
            finally:
                await runner.cleanup()


@contextmanager
def serving(proxy: KillingProxy) -> Iterator[None]:
    """Serves in a thread while the block runs."""
    started, loop, ended = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(proxy.run(started.set, ended)), daemon=True)
    thread.start()
    try:
        assert started.wait(10), "the proxy did not start"
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
