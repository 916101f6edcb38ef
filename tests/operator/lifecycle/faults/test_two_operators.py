"""Two operators that both decide, each with watches that lag for each kind by themselves: devices stay exclusive (I1).

The election prevents it, but for a write that was on its way when its process was frozen.
"""

import asyncio
import random
from typing import Any

import pytest

from gpufleet_testing.hypothesis_profiles import histories
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.faults.clusters import InterceptedCluster, Write
from gpufleet_testing.operator.faults.lagging import LaggingOperator

pytestmark = pytest.mark.histories

STEPS = 20
SEEDS = sorted({*range(histories(4)), 44, 70})
"""In 44 and 70, one operator withdraws a reservation while the other one is about to release its pod."""
SPECS: list[dict[str, Any]] = [
    {"replicas": 2, "placement": {"gang": True, "strategy": "Spread"}},
    {"replicas": 3},
    {"devices": {"count": 2}},
    {"replicas": 2, "devices": {"count": 1, "mode": "Shared", "memoryMiB": 400}},
]


class InterleavedCluster(InterceptedCluster):
    """Lets the other operator go on before each write."""

    def __init__(self, seed: int) -> None:
        super().__init__(2, 3)
        self.random = random.Random(seed)  # noqa: S311 - a repeatable history

    async def intercept(self, method: str, write: Write, args: tuple[Any, ...]) -> Any:
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)
        return await super().intercept(method, write, args)


async def both_act(operators: tuple[LaggingOperator, LaggingOperator]) -> None:
    for operator in operators:
        operator.hear_some()
    await asyncio.gather(*(operator.act() for operator in operators))


async def other_steps(cluster: InterleavedCluster, number: int, *, deletions: float = 0.2) -> None:
    chance = cluster.random
    if number < len(SPECS):
        cluster.submit(f"w{number}", **SPECS[number])
    elif chance.random() < deletions and (pods := cluster.of("pods")):
        cluster.delete_gracefully(f"ml/{chance.choice(pods)['metadata']['name']}")
    cluster.scheduler()
    for node in cluster.kubelets:
        cluster.kubelet(node)
        if chance.random() < 0.7:
            cluster.agent(node)
    cluster.collector()
    cluster.advance(chance.choice([0.2, 1, 3]))


@pytest.mark.parametrize("seed", SEEDS)
async def test_devices_stay_exclusive_and_the_survivor_settles(seed: int) -> None:
    cluster = InterleavedCluster(seed)
    operators = LaggingOperator(cluster, cluster.random), LaggingOperator(cluster, cluster.random)
    for number in range(STEPS):
        await both_act(operators)
        invariants.check_always(cluster)
        await other_steps(cluster, number)
    survivor = operators[cluster.random.randrange(2)]
    await invariants.settle(cluster, survivor, rounds=40)
    invariants.check_always(cluster)
    invariants.check_settled(cluster)


@pytest.mark.parametrize("seed", SEEDS)
async def test_takeover_with_new_lists_deletes_no_running_pod(seed: int) -> None:
    """As the standby takes over: the leader has stopped, and the caches of the standby lag, so that it lists first."""
    cluster = InterleavedCluster(seed)
    leader, standby = LaggingOperator(cluster, cluster.random), LaggingOperator(cluster, cluster.random)
    for number in range(12):
        for operator in (leader, standby):
            operator.hear_some()
        await leader.act()
        await other_steps(cluster, number, deletions=0)
    running = {p["metadata"]["uid"] for p in cluster.of("pods") if is_running(p)}
    standby.relist()
    for _ in range(3):
        await standby.act()
    left = {p["metadata"]["uid"] for p in cluster.of("pods") if is_running(p)}
    assert running <= left, "the new leader deleted a running pod"
    invariants.check_always(cluster)


def is_running(pod: dict[str, Any]) -> bool:
    return pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
