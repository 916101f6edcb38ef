"""Devices come back: on deletion, on suspension, and when a pod ends by itself."""

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room


def test_deletion_frees_the_devices(room: Room, fleet: Fleet) -> None:
    """Mechanism: garbage collection takes the pods, the ledger's entry goes once the node has let go."""
    node = fleet.nodes[1]
    room.apply(gpuworkload("first", count=8, node=node))
    first = room.devices("first")
    room.apply(gpuworkload("second", count=8, node=node))
    room.wait_condition("second", "Placed", "False", "NoDevices")
    room.delete("first")
    second = room.proven("second")["second"].replicas[0].picked
    assert second == first == tuple(sorted(fleet.gpus[node].uuids))


def test_suspend_and_resume(room: Room, fleet: Fleet) -> None:
    """Mechanism: `suspend` deletes the pods and frees the devices; false again makes new pods with new reservations."""
    room.apply(gpuworkload("train", replicas=2, count=2))
    before = {replica.pod_uid for replica in room.proven("train")["train"].replicas}
    path = f"{workloads(room.namespace)}/train"
    fleet.api.patch(path, {"spec": {"suspend": True}})
    eventually(lambda: _nothing(room, fleet), within=30)
    room.wait_condition("train", "Placed", "False", "Suspended")
    assert objects.condition(room.workload("train"), "Ready")["status"] == "False"
    # Somebody else has the fleet to himself meanwhile.
    room.apply(gpuworkload("other", replicas=2, count=8))
    room.proven("other")
    fleet.api.patch(path, {"spec": {"suspend": False}})
    after = {replica.pod_uid for replica in room.proven("train", "other")["train"].replicas}
    assert not before & after


def test_a_pod_that_ends_gives_its_devices_back(room: Room, fleet: Fleet) -> None:
    """Mechanism: a pod that is over no longer holds what it held, while its object and its record stay."""
    job = pod_spec(container(command=("sh", "-c", "exit 0")), restartPolicy="Never")
    room.apply(gpuworkload("job", count=8, node=fleet.nodes[1], template=job))
    room.wait_condition("job", "Ready", "True", "Succeeded", within=40)
    (placement,) = room.workload("job")["status"]["placements"]
    assert placement["state"] == "Succeeded"
    assert len(placement["devices"]) == 8, "what it had stays on record"
    room.apply(gpuworkload("next", count=8, node=fleet.nodes[1]))
    room.proven("next")


def _nothing(room: Room, fleet: Fleet) -> None:
    assert not room.every_pod("train"), "its pods are still there"
    held = fleet.assignments(room.namespace)
    assert not held, f"still reserved: {held}"
