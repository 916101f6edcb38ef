"""All replicas or none, and items divided without gap or overlap."""

from collections.abc import Mapping

from gpufleet_e2e.proof import compare_shards
from gpufleet_e2e.support.fault_injection import unwritable
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import SHARD, container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import Room


def test_a_gang_that_does_not_fit_reserves_nothing(room: Room, fleet: Fleet) -> None:
    """Mechanism: a gang is picked as a whole. One of its two replicas would fit, and nothing is reserved for it.

    Without `gang`, the same request holds what fits, and keeps others from it.
    """
    room.apply(gpuworkload("gang", replicas=2, count=12, placement={"gang": True}))
    message = room.wait_condition("gang", "Placed", "False", "NoDevices")
    print(message)
    assert "1 of 2 replicas would fit" in message
    never(lambda: _holds_nothing(room), for_seconds=4)
    # What the gang does not hold is there for others.
    room.apply(gpuworkload("other", count=16, node=fleet.nodes[0]))
    room.proven("other")
    assert all(pod["spec"].get("schedulingGates") for pod in room.pods("gang"))


def test_a_gang_over_two_nodes(room: Room, fleet: Fleet) -> None:
    """Mechanism: reservations on all nodes before the first pod is let go. Placed whole once the obstacle is gone."""
    room.apply(gpuworkload("obstacle", node=fleet.nodes[1]))
    room.proven("obstacle")
    room.apply(gpuworkload("gang", replicas=3, count=8, placement={"gang": True}))
    room.wait_condition("gang", "Placed", "False", "NoDevices")
    room.delete("obstacle")
    replicas = room.proven("gang")["gang"].replicas
    assert sorted(replica.node for replica in replicas) == sorted([fleet.nodes[0]] * 2 + [fleet.nodes[1]])


def test_a_gang_that_can_not_be_reserved_on_one_node_lets_go_of_the_other(room: Room, fleet: Fleet) -> None:
    """Mechanism: what was written for a gang is taken back when the rest of it can't be.

    A policy of the test refuses the gang's reservation on one node. Its reservation on the other node, written in the
    same pass, does not stay: somebody else gets that node. In the end both have what they asked for.
    """
    first, second = fleet.nodes
    with unwritable(fleet.api, second, room.namespace):
        room.apply(gpuworkload("gang", replicas=3, count=8, placement={"gang": True}))
        room.wait_condition("gang", "Placed", "False", "NoDevices")
        eventually(lambda: _holds_nothing(room), within=5)
        assert all(pod["spec"].get("schedulingGates") for pod in room.pods("gang"))
        room.apply(gpuworkload("other", count=16, node=first))
        room.proven("other", within=60)
        assert all(pod["spec"].get("schedulingGates") for pod in room.pods("gang")), "part of the gang was let go"
    room.delete("other")
    room.proven("gang", within=90)


def test_distribution_by_free_memory(room: Room, fleet: Fleet) -> None:
    """Mechanism: shares are computed from all replicas' devices and told by Allocate.

    The ranges tile the items exactly, the container's environment and what it printed agree with the status, and more
    free memory means a larger share.
    """
    node = fleet.nodes[1]
    uuids = fleet.gpus[node].uuids[:3]
    used = dict(zip(uuids, (0, 20_000, 60_000), strict=True))
    for uuid, mib in used.items():
        fleet.gpus[node].report(uuid, memory_used_mib=mib)
    # All of them: a status may be written between the reading of one and that of another.
    eventually(lambda: _used(fleet, node, used), within=10)
    room.apply(
        gpuworkload(
            "shares",
            replicas=3,
            uuids=uuids,
            placement={"gang": True},
            distribution={"items": 1_000_003, "mode": "Proportional", "by": "FreeMemory"},
            template=pod_spec(container(command=SHARD)),
        )
    )
    evidence = room.proven("shares")["shares"]
    assert compare_shards(evidence) == ()
    sizes = {}
    for replica in evidence.replicas:
        assert replica.shard.status is not None
        start, end = replica.shard.status
        sizes[replica.picked[0]] = end - start
    print(sizes)
    assert sum(sizes.values()) == 1_000_003
    assert sizes[uuids[0]] > sizes[uuids[1]] > sizes[uuids[2]] > 0


def _holds_nothing(room: Room) -> None:
    held = room.fleet.assignments(room.namespace)
    assert not held, f"a gang that doesn't fit holds {held}"


def _used(fleet: Fleet, node: str, expected: Mapping[str, int]) -> None:
    devices = {one["uuid"]: one for one in fleet.telemetry(node)["status"]["devices"]}
    for uuid, mib in expected.items():
        said = devices[uuid]["memoryUsedMiB"]
        assert said >= mib, f"{uuid} is reported with {said} MiB"
