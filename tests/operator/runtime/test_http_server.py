"""Responses to probes and Prometheus."""

import asyncio
import threading
import urllib.request

import aiohttp
import pytest
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


@pytest.mark.parametrize(
    ("denied", "standby", "rejection", "problem"),
    [
        ([], True, "", None),
        (["pods", "nodes"], False, "", "the caches are not synced yet: the apiserver denies reading nodes, pods"),
        (["gpudemands.gpufleet.dev"], True, "", None),
        ([], True, "leases is forbidden", "the apiserver rejects the Lease: leases is forbidden"),
    ],
    ids=["standby", "reads", "standby without demands", "lease"],
)
async def test_process_that_may_not_read_or_lead_is_not_ready(
    denied: list[str], standby: bool, rejection: str, problem: str | None
) -> None:
    health = ReconcilerHealth(lambda: None, 60, lambda: standby, lambda: denied, lambda: rejection)
    assert health.not_ready() == problem


async def test_after_a_pass_it_is_live_and_ready() -> None:
    found = await ask(1.0)

    assert [found[path][0] for path in ("/healthz", "/readyz")] == [200, 200]
    assert "gpufleet_test 3.0" in found["/metrics"][1]


async def test_without_a_pass_it_is_not_live() -> None:
    assert (await ask(1.0, ago=100))["/healthz"] == (503, "no reconcile pass completed in the last 60 s\n")


async def test_probes_are_answered_while_a_pass_blocks_the_event_loop() -> None:
    now = asyncio.get_running_loop().time()
    health = ReconcilerHealth(lambda: now, 60)
    async with serve("127.0.0.1", 0, health, CollectorRegistry()) as port:
        url = f"http://127.0.0.1:{port}/healthz"
        with urllib.request.urlopen(url, timeout=20) as response:  # noqa: ASYNC210 - blocks the event loop, as a pass
            assert response.read() == b"ok\n"


async def test_address_in_use_is_an_error_and_leaves_no_thread() -> None:
    health = ReconcilerHealth(lambda: None, 60)
    async with serve("127.0.0.1", 0, health, CollectorRegistry()) as port:
        with pytest.raises(OSError, match=str(port)):
            async with serve("127.0.0.1", port, health, CollectorRegistry()):
                pass

    assert "http" not in {thread.name for thread in threading.enumerate()}
