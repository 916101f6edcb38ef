"""A device of a running container falls off the bus."""

from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import Room


def test_replace_places_the_pod_anew_and_ignore_leaves_it(room: Room, fleet: Fleet) -> None:
    """Mechanism: `placement.onDegraded`, decided by the agent's word on the device's health.

    Two workloads lose a device each. One is placed anew on healthy devices, the other one runs on; both say Degraded.
    """
    node = fleet.nodes[1]
    room.apply(
        gpuworkload("moves", count=2, node=node, placement={"onDegraded": "Replace"}),
        gpuworkload("stays", count=2, node=node),
    )
    before = {name: found.replicas[0] for name, found in room.proven("moves", "stays").items()}
    for replica in before.values():
        fleet.gpus[node].lose(replica.picked[0])
    for name in before:
        words = room.wait_condition(name, "Degraded", "True", "DeviceUnhealthy", within=20)
        assert before[name].picked[0] in words, words
    eventually(lambda: _replaced(room, before["moves"].pod_uid), within=40)
    (after,) = room.proven("moves")["moves"].replicas
    assert before["moves"].picked[0] not in after.picked
    assert before["stays"].picked[0] not in after.picked
    assert before["moves"].picked[0] in room.event("moves", "DeviceUnhealthy")
    never(lambda: _untouched(room, before["stays"].pod_uid), for_seconds=3)


def _replaced(room: Room, uid: str) -> None:
    assert room.pod("moves")["metadata"]["uid"] != uid, "not replaced yet"


def _untouched(room: Room, uid: str) -> None:
    assert room.pod("stays")["metadata"]["uid"] == uid
