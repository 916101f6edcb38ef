"""A node whose kubelet rejects every pod is learned once, not by each workload."""

from collections import Counter

from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment

WORKLOADS = 6


def tried_on(cluster: FakeCluster, node: str) -> Counter[str]:
    """Returns the pods that were released to a node, by workload."""
    names = {b["metadata"]["uid"]: b["metadata"]["name"] for _, kind, b in cluster.log if kind == "pods"}
    return Counter(names[uid].rpartition("-")[0] for uid, pinned, _ in cluster.released if pinned == node)


async def rejecting(cluster: FakeCluster, operator: OperatorProcess) -> None:
    cluster.reject_admission = {"node-1"}
    for number in range(WORKLOADS):
        cluster.submit(f"w{number}", placement={"strategy": "Spread"})
        for _ in range(3):
            await moment(cluster, operator)


async def test_node_that_rejects_several_workloads_is_excluded_for_all() -> None:
    cluster = FakeCluster(2, WORKLOADS)
    operator = OperatorProcess(cluster, checked=True)

    await rejecting(cluster, operator)

    assert len(tried_on(cluster, "node-1")) == 3, "the others tried it as well"
    assert len([1 for node, _ in cluster.ledger() if node == "node-2"]) == WORKLOADS
    conditions = {c["type"]: c for c in cluster.objects["telemetry", "node-1"]["status"]["conditions"]}
    assert (conditions["Healthy"]["status"], conditions["Healthy"]["reason"]) == ("False", "PodsRejected")
    assert "pods of 3 workloads were rejected, the last one with: " in conditions["Healthy"]["message"]
    registry = operator.reconciler._metrics.registry
    assert registry.get_sample_value("gpufleet_operator_rejecting_nodes") == 1


async def test_node_is_tried_again_after_a_pause_and_forgiven() -> None:
    cluster = FakeCluster(2, WORKLOADS)
    operator = OperatorProcess(cluster, checked=True)
    await rejecting(cluster, operator)
    tried = len(cluster.released)
    cluster.reject_admission = set()
    cluster.submit("later", replicas=WORKLOADS)  # needs node-1

    for _ in range(3):
        await moment(cluster, operator)
    assert len(cluster.released) == tried, "node-2 is full"
    cluster.advance(60)
    for _ in range(5):
        await moment(cluster, operator)

    assert len(cluster.released) == tried + WORKLOADS
    conditions = {c["type"]: c for c in cluster.objects["telemetry", "node-1"]["status"]["conditions"]}
    assert conditions["Healthy"]["status"] == "True"
    assert not operator.reconciler._state.rejections.by_node
    invariants.check_always(cluster)
