"""A Node is deleted under running pods, its GPUTelemetry goes with it, and both come back one after the other."""

import pytest

from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess

NODE = "node-1"
NOT_READY = {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "container runtime is down"}


def states(cluster: FakeCluster) -> list[str]:
    return [p["state"] for w in cluster.of("workloads") for p in w["status"]["placements"]]


def is_ready(workload: Json) -> str:
    return str(next(one["status"] for one in workload["status"]["conditions"] if one["type"] == "Ready"))


class Machine:
    """The only node, whose kubelet and containers run on.

    Args:
        restarts: Whether a process of the operator ends in each of its states.
    """

    def __init__(self, *, restarts: bool) -> None:
        self.cluster, self._restarts = FakeCluster(1, 4), restarts
        self.operator = OperatorProcess(self.cluster, checked=True)

    async def passes(self) -> None:
        """Other components than the garbage collector, which grants a Node that is gone 40 s, act as well."""
        if self._restarts:
            self.operator = OperatorProcess(self.cluster, checked=True)
        for _ in range(3):
            self.operator.hear(1000)
            await self.operator.act()
            self.cluster.scheduler()
            self.cluster.kubelet(NODE)
            self.cluster.agent(NODE)
            self.cluster.advance(2)
            invariants.check_always(self.cluster)

    def unregister(self) -> None:
        self.cluster.remove("nodes", NODE)
        self.cluster.remove("telemetry", NODE)

    def register(self, before: Json) -> None:
        """A kubelet that starts is not ready at first."""
        status = {**before["status"], "conditions": [NOT_READY]}
        self.cluster.store("nodes", NODE, {"metadata": {"name": NODE}, "spec": {}, "status": status})

    def start_agent(self) -> None:
        self.cluster.store("telemetry", NODE, {"metadata": {"name": NODE}, "spec": {}})

    def become_ready(self) -> None:
        self.cluster.change("nodes", NODE, conditions=[{"type": "Ready", "status": "True"}])


@pytest.mark.parametrize("agent_first", [False, True], ids=["ready first", "agent first"])
@pytest.mark.parametrize("restarts", [False, True], ids=["one process", "restarts"])
async def test_running_pods_keep_their_devices(agent_first: bool, restarts: bool) -> None:
    machine = Machine(restarts=restarts)
    cluster = machine.cluster
    cluster.submit("train", replicas=2)
    cluster.submit("shares", devices={"count": 1, "mode": "Shared", "memoryMiB": 400})
    for _ in range(2):
        await machine.passes()
    before = [(pod["metadata"]["uid"], pod["status"]["phase"]) for pod in cluster.of("pods")]
    reserved = sorted((a["podUID"], a["devices"]) for _, a in cluster.ledger())
    assert states(cluster) == ["Allocated"] * 3
    node = cluster.objects["nodes", NODE]

    machine.unregister()
    await machine.passes()
    assert {is_ready(workload) for workload in cluster.of("workloads")} == {"False"}
    assert states(cluster) == ["Allocated"] * 3
    cluster.submit("late")
    machine.register(node)
    await machine.passes()
    steps = [machine.become_ready, machine.start_agent]
    for step in reversed(steps) if agent_first else steps:
        step()
        await machine.passes()
    await invariants.settle(cluster, machine.operator)

    left = [(pod["metadata"]["uid"], pod["status"]["phase"]) for pod in cluster.of("pods")]
    assert [pod for pod in left if pod in before] == before
    after = sorted((a["podUID"], a["devices"]) for _, a in cluster.ledger())
    assert [one for one in after if one in reserved] == reserved
    assert states(cluster) == ["Allocated"] * 4
    invariants.check_always(cluster)
    invariants.check_settled(cluster)
