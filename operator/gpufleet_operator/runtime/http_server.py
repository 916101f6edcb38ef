"""/metrics, /healthz and /readyz over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class Health:
    """Alive: a pass or a write ended lately (or start-up is under way). Ready: a pass was made on complete caches.

    A cluster whose apiserver is away doesn't make the operator unhealthy: passes go on, and a restart would not help.
    """

    def __init__(self, last_sign: Callable[[], float | None], patience_seconds: float) -> None:
        self._last_sign = last_sign
        self._patience = patience_seconds
        self._started = asyncio.get_running_loop().time()

    def alive(self) -> bool:
        """True while passes are made. Start-up may take as long as the apiserver lets it wait."""
        last = self._last_sign()
        return last is None or asyncio.get_running_loop().time() - last < self._patience

    def ready(self) -> bool:
        """True once the first pass was made."""
        return self._last_sign() is not None and self.alive()


@asynccontextmanager
async def serve(host: str, port: int, health: Health, registry: CollectorRegistry) -> AsyncIterator[int]:
    """Serve until the block ends; yields the port (for port 0).

    Raises:
        OSError: the address can't be used.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return _answer(health.alive(), "no pass was made lately")

    async def readyz(_: web.Request) -> web.Response:
        return _answer(health.ready(), "the caches are not complete yet")

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _answer(good: bool, reason: str) -> web.Response:  # noqa: FBT001 - the one thing that it is about
    return web.Response(text="ok\n") if good else web.Response(status=503, text=f"{reason}\n")
