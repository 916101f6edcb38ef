"""Keyword arguments that the builders pass on to the operator's dataclasses, so that mypy checks their names."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, TypedDict

from gpufleet_api.demand.gpu_demand import DemandStatus
from gpufleet_operator.model.claims.resource_claim import ClaimReference, PodKey, ResourceClaim
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_operator.model.node_leases import NodeLeases
from gpufleet_operator.model.objects import (
    AffinityShape,
    BoundPod,
    NodeCondition,
    PodDeletion,
    PodPhase,
    ResourceQuota,
    Service,
)
from gpufleet_operator.model.pod_state.containers import Container
from gpufleet_operator.model.pod_state.owner import DeviceRequest, PodOwner
from gpufleet_operator.placement.model import PodNeeds, Taint
from gpufleet_operator.placement.packing import Mix


class WorkloadSpecFields(TypedDict, total=False):
    """`spec` of a GPUWorkload as JSON."""

    replicas: int
    suspend: bool
    devices: Mapping[str, Any]
    requirements: Mapping[str, Any]
    placement: Mapping[str, Any]
    distribution: Mapping[str, Any]
    runPolicy: Mapping[str, Any]
    updateStrategy: Mapping[str, Any]
    network: Mapping[str, Any]


class PodFields(TypedDict, total=False):
    uid: str
    namespace: str
    name: str
    resource_version: str
    created: datetime
    workload_uid: str
    deleting: bool
    deletion_requested: datetime | None
    attempt: int
    ready: bool
    not_ready: str
    init_containers: tuple[Container, ...]
    gates: tuple[str, ...]
    node: str | None
    pinned: str | None
    phase: PodPhase
    reason: str
    message: str
    disrupted: bool
    unschedulable: str | None
    nominated: bool
    scheduler: str
    claims: tuple[str, ...]
    template_hash: str
    device_claim: ClaimReference | None
    volume_claims: tuple[str, ...]
    containers: tuple[Container, ...]
    priority: int
    needs: PodNeeds
    affinity: AffinityShape
    has_annotations: bool
    waiting_for: str
    workload_label: str
    owner: PodOwner | None
    rank: tuple[int, ...]
    run: str
    finalizers: tuple[str, ...]
    assigned: bool
    replaced: str
    device_requests: tuple[DeviceRequest, ...]
    images: tuple[tuple[str, str], ...]


class AssignmentFields(TypedDict, total=False):
    resource: str
    replicas: int
    memory_mib: int | None
    compute_percent: int | None
    shard_start: int | None
    shard_end: int | None
    decided_at: str
    termination_grace_period_seconds: int | None
    keep_for_successor: bool | None


class DeviceFields(TypedDict, total=False):
    """One of `status.devices` of a GPUTelemetry as JSON."""

    computeCapability: str
    sampleTime: str
    memoryTotalMiB: int
    memoryUsedMiB: int
    memoryReservedMiB: int
    utilizationPercent: int
    temperatureCelsius: int
    processCount: int
    health: Mapping[str, Any]
    withheld: str


class NodeFields(TypedDict, total=False):
    scale_down_held: bool
    resource_version: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    not_ready: str
    allocatable: Mapping[str, int]
    condition: NodeCondition | None


class SnapshotFields(TypedDict, total=False):
    deleted_pods: Mapping[str, PodDeletion]
    other_requests: Mapping[str, Mapping[str, int]]
    services: Mapping[str, Service]
    claims: Mapping[PodKey, Mapping[str, ResourceClaim]]
    with_quota: AbstractSet[PodKey]
    other_pods: Mapping[str, BoundPod]
    quotas: Mapping[str, ResourceQuota]
    node_leases: NodeLeases
    demands: Mapping[TemplateKey, DemandStatus | None]
    mix: Mix
