"""Pods that end, lose their owner or lose their label before the operator has seen their last state."""

from gpufleet_testing.operator.apiserver import Crash, WriteFault
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment


def pods_made(cluster: FakeCluster) -> int:
    return len({b["metadata"]["uid"] for event, kind, b in cluster.log if kind == "pods" and event == "ADDED"})


async def running(cluster: FakeCluster, **spec: object) -> OperatorProcess:
    cluster.submit("train", **spec)
    operator = OperatorProcess(cluster)
    for _ in range(4):
        await moment(cluster, operator)
    (pod,) = cluster.of("pods")
    assert pod["status"]["phase"] == "Running"
    return operator


async def test_replica_that_succeeded_and_went_at_once_is_not_run_again() -> None:
    """Both happen between two passes: the last state of the deleted pod says how it ended."""
    cluster = FakeCluster(1, 1)
    operator = await running(cluster, restart_policy="OnFailure")
    (pod,) = cluster.of("pods")
    key = f"ml/{pod['metadata']['name']}"

    cluster.finish(key, "Succeeded")
    cluster.remove("pods", key)
    for _ in range(4):
        await moment(cluster, operator)

    assert pods_made(cluster) == 1, "it ran twice"
    conditions = {c["type"]: c["status"] for c in cluster.objects["workloads", "ml/train"]["status"]["conditions"]}
    assert conditions["Complete"] == "True"


async def test_gated_pod_that_lost_its_owner_gives_its_devices_back() -> None:
    """Between reservation and release: `kubectl delete --cascade=orphan`, or a hand."""
    cluster = FakeCluster(1, 1)
    cluster.submit("train")
    operator = OperatorProcess(cluster)
    while not list(cluster.ledger()):
        operator.hear(100)
        cluster.fault = WriteFault(0, Crash, after=True)  # the reservation is stored, the pod is not released
        try:
            await operator.act()
        except Crash:
            operator = OperatorProcess(cluster)
        cluster.fault = None
    (pod,) = cluster.of("pods")
    assert pod["spec"]["schedulingGates"]
    orphan = {**pod, "metadata": {**pod["metadata"], "ownerReferences": []}}
    cluster.store("pods", f"ml/{pod['metadata']['name']}", orphan)
    cluster.remove("workloads", "ml/train")

    operator = OperatorProcess(cluster, checked=True)
    for _ in range(3):
        await moment(cluster, operator)

    assert not list(cluster.ledger()), "devices are kept for a pod that is never released"
    cluster.submit("next")
    for _ in range(3):
        await moment(cluster, operator)
    assert len(cluster.released) == 1


async def test_label_taken_off_an_unbound_pod_keeps_the_reservation() -> None:
    """The pod is pinned and starts on that node."""
    cluster = FakeCluster(1, 1)
    cluster.submit("train")
    operator = OperatorProcess(cluster)
    while not cluster.released:
        operator.hear(100)
        await operator.act()
    (pod,) = cluster.of("pods")
    key = f"ml/{pod['metadata']['name']}"
    labels = {k: v for k, v in pod["metadata"]["labels"].items() if k != "gpufleet.dev/workload"}
    meta = {**pod["metadata"], "labels": labels}
    cluster.version += 1
    bare = {**pod, "metadata": {**meta, "resourceVersion": str(cluster.version)}}
    cluster.objects["pods", key] = bare
    cluster.log.append(("DELETED", "pods", bare))  # as the watch with a selector sends it

    for _ in range(3):
        operator.hear(100)
        await operator.act()
        cluster.agent("node-1")
        cluster.advance(1)

    reserved = [a["podUID"] for _, a in cluster.ledger()]
    assert pod["metadata"]["uid"] in reserved, "its devices are given to others while it may start"
