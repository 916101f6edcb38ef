"""Responses to probes and Prometheus."""

import asyncio

import aiohttp
from prometheus_client import CollectorRegistry, Gauge

from gpufleet_operator.runtime.http_server import ReconcilerHealth, serve


async def ask(last_progress: float | None, ago: float = 0) -> dict[str, tuple[int, str]]:
    registry = CollectorRegistry()
    Gauge("gpufleet_test", "A test.", registry=registry).set(3)
    now = asyncio.get_running_loop().time()
    health = ReconcilerHealth(lambda: None if last_progress is None else now - ago, 60)
    found = {}
    async with serve("127.0.0.1", 0, health, registry) as port, aiohttp.ClientSession() as session:
        for path in ("/healthz", "/readyz", "/metrics"):
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                found[path] = (response.status, await response.text())
    return found


async def test_before_the_first_pass_it_is_live_but_not_ready() -> None:
    found = await ask(None)

    assert found["/healthz"][0] == 200
    assert found["/readyz"] == (503, "the caches are not synced yet\n")


async def test_after_a_pass_it_is_live_and_ready() -> None:
    found = await ask(1.0)

    assert [found[path][0] for path in ("/healthz", "/readyz")] == [200, 200]
    assert "gpufleet_test 3.0" in found["/metrics"][1]


async def test_without_a_pass_it_is_not_live() -> None:
    assert (await ask(1.0, ago=100))["/healthz"] == (503, "no reconcile pass completed in the last 60 s\n")
