"""Requirements and placement are changed while a replica runs."""

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import JsonObject, pods, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

UNUSED = {"temperature": 0, "power": 0}
BY_UTILIZATION = {"memory": 0, "utilization": 100, **UNUSED}
BY_MEMORY = {"memory": 100, "utilization": 0, **UNUSED}


def test_changed_requirements_apply_to_what_is_placed_later(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: neither is part of a pod's template; each placement reads them.

    One of the new devices is busy, the other one is full: the new weights prefer the busy one, the old ones the other.
    """
    first, second = fleet.nodes
    busy, full = fleet.gpus[second].uuids[-2:]
    fleet.gpus[second].report(busy, utilization_percent=60)
    fleet.gpus[second].report(full, memory_used_mib=40_000)
    eventually(lambda: _reports(fleet, second, busy, full), within=30)
    namespace.apply(gpuworkload("serve", node=first, placement={"weights": BY_UTILIZATION}))
    (device,) = namespace.devices("serve")
    before = namespace.pod("serve")["metadata"]["uid"]
    requirements = {"nodeSelector": {"kubernetes.io/hostname": second}, "includeUUIDs": [busy, full]}
    _edit(namespace, requirements=requirements, placement={"weights": BY_MEMORY})
    namespace.wait_for("serve", _is_observed, within=30)
    never(lambda: _is_unchanged(namespace, before, device), for_seconds=3)

    _edit(namespace, replicas=2)
    namespace.wait_for("serve", lambda found: found["status"].get("ready") == "2/2", within=30)
    assert _devices(namespace) == {0: (device,), 1: (busy,)}

    fleet.api.delete(f"{pods(namespace.name)}/{namespace.pods('serve')[0]['metadata']['name']}")
    eventually(lambda: _is_replaced(namespace, before), within=15)
    assert _devices(namespace) == {0: (full,), 1: (busy,)}


def _edit(namespace: TestNamespace, **spec: object) -> None:
    namespace.fleet.api.patch(f"{workloads(namespace.name)}/serve", {"spec": spec})


def _is_observed(found: JsonObject) -> bool:
    observed: bool = found["metadata"]["generation"] == found["status"]["observedGeneration"]
    return observed and objects.is_true(found, "Ready")


def _is_unchanged(namespace: TestNamespace, uid: str, device: str) -> None:
    assert namespace.pod("serve")["metadata"]["uid"] == uid, "a replica that runs was replaced"
    assert namespace.reservation("serve")["devices"] == [device]


def _is_replaced(namespace: TestNamespace, uid: str) -> None:
    found = [pod["metadata"]["uid"] for pod in namespace.pods("serve")]
    assert len(found) == 2, f"{len(found)} pods"
    assert uid not in found


def _devices(namespace: TestNamespace) -> dict[int, tuple[str, ...]]:
    return {one.replica: one.picked for one in namespace.verify("serve")["serve"].replicas}


def _reports(fleet: Fleet, node: str, busy: str, full: str) -> None:
    devices = {one["uuid"]: one for one in fleet.telemetry(node)["status"]["devices"]}
    assert devices[busy]["utilizationPercent"] == 60
    assert devices[full]["memoryUsedMiB"] >= 40_000
