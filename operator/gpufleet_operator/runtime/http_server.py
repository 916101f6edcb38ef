"""Serves /metrics, /healthz and /readyz."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class ReconcilerHealth:
    """State of the probes.

    An unavailable apiserver does not fail them: passes continue, and a restart would not help.

    Args:
        last_progress: Returns when a pass or a write last completed, by the clock of the event loop; None: never.
        timeout_seconds: Without progress for so long, the operator is not live.
    """

    def __init__(self, last_progress: Callable[[], float | None], timeout_seconds: float) -> None:
        self._last_progress = last_progress
        self._timeout = timeout_seconds

    def problem(self) -> str | None:
        """Returns why the operator is not live. Start-up has no limit: it waits for the apiserver."""
        last = self._last_progress()
        if last is None or asyncio.get_running_loop().time() - last < self._timeout:
            return None
        return f"no reconcile pass completed in the last {self._timeout:.0f} s"

    def not_ready(self) -> str | None:
        """Returns why the operator is not ready: before the first pass, or if it is not live."""
        return "the caches are not synced yet" if self._last_progress() is None else self.problem()


@asynccontextmanager
async def serve(host: str, port: int, health: ReconcilerHealth, registry: CollectorRegistry) -> AsyncIterator[int]:
    """Serves until the block ends. Yields the port, which is chosen for port 0.

    Raises:
        OSError: The address cannot be used.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return _probe(health.problem())

    async def readyz(_: web.Request) -> web.Response:
        return _probe(health.not_ready())

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


def _probe(problem: str | None) -> web.Response:
    return web.Response(text="ok\n") if problem is None else web.Response(status=503, text=f"{problem}\n")
