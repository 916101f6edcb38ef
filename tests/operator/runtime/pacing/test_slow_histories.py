"""Random histories on an apiserver whose responses are late or lost. Lanes are often full. Time is virtual."""

import asyncio
import random
from typing import Any

import pytest

from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_operator.runtime import executor
from gpufleet_operator.runtime.executor import PATIENCE_SECONDS
from gpufleet_operator.runtime.lanes import IN_SCOPE, Lane
from gpufleet_operator.runtime.pacing.held_statuses import HOLD
from gpufleet_testing.agent.virtual_time import in_virtual_time
from gpufleet_testing.hypothesis_profiles import histories
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.faults.clusters import InterceptedCluster, Write
from gpufleet_testing.operator.process import OperatorProcess

pytestmark = pytest.mark.histories

STEPS = 40
SEEDS = sorted({*range(histories(4)), 19, 37})
"""In 19, a pod has two reservations while its release is in flight; in 37, a release shows that its pod was deleted."""
DELAYS = (0.0, 0.0, 0.1, 0.4, 2.0, 7.0, 20.0)
"""Seconds until a response; some are longer than the timeouts."""
SPECS: tuple[dict[str, Any], ...] = (
    {"replicas": 2, "placement": {"gang": True, "strategy": "Spread"}},
    {"replicas": 3},
    {"devices": {"count": 2}},
    {"replicas": 2, "devices": {"count": 1, "mode": "Shared", "memoryMiB": 400}},
    {"replicas": 3, "placement": {"gang": True}, "priority": 100},
)


class LateCluster(InterceptedCluster):
    """Each write is stored, and answered, at any time; some have no answer."""

    def __init__(self, chance: random.Random, *, dra: int) -> None:
        super().__init__(3, 2, dra=dra)
        self.chance, self.slow = chance, True

    async def intercept(self, method: str, write: Write, args: tuple[Any, ...]) -> Any:
        if not self.slow:
            return await write(*args)
        await asyncio.sleep(self.chance.choice(DELAYS))
        stored = await write(*args)
        await asyncio.sleep(self.chance.choice(DELAYS))
        if self.chance.random() < 0.1:
            raise UnavailableError("no response")
        return stored


def other_steps(cluster: LateCluster, names: list[str]) -> None:
    chance = cluster.chance
    what = chance.choice(["submit", "delete pod", "finish", "suspend", "delete", *[""] * 8])
    pods, workloads = cluster.of("pods"), cluster.of("workloads")
    if what == "submit" and len(workloads) < 5:
        names.append(f"w{len(names)}")
        cluster.submit(names[-1], **chance.choice(SPECS))
    elif what == "delete pod" and pods:
        cluster.delete_gracefully(f"ml/{chance.choice(pods)['metadata']['name']}")
    elif what == "finish" and (running := [p for p in pods if p["status"]["phase"] == "Running"]):
        cluster.finish(f"ml/{chance.choice(running)['metadata']['name']}", chance.choice(["Succeeded", "Failed"]))
    elif what == "suspend" and workloads:
        one = chance.choice(workloads)
        cluster.edit(one["metadata"]["name"], suspend=not one["spec"].get("suspend", False))
    elif what == "delete" and workloads:
        cluster.remove("workloads", f"ml/{chance.choice(workloads)['metadata']['name']}")
    cluster.scheduler()
    for node in cluster.kubelets:
        cluster.kubelet(node)
        if chance.random() < 0.7:
            cluster.agent(node)
    cluster.collector()


@in_virtual_time
async def run(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a repeatable history
    cluster = LateCluster(chance, dra=chance.choice([0, 0, 1]))
    hold = chance.choice([HOLD, HOLD * 0])
    operator = OperatorProcess(cluster, patience=PATIENCE_SECONDS, report_patience=0, hold_statuses=hold, checked=True)
    operator.reconciler._processor_seconds = lambda: 0.0  # pauses would make each run another history
    names = [f"w{number}" for number in range(len(SPECS))]
    for name, spec in zip(names, SPECS, strict=True):
        cluster.submit(name, **spec)
    loop = asyncio.get_running_loop()
    began, clock = loop.time(), cluster.now
    for _ in range(STEPS):
        operator.hear(chance.choice([0, 1, 3, 100, 1000]))
        await operator.act()
        invariants.check_always(cluster)
        other_steps(cluster, names)
        await asyncio.sleep(chance.choice([0.05, 0.3, 1, 3]))
        cluster.now = clock
        cluster.advance(loop.time() - began)
    cluster.slow = False
    await asyncio.sleep(60)
    cluster.now = clock
    cluster.advance(loop.time() - began)
    await invariants.settle(cluster, operator, rounds=60)
    invariants.check_always(cluster)
    invariants.check_settled(cluster)
    await operator.executor.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_late_responses_and_full_lanes_settle(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for lane in (Lane.RESERVE, Lane.RELEASE, Lane.CREATE, Lane.REMOVE):
        monkeypatch.setitem(IN_SCOPE, lane, 1 + (seed + len(lane)) % 2)
    monkeypatch.setattr(executor, "MAX_RELEASES", 3)
    run(seed)
