"""A node that hangs, and a kubelet that has lost its checkpoint."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from time import monotonic

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import JsonObject, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

EXPIRED_SECONDS = 60
"""The lease duration of 40 s, a renewal just before the freeze, and some polls."""
LATER_SECONDS = 25
"""A renewal is late after 15 s. The operator polls, so it sees the last one up to 3 s late, and the missing one too;
later on a busy machine. The lease is valid for 40 s."""
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CHECKPOINT = "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"


@pytest.fixture
def hung(namespace: TestNamespace, fleet: Fleet) -> Iterator[str]:
    """A frozen node on which `runs`, `batch` and one of two replicas of `gang` run; the operator is on the other one.

    A next pod of `batch` may run on any node.
    """
    operator = fleet.operator_pod()["spec"]["nodeName"]
    node = next(name for name in fleet.nodes if name != operator)
    uuids = tuple(gpus.uuids[-1] for gpus in fleet.gpus.values())
    gang = gpuworkload("gang", replicas=2, placement={"gang": True}, uuids=uuids)
    mine = fleet.gpus[node].uuids
    namespace.apply(gpuworkload("runs", uuids=mine[:1]), gang, _batch(mine[1]))
    namespace.verify("runs", "gang", "batch")
    anywhere = {"spec": {"requirements": {"includeUUIDs": None}}}
    fleet.api.patch(f"{workloads(namespace.name)}/batch", anywhere)
    fleet.node(node).freeze()
    yield node
    fleet.node(node).thaw()


def _batch(uuid: str) -> JsonObject:
    """Builds a workload that leaves its node when the cluster considers it lost. It may not fail once."""
    gone = {
        "key": "node.kubernetes.io/unreachable",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 0,
    }
    main = container(command=("sh", "-c", "exec sleep 1000000"))
    template = pod_spec(main, restartPolicy="Never", tolerations=[gone])
    return gpuworkload("batch", uuids=(uuid,), template=template, runPolicy={"backoffLimit": 0})


def test_pod_on_a_hung_node_is_placed_elsewhere(namespace: TestNamespace, fleet: Fleet, hung: str) -> None:
    """Mechanism: the kubelet's lease. The Node itself is Ready for 40 s, and telemetry is used for its own limit.

    A workload that ran there is not Ready any more; its pod stays, unless its tolerations say otherwise. A pod that was
    bound there and never had its devices is placed on the other node, and so is a workload that comes 25 s later. That
    the node is lost is no failure of an application.
    """
    began = monotonic()
    before = namespace.pod("runs")["metadata"]["uid"]
    members = [pod["metadata"]["uid"] for pod in namespace.pods("gang")]
    other = next(name for name in fleet.nodes if name != hung)
    pairs = list(zip(fleet.gpus[hung].uuids[2:4], fleet.gpus[other].uuids[:2], strict=True))
    weights = {"memory": 0, "utilization": 100, "temperature": 0, "power": 0}
    for _, there in pairs:
        fleet.gpus[other].report(there, utilization_percent=60)
    for _, there in pairs:
        eventually(partial(fleet.check_readings, other, there, utilization_percent=60), within=30)
    namespace.apply(gpuworkload("stuck", uuids=pairs[0], placement={"weights": weights}))
    bound = eventually(lambda: _on(namespace, "stuck", hung), within=30)
    eventually(lambda: _is_silent(fleet, hung, LATER_SECONDS), within=LATER_SECONDS + 5)
    namespace.apply(gpuworkload("later", uuids=pairs[1], placement={"weights": weights}))
    eventually(lambda: _on(namespace, "later", other), within=30)
    message = namespace.wait_condition("runs", "Ready", "False", "NodeNotReady", within=EXPIRED_SECONDS)
    print(f"{monotonic() - began:.0f} s after the freeze: {message}")
    assert hung in message
    assert hung in namespace.wait_condition("gang", "Ready", "False", "NodeNotReady")
    for name, ready, replicas in (("runs", "0/1", 0), ("gang", "1/2", 1)):
        status = namespace.workload(name)["status"]
        assert (status["ready"], status["readyReplicas"], status["reason"]) == (ready, replicas, "NodeNotReady")
    assert eventually(lambda: _on(namespace, "stuck", other), within=15) != bound
    eventually(lambda: _on(namespace, "batch", other), within=30)
    namespace.wait_ready("stuck", "later", "batch")
    assert namespace.pod("runs")["metadata"]["uid"] == before, "a pod that may run was replaced"
    fleet.node(hung).thaw()
    namespace.wait_ready("runs", within=60)
    namespace.wait_ready("gang")
    namespace.verify("runs", "stuck", "later", "batch", "gang")
    eventually(lambda: _has_one_pod(namespace, "batch"), within=20)
    batch = namespace.workload("batch")
    assert batch["status"]["failed"] == 0, namespace.describe("batch")
    assert not objects.is_true(batch, "Failed"), namespace.describe("batch")
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


def _is_silent(fleet: Fleet, node: str, seconds: float) -> None:
    """Checks that the kubelet has not renewed its lease for this long."""
    renewed = datetime.fromisoformat(fleet.api.get(f"{LEASES}/{node}")["spec"]["renewTime"])
    age = (datetime.now(UTC) - renewed).total_seconds()
    assert age >= seconds, f"the lease was renewed {age:.0f} s ago"


def _has_one_pod(namespace: TestNamespace, name: str) -> None:
    found = namespace.all_pods(name)
    assert len(found) == 1, f"{len(found)} pods of {name}"
