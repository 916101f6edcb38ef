"""Serves /metrics, /healthz and /readyz."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

_SHUTDOWN_SECONDS = 1.0
"""How long a response may take after the end of the operator."""


class ReconcilerHealth:
    """State of the probes.

    An unavailable apiserver does not fail them: passes continue, and a restart would not help.

    Args:
        last_progress: Returns when a pass or a write last completed, by the clock of the event loop; None: never.
        timeout_seconds: Without progress for so long, the operator is not live.
        is_standby: Returns True when the caches are complete and another process leads.
        denied_reads: Returns the resources that may not be read, which may keep the caches from being complete.
        lease_rejection: Returns why the Lease cannot be acquired; empty: it is acquired, or held by another process.
    """

    def __init__(
        self,
        last_progress: Callable[[], float | None],
        timeout_seconds: float,
        is_standby: Callable[[], bool] = lambda: False,
        denied_reads: Callable[[], Iterable[str]] = tuple,
        lease_rejection: Callable[[], str] = str,
    ) -> None:
        self._last_progress, self._is_standby = last_progress, is_standby
        self._denied_reads, self._lease_rejection = denied_reads, lease_rejection
        self._timeout = timeout_seconds

    def problem(self) -> str | None:
        """Returns why the operator is not live. Start-up has no limit: it waits for the apiserver."""
        last = self._last_progress()
        if last is None or asyncio.get_running_loop().time() - last < self._timeout:
            return None
        return f"no reconcile pass completed in the last {self._timeout:.0f} s"

    def not_ready(self) -> str | None:
        """Returns why the operator is not ready: no pass yet and no standby, it may not lead, or it is not live."""
        if self._last_progress() is not None:
            return self.problem()
        if rejection := self._lease_rejection():
            return f"the apiserver rejects the Lease: {rejection}"
        if self._is_standby():
            return None
        denied = ", ".join(sorted(self._denied_reads()))
        return "the caches are not synced yet" + (f": the apiserver denies reading {denied}" if denied else "")


@asynccontextmanager
async def serve(host: str, port: int, health: ReconcilerHealth, registry: CollectorRegistry) -> AsyncIterator[int]:
    """Serves until the block ends, on a thread of its own. Yields the port, which is chosen for port 0.

    A pass over a whole cluster of thousands of nodes blocks the event loop for seconds. Probes are answered meanwhile:
    the kubelet would restart the operator, which would begin with the same pass.

    Raises:
        OSError: The address cannot be used.
    """
    server = _ServerThread(host, port, health, registry)
    try:
        yield await asyncio.to_thread(server.begin)
    finally:
        await asyncio.to_thread(server.end)


class _ServerThread:
    def __init__(self, host: str, port: int, health: ReconcilerHealth, registry: CollectorRegistry) -> None:
        self._host, self._port, self._health, self._registry = host, port, health, registry
        self._loop = asyncio.new_event_loop()
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def begin(self) -> int:
        """Starts the thread and returns the port. Raises OSError if the address cannot be used."""
        self._thread.start()
        return self._started.result()

    def end(self) -> None:
        """Ends the thread; also after a failed start, when it ends by itself."""
        if self._started.exception() is None:
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
            try:
                self._started.set_result(self._loop.run_until_complete(self._listen(runner)))
            except Exception as error:  # noqa: BLE001 - raised by begin(), in the thread that waits for the start
                self._started.set_exception(error)
            else:
                self._loop.run_forever()
            finally:
                self._loop.run_until_complete(runner.cleanup())

    async def _listen(self, runner: web.AppRunner) -> int:
        await runner.setup()
        await web.TCPSite(runner, self._host, self._port).start()
        port: int = runner.addresses[0][1]
        return port

    def _application(self) -> web.Application:
        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

        async def healthz(_: web.Request) -> web.Response:
            return _probe(self._health.problem())

        async def readyz(_: web.Request) -> web.Response:
            return _probe(self._health.not_ready())

        application = web.Application()
        application.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
        return application


def _probe(problem: str | None) -> web.Response:
    return web.Response(text="ok\n") if problem is None else web.Response(status=503, text=f"{problem}\n")
