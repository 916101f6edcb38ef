"""A gang whose releases would not be sent, because others of its namespace hang. Time is virtual."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpufleet_operator.runtime.executor import MAX_RELEASES, PATIENCE_SECONDS
from gpufleet_testing.agent.virtual_time import in_virtual_time
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess

STEP_SECONDS = 0.1
GANG: Any = {"replicas": 2, "placement": {"gang": True}}


class HangingReleases(FakeCluster):
    """Releases in namespace `slow` wait for an event."""

    def __init__(self) -> None:
        super().__init__(nodes=1, devices=1)
        self.works = asyncio.Event()

    async def patch_pod(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        if namespace == "slow":
            await self.works.wait()
        return await super().patch_pod(namespace, name, patch)

    def submit_slow(self, name: str, **spec: object) -> None:
        self.submit(name, **spec)
        body = self.objects.pop(("workloads", f"ml/{name}"))
        self.log.pop()
        self.store("workloads", f"slow/{name}", {**body, "metadata": {"name": name, "namespace": "slow"}})

    def reserved(self, name: str) -> list[str]:
        return sorted(node for node, assignment in self.ledger() if assignment["workload"] == name)


class Run:
    def __init__(self, cluster: HangingReleases) -> None:
        self.cluster = cluster
        self.operator = OperatorProcess(cluster, patience=PATIENCE_SECONDS, report_patience=0)
        self.began, self.clock = asyncio.get_running_loop().time(), cluster.now

    async def step(self, *others: str) -> None:
        self.operator.hear(10_000)
        await self.operator.act()
        self.cluster.scheduler()
        for node in others:
            self.cluster.kubelet(node)
            self.cluster.agent(node)
        await asyncio.sleep(STEP_SECONDS)
        self.cluster.now = self.clock
        self.cluster.advance(asyncio.get_running_loop().time() - self.began)

    async def until(self, condition: Callable[[], bool], *others: str, limit: int = 100) -> None:
        for _ in range(limit):
            if condition():
                return
            await self.step(*others)
        raise AssertionError("the condition does not hold in time")


async def with_full_lane() -> Run:
    """Returns a cluster with two free nodes, one of which still has the reservation of a pod that has ended."""
    cluster = HangingReleases()
    run = Run(cluster)
    cluster.submit("first", restart_policy="Never")
    await run.until(lambda: any(cluster.kubelets.values()), "node-1")
    for number in range(MAX_RELEASES):
        cluster.add_node(f"full-{number}", 1)
    for number in range(MAX_RELEASES):
        cluster.submit_slow(f"w-{number}")
    await run.until(lambda: len(list(cluster.ledger())) == MAX_RELEASES + 1)
    cluster.add_node("node-2", 1)
    return run


@in_virtual_time
async def test_gang_is_not_reserved_in_part_while_its_lane_is_full() -> None:
    """The write to the other node also removes a reservation, and is not dropped."""
    run = await with_full_lane()
    cluster = run.cluster
    cluster.submit_slow("gang", **GANG)
    await run.until(lambda: sum(p["metadata"]["name"].startswith("gang") for p in cluster.of("pods")) == 2)
    (first,) = (p for p in cluster.of("pods") if p["metadata"]["namespace"] == "ml")

    cluster.finish(f"ml/{first['metadata']['name']}", "Succeeded")
    await run.until(lambda: not cluster.reserved("first"), "node-1")

    assert cluster.reserved("gang") == []
    for _ in range(10):
        await run.step("node-1")
        assert cluster.reserved("gang") == []
    cluster.works.set()
    await run.until(lambda: len(cluster.released) == 1 + MAX_RELEASES + GANG["replicas"])
    assert cluster.reserved("gang") == ["node-1", "node-2"]
    invariants.check_always(cluster)


@in_virtual_time
async def test_gang_that_waits_for_a_full_lane_keeps_no_devices_from_others() -> None:
    run = await with_full_lane()
    cluster = run.cluster
    cluster.submit_slow("gang", **GANG)
    await run.until(lambda: sum(p["metadata"]["name"].startswith("gang") for p in cluster.of("pods")) == 2)
    (first,) = (p for p in cluster.of("pods") if p["metadata"]["namespace"] == "ml")
    cluster.finish(f"ml/{first['metadata']['name']}", "Succeeded")
    await run.until(lambda: not cluster.reserved("first"), "node-1")

    cluster.submit("urgent", priority=100, **GANG)

    await run.until(lambda: cluster.reserved("urgent") == ["node-1", "node-2"], limit=5)
