"""Reservations and the kubelet's containers, as most tests need them."""

from dataclasses import replace
from typing import TypedDict, Unpack

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.podresources.listing import ContainerKey, ListedContainer
from gpufleet_api.names import RESOURCE


class AssignmentFields(TypedDict, total=False):
    pod_uid: str
    container: str
    resource: str
    order: int
    workload: str
    replica: int
    replicas: int
    memory_mib: int | None
    compute_percent: int | None
    shard_start: int | None
    shard_end: int | None
    decided_at: str


def assignment(pod: str, *devices: str, **fields: Unpack[AssignmentFields]) -> Assignment:
    """Builds a reservation for container `main` of `ml/<pod>`: `assignment("train-0", "GPU-1", replica=1)`."""
    usual = Assignment(
        pod_uid=f"uid-{pod}",
        namespace="ml",
        pod=pod,
        container="main",
        resource=RESOURCE,
        devices=devices,
        workload=pod.rsplit("-", 1)[0],
        replica=0,
        replicas=1,
        decided_at="2026-01-01T00:00:00.000000Z",
    )
    return replace(usual, **fields)


def listed(pod: str, *devices: str, resource: str = RESOURCE, container: str = "main") -> ListedContainer:
    """Builds a container of `ml/<pod>` as the kubelet lists it: `listed("train-0", "GPU-1")`."""
    return ListedContainer(ContainerKey("ml", pod, container), {resource: frozenset(devices)} if devices else {})
