"""The apiserver is away for a while: what was deleted meanwhile is noticed when it is back."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_operator.main import run
from gpufleet_operator.settings import OperatorSettings
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.http_apiserver import serving, until
from gpufleet_testing.operator.process import OperatorProcess, moment

WATCHED_BY_KOPF = ("workloads", "telemetry", "pods")
SETTINGS = OperatorSettings(host="127.0.0.1", port=0, leader_election="false")
SECONDS = 40
"""Less than half of the time between two periodic lists."""
OUTAGE_SECONDS = 300
MAX_ATTEMPTS = 150
"""Writes that are tried during the outage. Without backoff, each pass would try several."""


class LonelyCluster(FakeCluster):
    """A cluster whose apiserver may not respond to the operator."""

    away = False
    attempts = 0
    """Writes without a response."""

    def _faulty(self) -> Any:
        if self.away:
            self.attempts += 1
            raise UnavailableError("no response")
        return super()._faulty()


def placements(cluster: FakeCluster, name: str) -> list[tuple[str, tuple[str, ...]]]:
    status = cluster.objects["workloads", f"ml/{name}"]["status"]
    return [(p["state"], tuple(p.get("devices", ()))) for p in status["placements"]]


async def test_five_minutes_without_the_apiserver_change_no_running_pod() -> None:
    """A workload is to be created and one to be removed meanwhile; others run, end, or are deleted right afterwards."""
    cluster = LonelyCluster(2, 4)
    operator = OperatorProcess(cluster, checked=True)
    for name in ("runs", "ends", "stops"):
        cluster.submit(name, devices={"count": 2})
    cluster.submit("goes")
    for _ in range(6):
        await moment(cluster, operator)
    before = {p["metadata"]["name"]: p["metadata"]["uid"] for p in cluster.of("pods")}
    runs = placements(cluster, "runs")
    assert [state for state, _ in runs] == ["Allocated"]
    cluster.submit("late")
    cluster.edit("stops", suspend=True)
    operator.hear(1000)

    cluster.away = True
    for _ in range(OUTAGE_SECONDS):
        cluster.advance(1)
        await operator.act()
    assert {p["metadata"]["name"]: p["metadata"]["uid"] for p in cluster.of("pods")} == before
    assert 2 < cluster.attempts <= MAX_ATTEMPTS

    cluster.away = False
    (ended,) = (p["metadata"]["name"] for p in cluster.of("pods") if p["metadata"]["name"].startswith("ends"))
    cluster.finish(f"ml/{ended}", "Succeeded")
    cluster.remove("workloads", "ml/goes")
    cluster.submit("next", devices={"count": 2})
    operator.relist()
    operator.read_leases()
    for _ in range(60):
        await moment(cluster, operator)
    assert placements(cluster, "runs") == runs
    assert {p["metadata"]["uid"] for p in cluster.of("pods")} >= {uid for name, uid in before.items() if "runs" in name}
    for name in ("late", "next"):
        assert [state for state, _ in placements(cluster, name)] == ["Allocated"], name
    invariants.check_always(cluster)
    invariants.check_settled(cluster)


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
