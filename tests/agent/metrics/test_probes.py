import asyncio
import threading
from collections.abc import Iterable
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.metrics import probes
from gpufleet_agent.metrics.probes import LoopWatchdog, probe, scrape


def test_a_probe_names_what_is_wrong() -> None:
    handle = probe({"a": lambda: None, "b": lambda: "on fire"})
    answer = handle({})
    assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.body == b"a: ok\nb: on fire\n"


def test_a_probe_with_nothing_wrong() -> None:
    answer = probe({"a": lambda: None})({})
    assert answer.status is HTTPStatus.OK
    assert answer.body == b"a: ok\n"


def test_loop_hangs_after_a_minute_until_next_iteration() -> None:
    now = [0.0]
    watchdog = LoopWatchdog(lambda: now[0])
    assert watchdog.check() is None
    slow, quick = watchdog.register("slow"), watchdog.register("quick")
    now[0] = 61
    quick()
    assert watchdog.check() == "loops hang: slow"
    slow()
    assert watchdog.check() is None


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_a_scrape_is_text_even_if_openmetrics_is_preferred(accept: str) -> None:
    """OpenMetrics has no type for DCGM's counters."""
    registry = CollectorRegistry()
    Gauge("a", "Help.", registry=registry).set(1)
    plain = await scrape(registry)({"accept": accept})
    assert plain.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert plain.body == b"# HELP a Help.\n# TYPE a gauge\na 1.0\n"


async def test_scrape_is_collected_on_loop_and_encoded_in_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    loop_thread = threading.get_ident()
    threads: dict[str, int] = {}
    encoding, go_on = threading.Event(), threading.Event()

    class Collecting(Collector):
        def collect(self) -> Iterable[Metric]:
            threads["collected"] = threading.get_ident()
            yield Metric("a", "Help.", "gauge")

    def encode(registry: CollectorRegistry) -> bytes:
        threads["encoded"] = threading.get_ident()
        encoding.set()
        assert go_on.wait(10)
        return ",".join(metric.name for metric in registry.collect()).encode()

    monkeypatch.setattr(probes, "encode", encode)
    registry = CollectorRegistry()
    registry.register(Collecting())

    async with asyncio.timeout(10):
        answer = asyncio.ensure_future(scrape(registry)({}))
        assert await asyncio.to_thread(encoding.wait, 10)
        assert not answer.done()
        go_on.set()
        response = await answer

    assert response.body == b"a"
    assert threads["collected"] == loop_thread
    assert threads["encoded"] != loop_thread
