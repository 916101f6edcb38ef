"""Builders of pods with a ResourceClaim, and of the claims themselves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gpufleet_api.names import DRA_DRIVER, Transport
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_common.device_ids import device_name
from gpufleet_operator.model.claims.resource_claim import ClaimReference, DeviceAllocation, PodKey, ResourceClaim
from gpufleet_operator.model.objects import Pod, Telemetry, Workload
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_operator.pods.claims.claim_body import claim_body, claim_requests
from gpufleet_testing.operator import make


def claiming(pod: Pod, *containers: str) -> Pod:
    """Returns the pod with a claim of its own name instead of a requested resource."""
    reference = ClaimReference(pod.name, containers or ("main",))
    needs = PodNeeds(cpu_milli=pod.needs.cpu_milli, memory_bytes=pod.needs.memory_bytes)
    return replace(pod, device_claim=reference, needs=needs)


def assignment(pod: Pod, *devices: str, memory_mib: int | None = None) -> Assignment:
    """Builds the reservation of a pod with a claim."""
    return make.assignment(pod, *devices, resource=DRA_DRIVER, memory_mib=memory_mib)


def claim(pod: Pod, reserved: Assignment, *, allocated_on: str | None = None, deleting: bool = False) -> ResourceClaim:
    """Builds the claim of a reservation; `allocated_on` is the node on which kube-scheduler has allocated it."""
    devices = tuple(DeviceAllocation(DRA_DRIVER, allocated_on or "", device_name(uuid)) for uuid in reserved.devices)
    return ResourceClaim(
        uid=f"uid-claim-{pod.name}",
        namespace=pod.namespace,
        name=pod.name,
        resource_version="50",
        pod_uid=pod.uid,
        deleting=deleting,
        requests=claim_requests(reserved),
        allocated=devices if allocated_on is not None else None,
    )


def by_pod(*claims: ResourceClaim) -> Mapping[PodKey, Mapping[str, ResourceClaim]]:
    """Groups claims as a snapshot has them."""
    return {one.pod_key: {one.name: one} for one in claims}


def stored_claim(workload: Workload, pod: Pod, reserved: Assignment) -> dict[str, Any]:
    """Returns the claim as the apiserver stores it: with identity, defaults and quantities in canonical form."""
    body = claim_body(workload, pod, reserved)
    for request in body["spec"]["devices"]["requests"]:
        memory = request["exactly"].get("capacity", {}).get("requests", {})
        if memory.get("memory") == "10240Mi":
            memory["memory"] = "10Gi"
    return {**body, "metadata": {**body["metadata"], "uid": "uid-claim", "resourceVersion": "50"}}


def dra_telemetry(name: str = "node-1", *assignments: Assignment, devices: int = 2) -> Telemetry:
    return make.telemetry(name, devices=devices, assignments=assignments, transport=Transport.DRA)
