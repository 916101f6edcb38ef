"""A Node object is deleted under running pods, and its kubelet registers it anew."""

from collections.abc import Mapping
from time import monotonic

from gpufleet_e2e.proof import WorkloadEvidence
from gpufleet_e2e.support.api import NODES, JsonObject
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

REGISTERED_SECONDS = 30
"""A kubelet registers its Node only when it starts. Kubernetes deletes pods whose Node is gone for 40 s."""
REPORTED_SECONDS = 45
"""An agent that could not create its object, because it is owned by the Node, tries again after 30 s at most."""


def test_node_that_registers_anew_keeps_its_pods_and_devices(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the GPUTelemetry with all reservations goes with its Node; the pods' annotations have a copy.

    A workload that comes while there is no Node gets the devices that are free.
    """
    node = fleet.nodes[1]
    namespace.apply(
        gpuworkload("runs", count=2, replicas=2, node=node),
        gpuworkload("shares", devices={"mode": "Shared", "memoryMiB": 20_000}, replicas=2, node=node),
    )
    before = _devices(namespace.verify("runs", "shares"))
    containers = _containers(namespace)
    old_node, old_telemetry = _uid(fleet.api.get(f"{NODES}/{node}")), _uid(fleet.telemetry(node))

    began = monotonic()
    fleet.api.delete(f"{NODES}/{node}")
    namespace.apply(gpuworkload("next", count=2, node=node))
    fleet.node(node).restart_kubelet()
    new_node = eventually(lambda: _new_node(fleet, node, old_node), within=REGISTERED_SECONDS)
    eventually(lambda: _reported_for(fleet, node, new_node, old_telemetry), within=REPORTED_SECONDS)
    print(f"reported again {monotonic() - began:.1f} s after the deletion")

    namespace.verify("next", within=REPORTED_SECONDS)
    print(f"placed {monotonic() - began:.1f} s after the deletion")
    assert _devices(namespace.verify("runs", "shares")) == before
    assert _containers(namespace) == containers, "running containers changed"


def _devices(found: Mapping[str, WorkloadEvidence]) -> dict[str, tuple[str, ...]]:
    """Returns the devices of each pod, by uid."""
    return {replica.pod_uid: replica.picked for one in found.values() for replica in one.replicas}


def _uid(body: JsonObject) -> str:
    return str(body["metadata"]["uid"])


def _new_node(fleet: Fleet, node: str, before: str) -> str:
    """Returns the uid of the Node once it is another one, which takes pods."""
    found = fleet.api.find(f"{NODES}/{node}")
    assert found is not None, f"{node} is not registered"
    assert _uid(found) != before
    assert not found["spec"].get("taints"), found["spec"]["taints"]
    return _uid(found)


def _reported_for(fleet: Fleet, node: str, owner: str, before: str) -> None:
    found = fleet.telemetry(node)
    assert _uid(found) != before
    assert [one["uid"] for one in found["metadata"]["ownerReferences"]] == [owner]
    assert found.get("status", {}).get("devices"), "no report yet"


def _containers(namespace: TestNamespace) -> dict[str, tuple[str, int]]:
    return {
        pod["metadata"]["uid"]: (one["containerID"], one["restartCount"])
        for name in ("runs", "shares")
        for pod in namespace.pods(name)
        for one in pod["status"]["containerStatuses"]
    }
