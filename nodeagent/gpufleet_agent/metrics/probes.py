"""Liveness and readiness: what the kubelet is told of the agent itself."""

from collections.abc import Callable, Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from gpufleet_agent.metrics.http import Handler, Headers, Response

HUNG_SECONDS = 60.0
"""Every loop of the agent comes round within a few seconds, and waits for nothing longer than 10 s."""

Check = Callable[[], str | None]
"""None: fine. Otherwise what is wrong, in words."""


class Pulse:
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


def scrape(registry: CollectorRegistry) -> Handler:
    """Answers with all series, in the format that the client prefers."""

    def handle(headers: Headers) -> Response:
        encode, content_type = choose_encoder(headers.get("accept", ""))
        return Response(encode(registry), content_type=content_type)

    return handle
