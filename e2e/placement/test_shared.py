"""Several containers on one device, each with its promised part; whole and shared use never mix."""

import pytest

from gpufleet_e2e.proof import Holding
from gpufleet_e2e.proof.contract import MEMORY_MIB, SHARED_RESOURCE, VISIBLE_DEVICES
from gpufleet_e2e.support.api import JsonObject, events, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, plain_pod
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import Room

PART = 20_000
"""MiB. Four of them fit into a device, of which 81,559 MiB is there."""


def part(name: str, uuids: tuple[str, ...], memory: int = PART, **devices: int) -> JsonObject:
    """A workload that takes so much of one of these devices, of one that is shared already if it can."""
    asked = {"mode": "Shared", "memoryMiB": memory, **devices}
    return gpuworkload(name, devices=asked, uuids=uuids, placement={"strategy": "Pack"})


def test_three_share_a_device_and_nobody_gets_it_as_a_whole(room: Room, fleet: Fleet) -> None:
    """Mechanism: promises in the ledger, slots in the device plugin.

    Three parts come together on one of two devices; a fourth, too large for what is left, goes to the other one. One
    that wants a device as a whole waits until all sharers of it are gone.
    """
    two = fleet.gpus[fleet.nodes[1]].uuids[:2]
    names = ("one", "two", "three")
    room.apply(*(part(name, two, computePercent=10) for name in names))
    found = room.proven(*names)
    (shared,) = {replica.picked for name in names for replica in found[name].replicas}
    assert len(shared) == 1, shared
    for name in names:
        (replica,) = found[name].replicas
        variables = fleet.witness.environment(room.namespace, replica.pod, "main")
        assert variables[VISIBLE_DEVICES] == variables["GPUFLEET_DEVICES"] == shared[0]
        assert (variables[MEMORY_MIB], variables["GPUFLEET_COMPUTE_PERCENT"]) == (str(PART), "10")
    assert len(_slots(fleet, shared[0])) == len(names)

    room.apply(gpuworkload("whole", uuids=shared))
    words = room.wait_condition("whole", "Placed", "False", "NoDevices")
    assert "in use" in words, words
    room.apply(part("four", two, memory=30_000))
    (other,) = room.devices("four")
    assert other != shared[0]
    room.proven(*names, "four")

    room.delete("one", "two")
    eventually(lambda: _shared_by(fleet, shared[0], 1), within=45)
    never(lambda: _pending(room, "whole"), for_seconds=3)
    room.delete("three")
    assert room.devices("whole") == shared
    assert not _slots(fleet, shared[0])
    room.proven("whole", "four")


def test_what_is_promised_is_kept_free_and_given_on_afterwards(room: Room, fleet: Fleet) -> None:
    """Mechanism: a promise counts for as long as its pod lives, whether the memory is in use or not."""
    (only,) = fleet.gpus[fleet.nodes[1]].uuids[2:3]
    room.apply(part("big", (only,), memory=60_000), part("small", (only,), memory=20_000))
    room.proven("big", "small")
    room.apply(part("late", (only,), memory=30_000))
    words = room.wait_condition("late", "Placed", "False", "NoDevices")
    assert "free memory" in words, words
    room.delete("big")
    assert room.devices("late") == (only,)
    room.proven("late", "small")


def test_several_replicas_of_several_devices_each(room: Room, fleet: Fleet) -> None:
    """Mechanism: a container's slots lie on different devices, exactly those of its reservation."""
    three = fleet.gpus[fleet.nodes[1]].uuids[3:6]
    asked = {"count": 3, "mode": "Shared", "memoryMiB": 10_000}
    room.apply(gpuworkload("wide", replicas=3, devices=asked, uuids=three, placement={"gang": True}))
    replicas = room.proven("wide")["wide"].replicas
    assert [set(replica.picked) for replica in replicas] == [set(three)] * 3


