"""Pods of other owners: steps in any order, with crashes anywhere. Each decision is compared with one from scratch.

The sequences are random but fixed by their seed.
"""

from random import Random

import pytest

from gpufleet_api.names import API_VERSION, Transport
from gpufleet_testing.hypothesis_profiles import histories
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Crash, WriteFault
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.faults.lagging import LaggingOperator
from gpufleet_testing.operator.owners import FakeOwner

pytestmark = pytest.mark.histories

SEEDS = range(histories(3))
STEPS = 120
PAUSE_SECONDS = 700
"""More than `Limits.max_retry_pause`."""

_STEPS = ["operator"] * 5 + ["owners", "scheduler", "kubelet"] * 3 + ["crash", "lose", "pod", "node"]


class World:
    """A cluster with a Job, a Deployment and a StatefulSet, and the operator, which may crash."""

    def __init__(self, seed: int, transport: Transport) -> None:
        self.random = Random(seed)  # noqa: S311 - a seeded sequence, not a secret
        self.cluster = FakeCluster(2, 3, dra=2 if transport is Transport.DRA else 0)
        self.operator = LaggingOperator(self.cluster, self.random, checked=True)
        self.owners = {
            name: FakeOwner(self.cluster, kind, name, 2, workload=name, transport=transport)
            for name, kind in (("job", "Job"), ("web", "ReplicaSet"), ("db", "StatefulSet"))
        }
        self.costs = 0
        """Pods of the Job that ended for other reasons than the operator."""
        self.adopt("job", replicas=2, placement={"gang": True})
        self.adopt("web")
        self.adopt("db")

    def adopt(self, name: str, **spec: object) -> None:
        body = {"apiVersion": API_VERSION, "metadata": {"name": name, "namespace": "ml"}, "spec": spec}
        self.cluster.store("workloads", f"ml/{name}", body)

    async def step(self) -> None:
        cluster, random = self.cluster, self.random
        what = random.choice(_STEPS)
        if what == "operator":
            self.operator.hear_some()
            await self.operator.act()
        elif what == "owners":
            for owner in self.owners.values():
                owner.step()
        elif what == "scheduler":
            cluster.scheduler()
        elif what == "kubelet":
            for node in cluster.kubelets:
                cluster.kubelet(node)
                cluster.agent(node)
            cluster.collector()
        elif what == "crash":
            await self._crash()
        elif what == "lose":
            self.operator.relist()
        elif what == "pod":
            self._end_a_pod()
        else:
            cluster.reject_binding = random.choice([set(), {"node-1"}, {"node-2"}])
        cluster.advance(random.choice([0, 1, 6]))

    async def _crash(self) -> None:
        self.operator.hear_some()
        self.cluster.fault = WriteFault(self.random.randrange(6), Crash, after=self.random.random() < 0.5)
        try:
            await self.operator.act()
        except Crash:
            self.operator = LaggingOperator(self.cluster, self.random, checked=True)
        self.cluster.fault = None

    def _end_a_pod(self) -> None:
        pods = self.cluster.of("pods")
        if not pods:
            return
        pod = self.random.choice(pods)
        key = f"ml/{pod['metadata']['name']}"
        self.costs += pod["metadata"]["ownerReferences"][0]["kind"] == "Job"
        if self.random.random() < 0.5:
            self.cluster.delete_gracefully(key)
        elif pod["status"]["phase"] == "Running":
            self.cluster.finish(key, "Failed")

    async def settle(self) -> None:
        """Every component takes its steps, until the longest pause after rejections is over."""
        for round_number in range(6):
            self.cluster.advance(PAUSE_SECONDS if round_number == 2 else 0)
            for owner in self.owners.values():
                owner.step()
            await invariants.settle(self.cluster, self.operator, rounds=4)


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("seed", SEEDS)
async def test_any_order_leads_to_placed_pods_and_costs_no_job(seed: int, transport: Transport) -> None:
    world = World(seed, transport)
    for _ in range(STEPS):
        await world.step()
        invariants.check_always(world.cluster)

    await world.settle()

    invariants.check_always(world.cluster)
    for workload in world.cluster.of("workloads"):
        states = [p["state"] for p in workload["status"]["placements"]]
        assert states == ["Allocated"] * 2, (workload["metadata"]["name"], states)
    assert world.owners["job"].failed <= world.costs
    held = sorted(uid for table in world.cluster.kubelets.values() for uid in table.values())
    assert sorted(a["podUID"] for _, a in world.cluster.ledger()) == held
