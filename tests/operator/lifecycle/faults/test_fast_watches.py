"""A watch reports each write of the operator before its response comes."""

import pytest

from gpufleet_operator.cache import decode
from gpufleet_operator.runtime.pacing.held_statuses import HOLD
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment

SPECS: dict[str, Json] = {
    "gang": {"replicas": 2, "devices": {"count": 2}, "placement": {"gang": True}},
    "many": {"replicas": 3},
    "shares": {"replicas": 4, "devices": {"count": 1, "mode": "Shared", "memoryMiB": 400}},
    "too large": {"devices": {"count": 9}},
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dra", [0, 2], ids=["plugin", "claims"])
async def test_fast_watches_cost_no_write_and_change_no_status(name: str, dra: int) -> None:
    """No list comes to the cache's help. Statuses are held back, so that it has some that are not stored."""

    async def run(*, fast: bool) -> tuple[int, list[object]]:
        cluster = FakeCluster(2, 3, dra=dra)
        operator = OperatorProcess(cluster, hold_statuses=HOLD)
        if fast:
            cluster.before_response = lambda: operator.hear(1000)
        cluster.submit("one", **SPECS[name])
        cluster.submit("two")
        for _ in range(8):
            await moment(cluster, operator)
        cluster.delete_gracefully(f"ml/{cluster.of('pods')[0]['metadata']['name']}")
        for _ in range(8):
            await moment(cluster, operator)
        operator.hear(1000)
        cached = operator.cache.workloads.items
        for body in cluster.of("workloads"):
            stored = decode.workload(body)
            assert stored is not None
            assert cached[stored.uid].status == stored.status, stored.name
        invariants.check_always(cluster)
        return cluster.sent, [[c["reason"] for c in body["status"]["conditions"]] for body in cluster.of("workloads")]

    assert await run(fast=True) == await run(fast=False)