def test_pods_of_nobody_get_slots_of_shared_devices_and_no_shared_device_as_a_whole(room: Room, fleet: Fleet) -> None:
    """Mechanism: the device plugin alone, which looks at reservations and holders of both resources."""
    node = fleet.nodes[1]
    uuids = fleet.gpus[node].uuids
    room.apply(part("owner", uuids[7:8]))
    room.proven("owner")
    here: JsonObject = {"nodeSelector": {"kubernetes.io/hostname": node}}
    slot = container(resources={"limits": {SHARED_RESOURCE: "1"}})
    fleet.api.create(pods(room.namespace), plain_pod("guest", containers=[slot], **here))
    (device,) = eventually(lambda: _holding(room, "guest"), within=20).devices
    assert device.partition("::")[0] == uuids[7], "it prefers a device that is shared already"
    fleet.api.create(pods(room.namespace), plain_pod("greedy", count=8, **here))
    eventually(lambda: _refused(room, "greedy"), within=20)
    fleet.api.create(pods(room.namespace), plain_pod("modest", count=7, **here))
    assert set(eventually(lambda: _holding(room, "modest"), within=20).devices) == set(uuids[:7])
    room.proven("owner")


def test_a_burst_of_both_uses_under_forced_deletion(room: Room, fleet: Fleet) -> None:
    """Mechanism: as above, all at once. Nobody is refused by a kubelet, for the ledger never gives what is still held.

    Six workloads of three parts and three of whole devices on one node of eight; half of them lose their pods by force,
    with no time to end, and go while others take their place.
    """
    node = fleet.nodes[1]
    uuids = fleet.gpus[node].uuids
    parts, wholes = [f"part-{i}" for i in range(6)], [f"whole-{i}" for i in range(3)]
    asked = {"mode": "Shared", "memoryMiB": 15_000}

    def apply(names: list[str]) -> None:
        for name in names:
            if name.startswith("part"):
                room.apply(gpuworkload(name, replicas=3, devices=asked, uuids=uuids, placement={"strategy": "Pack"}))
            else:
                room.apply(gpuworkload(name, uuids=uuids, placement={"strategy": "Pack"}))

    apply([*wholes, *parts])
    room.proven(*wholes, *parts, within=60)
    gone = [*parts[::2], wholes[0]]
    for name in gone:
        room.delete(name)
        for pod in room.every_pod(name):
            fleet.api.delete(f"{pods(room.namespace)}/{pod['metadata']['name']}", grace=0)
    fresh = ["part-6", "part-7", "part-8", "whole-3"]
    apply(fresh)
    left = [name for name in (*parts, *wholes) if name not in gone]
    room.proven(*left, *fresh, within=90)
    reasons = {one["reason"] for one in fleet.api.list(events(room.namespace))}
    assert not reasons & {"KubeletRefused", "DeviceMismatch", "SchedulerRefused"}, reasons


def _slots(fleet: Fleet, uuid: str) -> list[str]:
    return [d for one in fleet.witness.holdings() for d in one.devices if d.startswith(f"{uuid}::")]


def _shared_by(fleet: Fleet, uuid: str, number: int) -> None:
    reserved = [one["workload"] for one in fleet.assignments().values() if uuid in one["devices"]]
    assert len(reserved) == number, f"{uuid} is reserved for {reserved}"


def _pending(room: Room, name: str) -> None:
    if room.pod(name)["spec"].get("nodeName"):
        pytest.fail(f"{name} was let go while its device is shared")


def _holding(room: Room, pod: str) -> Holding:
    found = [one for one in room.fleet.witness.holdings() if (one.namespace, one.pod) == (room.namespace, pod)]
    assert found, f"{pod} holds nothing"
    return found[0]


def _refused(room: Room, pod: str) -> None:
    status = room.fleet.api.get(f"{pods(room.namespace)}/{pod}")["status"]
    assert (status["phase"], status.get("reason")) == ("Failed", "UnexpectedAdmissionError"), status
    assert "InsufficientUnreservedDevices" in status["message"], status["message"]
