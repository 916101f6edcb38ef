"""The apiserver is away for a while: what was deleted meanwhile is noticed when it is back."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from gpufleet_operator.main import run
from gpufleet_operator.settings import OperatorSettings
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.http_apiserver import serving, until

WATCHED_BY_KOPF = ("workloads", "telemetry", "pods")
SETTINGS = OperatorSettings(host="127.0.0.1", port=0, leader_election="false")
SECONDS = 40
"""Less than half of the time between two periodic lists."""


def report(cluster: FakeCluster) -> None:
    cluster.now = datetime.now(UTC)
    cluster.agent("node-1")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own
async def test_deletion_during_an_outage_is_noticed_when_it_ends() -> None:
    """kopf reports no deletion between its two lists, so it is not started again before a list has succeeded."""
    cluster = FakeCluster(1, 2)
    report(cluster)
    cluster.submit("gone", devices={"count": 2})

    async with serving(cluster) as (server, config), asyncio.timeout(2 * SECONDS):
        process = asyncio.create_task(run(SETTINGS, config))
        await until(lambda: len(cluster.released) == 1 or process.done())
        # No watch reports it: all of them end before the deletion.
        server.unavailable = True
        server.broken |= dict.fromkeys(WATCHED_BY_KOPF, 500)
        (pod,) = cluster.of("pods")
        cluster.remove("workloads", "ml/gone")
        cluster.remove("pods", f"ml/{pod['metadata']['name']}")
        await server.notify()
        await until(lambda: server.unanswered["pods"] > 0 or process.done())  # the list before kopf is started again
        server.unavailable = False
        server.broken.clear()

        async def released() -> bool:
            """A pod whose end was not reported has its devices until the agent has reported again."""
            report(cluster)
            await server.notify()
            return not list(cluster.ledger()) or process.done()

        await until(released, seconds=SECONDS)

        assert not process.done(), process
        process.cancel()
        with suppress(asyncio.CancelledError):
            await process
