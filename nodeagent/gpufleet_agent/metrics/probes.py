"""Liveness and readiness: what the kubelet is told of the agent itself."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.metrics.http import AsyncHandler, Handler, Headers, Response

HUNG_SECONDS = 60.0
"""Every loop of the agent comes round within a few seconds, and waits for nothing longer than 10 s."""

Check = Callable[[], str | None]
"""None: fine. Otherwise what is wrong, in words."""


class LoopWatchdog:
    """When each of the agent's loops last came round."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._beats: dict[str, float] = {}

    def of(self, name: str) -> Callable[[], None]:
        """A function for one loop to call each time it comes round; it counts as living from now on."""

        def beat() -> None:
            self._beats[name] = self._clock()

        beat()
        return beat

    def check(self) -> str | None:
        """Which loops are hanging."""
        now = self._clock()
        hung = sorted(name for name, beat in self._beats.items() if now - beat > HUNG_SECONDS)
        return f"hanging: {', '.join(hung)}" if hung else None


def probe(checks: Mapping[str, Check]) -> Handler:
    """Answers 200 when every check is fine, else 503; the body has one line per check either way."""

    def handle(_: Headers) -> Response:
        results = {name: check() for name, check in checks.items()}
        body = "".join(f"{name}: {problem or 'ok'}\n" for name, problem in results.items())
        status = HTTPStatus.SERVICE_UNAVAILABLE if any(results.values()) else HTTPStatus.OK
        return Response(body.encode(), status)

    return handle


class _Taken(Collector):
    """What was collected, for an encoder to go through."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterable[Metric]:
        """As a registry does."""
        return self._metrics


def scrape(registry: CollectorRegistry) -> AsyncHandler:
    """Answers with all series, in the format that the client prefers; one scrape after the other.

    Collected on the loop, whose parts change what is collected, and encoded in a thread: eight GPUs with sixteen
    holders each are 3000 series, more than a hundred milliseconds in which pods and probes would wait.
    """
    turn = asyncio.Lock()

    async def handle(headers: Headers) -> Response:
        encode, content_type = choose_encoder(headers.get("accept", ""))
        async with turn:
            body = await asyncio.to_thread(encode, _Taken(registry.collect()))
        return Response(body, content_type=content_type)

    return handle
