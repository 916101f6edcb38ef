"""Handlers of /metrics, /healthz and /readyz."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.metrics.exposition import CONTENT_TYPE, encode
from gpufleet_agent.metrics.http import AsyncHandler, Handler, Headers, Response

HUNG_SECONDS = 60.0
"""Every loop of the agent iterates within seconds, and no wait in it is longer than 10 s."""

Check = Callable[[], str | None]
"""Returns None if all is well, else the problem."""


class LoopWatchdog:
    """Records when each of the agent's loops last iterated."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._beats: dict[str, float] = {}

    def register(self, name: str) -> Callable[[], None]:
        """Returns a function for the loop to call in each iteration. The first call counts as done."""

        def beat() -> None:
            self._beats[name] = self._clock()

        beat()
        return beat

    def check(self) -> str | None:
        """Returns the names of loops that have not iterated for `HUNG_SECONDS`."""
        now = self._clock()
        hung = sorted(name for name, beat in self._beats.items() if now - beat > HUNG_SECONDS)
        return f"loops hang: {', '.join(hung)}" if hung else None


def probe(checks: Mapping[str, Check]) -> Handler:
    """Builds a handler that responds 200 if every check passes, else 503, with one line per check."""

    def handle(_: Headers) -> Response:
        results = {name: check() for name, check in checks.items()}
        body = "".join(f"{name}: {problem or 'ok'}\n" for name, problem in results.items())
        status = HTTPStatus.SERVICE_UNAVAILABLE if any(results.values()) else HTTPStatus.OK
        return Response(body.encode(), status)

    return handle


class _Collected(Collector):
    """Metrics collected earlier, for an encoder."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def scrape(registry: CollectorRegistry) -> AsyncHandler:
    """Builds a handler that serves all series as text, one scrape at a time.

    Series are collected on the loop, which owns the data, and encoded in a thread: 8 GPUs with 16 holders each give
    3000 series, and encoding them would block allocations and probes for more than 100 ms.
    """
    one_at_a_time = asyncio.Lock()

    async def handle(_: Headers) -> Response:
        async with one_at_a_time:
            body = await asyncio.to_thread(encode, _Collected(registry.collect()))
        return Response(body, content_type=CONTENT_TYPE)

    return handle
