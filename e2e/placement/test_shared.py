"""Several containers share a device, each with its promised memory; whole and shared use never mix."""

import pytest

from gpufleet_e2e.proof import Holding
from gpufleet_e2e.proof.contract import MEMORY_MIB, SHARED_RESOURCE, VISIBLE_DEVICES
from gpufleet_e2e.support.api import JsonObject, events, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, plain_pod
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

PART = 20_000
"""MiB. Four of them fit into the 81,559 MiB of a device."""


def part(name: str, uuids: tuple[str, ...], memory: int = PART, **devices: int) -> JsonObject:
    """Builds a workload that shares one of these devices."""
    asked = {"mode": "Shared", "memoryMiB": memory, **devices}
    return gpuworkload(name, devices=asked, uuids=uuids, placement={"strategy": "Pack"})


def test_shared_device_is_not_given_as_a_whole(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: promised memory in the ledger, slots in the device plugin.

    Three shared requests get the device that they name; a fourth, too large for the rest, gets the other of two. A
    request for the whole device waits until nothing shares it. The three name their device because Pack may open a
    second one: after many requests for half a device, two that are half free are worth more than a full and a free one.
    """
    two = fleet.gpus[fleet.nodes[1]].uuids[:2]
    shared = two[:1]
    names = ("one", "two", "three")
    namespace.apply(*(part(name, shared, computePercent=10) for name in names))
    found = namespace.verify(*names)
    for name in names:
        (replica,) = found[name].replicas
        variables = fleet.collector.environment(namespace.name, replica.pod, "main")
        assert variables[VISIBLE_DEVICES] == variables["GPUFLEET_DEVICES"] == shared[0]
        assert (variables[MEMORY_MIB], variables["GPUFLEET_COMPUTE_PERCENT"]) == (str(PART), "10")
    assert len(_slots(fleet, shared[0])) == len(names)

    namespace.apply(gpuworkload("whole", uuids=shared))
    message = namespace.wait_condition("whole", "Placed", "False", "NoDevicesAvailable")
    assert "in use" in message, message
    namespace.apply(part("four", two, memory=30_000))
    (other,) = namespace.devices("four")
    assert other != shared[0]
    namespace.verify(*names, "four")

    namespace.delete("one", "two")
    eventually(lambda: _shared_by(fleet, shared[0], 1), within=45)
    never(lambda: _pending(namespace, "whole"), for_seconds=3)
    namespace.delete("three")
    assert namespace.devices("whole") == shared
    assert not _slots(fleet, shared[0])
    namespace.verify("whole", "four")


def test_promised_memory_is_kept_free_until_deletion(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: promised memory counts as long as its pod exists, whether it is in use or not."""
    (only,) = fleet.gpus[fleet.nodes[1]].uuids[2:3]
    namespace.apply(part("big", (only,), memory=60_000), part("small", (only,), memory=20_000))
    namespace.verify("big", "small")
    namespace.apply(part("late", (only,), memory=30_000))
    message = namespace.wait_condition("late", "Placed", "False", "NoDevicesAvailable")
    assert "free memory" in message, message
    namespace.delete("big")
    assert namespace.devices("late") == (only,)
    namespace.verify("late", "small")


def test_replicas_with_several_shared_devices_each(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a container's slots are on different devices, exactly those of its reservation."""
    three = fleet.gpus[fleet.nodes[1]].uuids[3:6]
    asked = {"count": 3, "mode": "Shared", "memoryMiB": 10_000}
    namespace.apply(gpuworkload("wide", replicas=3, devices=asked, uuids=three, placement={"gang": True}))
    replicas = namespace.verify("wide")["wide"].replicas
    assert [set(replica.picked) for replica in replicas] == [set(three)] * 3


def test_unmanaged_pods_get_share_slots_but_no_shared_device(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: only the device plugin, which checks reservations and holders of both resources."""
    node = fleet.nodes[1]
    uuids = fleet.gpus[node].uuids
    namespace.apply(part("owner", uuids[7:8]))
    namespace.verify("owner")
    here: JsonObject = {"nodeSelector": {"kubernetes.io/hostname": node}}
    slot = container(resources={"limits": {SHARED_RESOURCE: "1"}})
    fleet.api.create(pods(namespace.name), plain_pod("guest", containers=[slot], **here))
    (device,) = eventually(lambda: _holding(namespace, "guest"), within=20).devices
    assert device.partition("::")[0] == uuids[7], "it did not get the device that is shared already"
    fleet.api.create(pods(namespace.name), plain_pod("greedy", count=8, **here))
    eventually(lambda: _rejected(namespace, "greedy"), within=20)
    fleet.api.create(pods(namespace.name), plain_pod("modest", count=7, **here))
    assert set(eventually(lambda: _holding(namespace, "modest"), within=20).devices) == set(uuids[:7])
    namespace.verify("owner")


def test_burst_of_shared_and_whole_under_forced_deletion(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: as above, in parallel. No kubelet rejects a pod, because the ledger never gives a device that is held.

    Six workloads of three shared replicas each and three of whole devices run on a node of eight devices. Half of them
    are deleted, their pods by force, while others are created.
    """
    node = fleet.nodes[1]
    uuids = fleet.gpus[node].uuids
    parts, wholes = [f"part-{i}" for i in range(6)], [f"whole-{i}" for i in range(3)]
    asked = {"mode": "Shared", "memoryMiB": 15_000}

    def apply(names: list[str]) -> None:
        for name in names:
            if name.startswith("part"):
                namespace.apply(
                    gpuworkload(name, replicas=3, devices=asked, uuids=uuids, placement={"strategy": "Pack"})
                )
            else:
                namespace.apply(gpuworkload(name, uuids=uuids, placement={"strategy": "Pack"}))

    apply([*wholes, *parts])
    namespace.verify(*wholes, *parts, within=60)
    gone = [*parts[::2], wholes[0]]
    for name in gone:
        namespace.delete(name)
        for pod in namespace.all_pods(name):
            fleet.api.delete(f"{pods(namespace.name)}/{pod['metadata']['name']}", grace=0)
    fresh = ["part-6", "part-7", "part-8", "whole-3"]
    apply(fresh)
    left = [name for name in (*parts, *wholes) if name not in gone]
    namespace.verify(*left, *fresh, within=90)
    reasons = {one["reason"] for one in fleet.api.list(events(namespace.name))}
    assert not reasons & {"KubeletRejected", "DeviceMismatch", "Unschedulable"}, reasons


def _slots(fleet: Fleet, uuid: str) -> list[str]:
    return [d for one in fleet.collector.holdings() for d in one.devices if d.startswith(f"{uuid}::")]


def _shared_by(fleet: Fleet, uuid: str, number: int) -> None:
    reserved = [one["workload"] for one in fleet.assignments().values() if uuid in one["devices"]]
    assert len(reserved) == number, f"{uuid} is reserved for {reserved}"


def _pending(namespace: TestNamespace, name: str) -> None:
    if namespace.pod(name)["spec"].get("nodeName"):
        pytest.fail(f"{name} was released while its device is shared")


def _holding(namespace: TestNamespace, pod: str) -> Holding:
    found = [one for one in namespace.fleet.collector.holdings() if (one.namespace, one.pod) == (namespace.name, pod)]
    assert found, f"{pod} holds no devices"
    return found[0]


def _rejected(namespace: TestNamespace, pod: str) -> None:
    status = namespace.fleet.api.get(f"{pods(namespace.name)}/{pod}")["status"]
    assert (status["phase"], status.get("reason")) == ("Failed", "UnexpectedAdmissionError"), status
    assert "InsufficientUnreservedDevices" in status["message"], status["message"]
