"""A node that hangs, and a kubelet that has lost its checkpoint."""

from collections.abc import Iterator
from time import monotonic

import pytest

from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

EXPIRED_SECONDS = 60
"""The lease duration of 40 s, a renewal just before the freeze, and some polls."""
CHECKPOINT = "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"


@pytest.fixture
def hung(namespace: TestNamespace, fleet: Fleet) -> Iterator[str]:
    """A frozen node on which `runs` and one of two replicas of `gang` run; the operator is on the other one."""
    operator = fleet.operator_pod()["spec"]["nodeName"]
    node = next(name for name in fleet.nodes if name != operator)
    uuids = tuple(gpus.uuids[-1] for gpus in fleet.gpus.values())
    gang = gpuworkload("gang", replicas=2, placement={"gang": True}, uuids=uuids)
    namespace.apply(gpuworkload("runs", node=node), gang)
    namespace.verify("runs", "gang")
    fleet.node(node).freeze()
    yield node
    fleet.node(node).thaw()


def test_pod_on_a_hung_node_is_placed_elsewhere(namespace: TestNamespace, fleet: Fleet, hung: str) -> None:
    """Mechanism: the kubelet's lease. The Node itself is Ready for 40 s, and telemetry is used for its own limit.

    A workload that ran there is not Ready any more; its pod stays. A pod that was bound there and never had its devices
    is placed on the other node.
    """
    began = monotonic()
    before = namespace.pod("runs")["metadata"]["uid"]
    members = [pod["metadata"]["uid"] for pod in namespace.pods("gang")]
    other = next(name for name in fleet.nodes if name != hung)
    here, there = fleet.gpus[hung].uuids[1], fleet.gpus[other].uuids[0]
    weights = {"memory": 0, "utilization": 100, "temperature": 0, "power": 0}
    fleet.gpus[other].report(there, utilization_percent=60)
    eventually(lambda: _reports(fleet, other, there, 60), within=10)
    namespace.apply(gpuworkload("stuck", uuids=(here, there), placement={"weights": weights}))
    bound = eventually(lambda: _on(namespace, "stuck", hung), within=10)
    message = namespace.wait_condition("runs", "Ready", "False", "NodeNotReady", within=EXPIRED_SECONDS)
    print(f"{monotonic() - began:.0f} s after the freeze: {message}")
    assert hung in message
    assert hung in namespace.wait_condition("gang", "Ready", "False", "NodeNotReady")
    for name, ready, replicas in (("runs", "0/1", 0), ("gang", "1/2", 1)):
        status = namespace.workload(name)["status"]
        assert (status["ready"], status["readyReplicas"], status["reason"]) == (ready, replicas, "NodeNotReady")
    assert eventually(lambda: _on(namespace, "stuck", other), within=15) != bound
    namespace.wait_ready("stuck")
    assert namespace.pod("runs")["metadata"]["uid"] == before, "a pod that may run was replaced"
    fleet.node(hung).thaw()
    namespace.wait_ready("runs", within=60)
    namespace.wait_ready("gang")
    namespace.verify("runs", "stuck", "gang")
    assert namespace.pod("runs")["metadata"]["uid"] == before
    assert [pod["metadata"]["uid"] for pod in namespace.pods("gang")] == members, "a member was replaced"


def test_running_pods_survive_a_lost_checkpoint(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the kubelet lists nothing for a pod that had its devices, and no other container has one of them.

    A new pod of the same size gets its own devices: the agent sees that the other pod has processes.
    """
    node = fleet.nodes[1]
    namespace.apply(gpuworkload("runs", count=2, node=node))
    namespace.verify("runs")
    before = _containers(namespace)
    handle = fleet.node(node)
    handle.stop_kubelet()
    handle.run(["rm", CHECKPOINT])
    handle.start_kubelet()
    print(namespace.wait_condition("runs", "Allocated", "Unknown", "NotListed", within=60))
    assert _containers(namespace) == before, "the container was replaced"
    namespace.apply(gpuworkload("next", count=2, node=node))
    namespace.verify("next", within=60)
    assert _containers(namespace) == before, "the container was replaced"


def _containers(namespace: TestNamespace) -> list[tuple[str, int]]:
    statuses = namespace.pod("runs")["status"]["containerStatuses"]
    return [(str(one["containerID"]), int(one["restartCount"])) for one in statuses]


def _on(namespace: TestNamespace, name: str, node: str) -> str:
    """Returns the UID of the workload's pod, which must be bound to this node."""
    pod = namespace.pod(name)
    found = pod["spec"].get("nodeName")
    assert found == node, f"{name} is bound to {found}; {namespace.describe(name)}"
    return str(pod["metadata"]["uid"])


def _reports(fleet: Fleet, node: str, uuid: str, percent: int) -> None:
    devices = fleet.telemetry(node)["status"]["devices"]
    assert next(one["utilizationPercent"] for one in devices if one["uuid"] == uuid) == percent
