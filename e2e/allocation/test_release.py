"""Devices are freed by deletion, by suspension, and when a pod completes."""

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace


def test_deletion_frees_the_devices(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: garbage collection deletes the pods; the reservation is removed once the node reports no holder."""
    node = fleet.nodes[1]
    namespace.apply(gpuworkload("first", count=8, node=node))
    first = namespace.devices("first")
    namespace.apply(gpuworkload("second", count=8, node=node))
    namespace.wait_condition("second", "Placed", "False", "NoDevicesAvailable")
    namespace.delete("first")
    second = namespace.verify("second")["second"].replicas[0].picked
    assert second == first == tuple(sorted(fleet.gpus[node].uuids))


def test_suspend_and_resume(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: `suspend` deletes the pods and frees the devices; resuming creates new pods and reservations."""
    namespace.apply(gpuworkload("train", replicas=2, count=2))
    before = {replica.pod_uid for replica in namespace.verify("train")["train"].replicas}
    path = f"{workloads(namespace.name)}/train"
    fleet.api.patch(path, {"spec": {"suspend": True}})
    eventually(lambda: _nothing_left(namespace, fleet), within=30)
    namespace.wait_condition("train", "Placed", "False", "Suspended")
    assert objects.is_true(namespace.workload("train"), "Suspended")
    assert not objects.condition(namespace.workload("train"), "Ready"), namespace.describe("train")
    # Another workload uses the whole fleet meanwhile.
    namespace.apply(gpuworkload("other", replicas=2, count=8))
    namespace.verify("other")
    fleet.api.patch(path, {"spec": {"suspend": False}})
    after = {replica.pod_uid for replica in namespace.verify("train", "other")["train"].replicas}
    assert not before & after


def test_completed_pod_frees_its_devices(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a completed pod no longer holds devices, while its object and its placement stay."""
    job = pod_spec(container(command=("sh", "-c", "exit 0")), restartPolicy="Never")
    namespace.apply(gpuworkload("job", count=8, node=fleet.nodes[1], template=job))
    namespace.wait_condition("job", "Complete", "True", "Succeeded", within=40)
    (placement,) = namespace.workload("job")["status"]["placements"]
    assert placement["state"] == "Succeeded"
    assert len(placement["devices"]) == 8, "the status no longer lists its devices"
    namespace.apply(gpuworkload("next", count=8, node=fleet.nodes[1]))
    namespace.verify("next")


def _nothing_left(namespace: TestNamespace, fleet: Fleet) -> None:
    assert not namespace.all_pods("train"), "its pods are still there"
    held = fleet.assignments(namespace.name)
    assert not held, f"still reserved: {held}"
