"""Gangs are placed whole or not at all, and items are divided without gap or overlap."""

from collections.abc import Mapping

from gpufleet_e2e.faults.fault_injection import reservations_denied
from gpufleet_e2e.proof import compare_shards
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import SHARD, container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace


def test_gang_that_does_not_fit_reserves_nothing(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a gang is picked as a whole. One of its two replicas would fit, and nothing is reserved for it.

    Without `gang`, the same request would hold the devices of the replica that fits.
    """
    namespace.apply(gpuworkload("gang", replicas=2, count=12, placement={"gang": True}))
    message = namespace.wait_condition("gang", "Placed", "False", "NoDevicesAvailable")
    print(message)
    assert "1 of 2 replicas would fit" in message
    never(lambda: _holds_nothing(namespace), for_seconds=4)
    # Other workloads get what the gang does not hold.
    namespace.apply(gpuworkload("other", count=16, node=fleet.nodes[0]))
    namespace.verify("other")
    assert all(pod["spec"].get("schedulingGates") for pod in namespace.pods("gang"))


def test_gang_on_two_nodes(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: reservations on all nodes before the first pod is released. Placed once the obstacle is gone."""
    namespace.apply(gpuworkload("obstacle", node=fleet.nodes[1]))
    namespace.verify("obstacle")
    namespace.apply(gpuworkload("gang", replicas=3, count=8, placement={"gang": True}))
    namespace.wait_condition("gang", "Placed", "False", "NoDevicesAvailable")
    namespace.delete("obstacle")
    replicas = namespace.verify("gang")["gang"].replicas
    assert sorted(replica.node for replica in replicas) == sorted([fleet.nodes[0]] * 2 + [fleet.nodes[1]])


def test_gang_denied_on_one_node_releases_the_other(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a gang's reservations are released when the rest of them cannot be written.

    A policy of the test rejects the gang's reservation on one node. Its reservation on the other node, written in the
    same pass, is released: another workload gets that node. In the end both are placed.
    """
    first, second = fleet.nodes
    with reservations_denied(fleet.api, second, namespace.name):
        namespace.apply(gpuworkload("gang", replicas=3, count=8, placement={"gang": True}))
        namespace.wait_condition("gang", "Placed", "False", "NoDevicesAvailable")
        eventually(lambda: _holds_nothing(namespace), within=30)
        assert all(pod["spec"].get("schedulingGates") for pod in namespace.pods("gang"))
        namespace.apply(gpuworkload("other", count=16, node=first))
        namespace.verify("other", within=60)
        assert all(pod["spec"].get("schedulingGates") for pod in namespace.pods("gang")), (
            "part of the gang was released"
        )
    namespace.delete("other")
    namespace.verify("gang", within=90)


def test_distribution_by_free_memory(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: shards are computed from all replicas' devices and passed to the container by Allocate.

    The ranges tile the items exactly, the container's environment and log agree with the status, and more free memory
    means a larger shard.
    """
    node = fleet.nodes[1]
    uuids = fleet.gpus[node].uuids[:3]
    used = dict(zip(uuids, (0, 20_000, 60_000), strict=True))
    for uuid, mib in used.items():
        fleet.gpus[node].report(uuid, memory_used_mib=mib)
    # All of them: a status may be written after the reading of one device and before that of another.
    eventually(lambda: _used(fleet, node, used), within=30)
    namespace.apply(
        gpuworkload(
            "shares",
            replicas=3,
            uuids=uuids,
            placement={"gang": True},
            distribution={"items": 1_000_003, "mode": "Proportional", "by": "FreeMemory"},
            template=pod_spec(container(command=SHARD)),
        )
    )
    evidence = namespace.verify("shares")["shares"]
    assert compare_shards(evidence) == ()
    sizes = {}
    for replica in evidence.replicas:
        assert replica.shard.status is not None
        start, end = replica.shard.status
        sizes[replica.picked[0]] = end - start
    print(sizes)
    assert sum(sizes.values()) == 1_000_003
    assert sizes[uuids[0]] > sizes[uuids[1]] > sizes[uuids[2]] > 0


def _holds_nothing(namespace: TestNamespace) -> None:
    held = namespace.fleet.assignments(namespace.name)
    assert not held, f"a gang that does not fit holds {held}"


def _used(fleet: Fleet, node: str, expected: Mapping[str, int]) -> None:
    devices = {one["uuid"]: one for one in fleet.telemetry(node)["status"]["devices"]}
    for uuid, mib in expected.items():
        used = devices[uuid]["memoryUsedMiB"]
        assert used >= mib, f"{uuid} is reported with {used} MiB"
