"""Builders of the operator's objects, with usual values filled in: a test states only what matters to it.

Use as `from gpufleet_testing.operator import make` and `make.pod(workload)`. Uids are `uid-<name>`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack

from gpufleet_api.condition import Condition
from gpufleet_api.names import RESOURCE, SCHEDULING_GATE, SHARED_RESOURCE, SHARED_SLOTS, Reclaim, Transport
from gpufleet_api.telemetry.device import DeviceHolder
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry, TelemetryStatus
from gpufleet_api.telemetry.spec import Assignment, CordonedDevice
from gpufleet_api.workload import GPUWorkload, WorkloadSpec
from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_common import timestamps
from gpufleet_operator.decide.template_check import check_templates
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.extended_resources import DEFAULTS
from gpufleet_operator.model.objects import Node, Pod, PodPhase, Telemetry, Workload
from gpufleet_operator.model.pod_state.containers import Container
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits, PassState, TemplateCheck
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_testing.operator.fields import (
    AssignmentFields,
    DeviceFields,
    NodeFields,
    PodFields,
    SnapshotFields,
    WorkloadSpecFields,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TEMPLATE: Mapping[str, Any] = {
    "spec": {"restartPolicy": "Always", "containers": [{"name": "main", "image": "busybox"}]}
}

NO_DNS: Mapping[str, Any] = {"network": {"enableDNSHostnames": False}}

Holders = Assignment | Pod | Sequence[Assignment | Pod]
"""Whom the agent reports as holders of a device: a pod without a reservation, or one with its reservation."""


def workload(
    name: str = "train",
    *,
    status: WorkloadStatus | None = None,
    template: object = TEMPLATE,
    created: datetime = NOW - timedelta(minutes=1),
    **spec: Unpack[WorkloadSpecFields],
) -> Workload:
    """A GPUWorkload in namespace ml; `spec` as in the API (`replicas=2, devices={"count": 4}`).

    Without DNS host names by default, so that a decision has no Service to create.
    """
    body = {"metadata": {"name": name, "namespace": "ml", "uid": f"uid-{name}", "generation": 1}}
    model = GPUWorkload.model_validate({**body, "spec": {"template": template, **NO_DNS, **spec}})
    return Workload(
        uid=f"uid-{name}",
        namespace="ml",
        name=name,
        generation=1,
        resource_version="10",
        created=created,
        deleting=False,
        model=model.model_copy(update={"status": status}),
        status=status,
        stored_placements={p.replica: p for p in status.placements} if status else {},
    )


def spec(workload: Workload) -> WorkloadSpec:
    """The spec of a workload that parses."""
    assert workload.model is not None
    return workload.model.spec


def pod(workload: Workload | str = "train", replica: int = 0, *, suffix: str = "a", **fields: Unpack[PodFields]) -> Pod:
    """A gated pod of a workload."""
    owner = workload if isinstance(workload, str) else workload.name
    name = f"{owner}-{replica}-{suffix}"
    usual = Pod(
        uid=f"uid-{name}",
        namespace="ml",
        name=name,
        resource_version="20",
        created=NOW - timedelta(seconds=30),
        workload_uid=f"uid-{owner}",
        replica=replica,
        gates=(SCHEDULING_GATE,),
        needs=PodNeeds(cpu_milli=100, memory_bytes=2**20, extended={RESOURCE: 1}),
    )
    return replace(usual, **fields)


def released_pod(
    workload: Workload | str = "train", replica: int = 0, to: str = "node-1", **fields: Unpack[PodFields]
) -> Pod:
    """A pod that was released to a node and is not bound yet."""
    released: PodFields = {"gates": (), "pinned": to, **fields}
    return pod(workload, replica, **released)


def running_pod(
    workload: Workload | str = "train",
    replica: int = 0,
    on: str = "node-1",
    devices: Sequence[str] = ("GPU-1-0",),
    **fields: Unpack[PodFields],
) -> Pod:
    """A pod that runs on a node; `devices` are those of `allocatedResourcesStatus`, none on an older kubelet.

    A pod that requests shared devices holds one slot of each.
    """
    needs = fields.get("needs")
    slots = needs is not None and SHARED_RESOURCE in needs.extended
    ids = frozenset(f"{uuid}::3" if slots else uuid for uuid in devices)
    held = {SHARED_RESOURCE if slots else RESOURCE: ids} if devices else {}
    started = NOW - timedelta(seconds=20)
    main = Container("main", running=True, ran=True, started_at=started, devices=held, ready=True, started=True)
    running: PodFields = {"node": on, "phase": PodPhase.RUNNING, "containers": (main,), "ready": True, **fields}
    return released_pod(workload, replica, on, **running)


def assignment(pod: Pod, *devices: str, workload: str = "train", **fields: Unpack[AssignmentFields]) -> Assignment:
    """A reservation for a pod."""
    usual: AssignmentFields = {
        "replicas": 1,
        "resource": RESOURCE,
        "decided_at": timestamps.micros(NOW - timedelta(seconds=25)),
        **fields,
    }
    return Assignment(
        pod_uid=pod.uid,
        namespace=pod.namespace,
        pod=pod.name,
        container="main",
        workload=workload,
        workload_uid=pod.workload_uid or f"uid-{workload}",
        replica=pod.replica or 0,
        devices=list(devices or ("GPU-1-0",)),
        **usual,
    )


def shared_assignment(
    name: str, memory_mib: int = 1000, compute_percent: int | None = None, *, seconds_ago: float = 25
) -> Assignment:
    """A reservation of a share of GPU-1-0 for a gated pod of workload `name`, decided some seconds ago."""
    return assignment(
        pod(name),
        "GPU-1-0",
        memory_mib=memory_mib,
        compute_percent=compute_percent,
        resource=SHARED_RESOURCE,
        decided_at=timestamps.micros(NOW - timedelta(seconds=seconds_ago)),
    )


def telemetry(
    name: str = "node-1",
    *,
    devices: int = 2,
    assignments: Sequence[Assignment] = (),
    held: Mapping[str, Holders] | None = None,
    age: float = 1.0,
    generation: int = 5,
    covered: int | None = None,
    cordoned: Sequence[CordonedDevice] = (),
    conditions: Sequence[Condition] = (),
    processes_observed: bool = True,
    transport: Transport = Transport.DEVICE_PLUGIN,
    **device: Unpack[DeviceFields],
) -> Telemetry:
    """A GPUTelemetry with devices GPU-<node number>-<index>.

    Args:
        name: of the node.
        devices: how many.
        assignments: the node's reservations.
        held: per UUID, the holders that the agent reports. One that requests shared devices shares the device.
        age: seconds since the agent wrote the status.
        generation: of the object.
        covered: `status.assignmentsGeneration`; default: the generation.
        cordoned: devices that are out of service.
        conditions: as stored.
        processes_observed: whether the agent sees processes, and so reports containers until they have ended.
        transport: how its devices get into containers.
        device: values of every device.
    """
    written = NOW - timedelta(seconds=age)
    number = name.rpartition("-")[2]
    uuids = [f"GPU-{number}-{index}" for index in range(devices)]
    body = {
        "metadata": {"name": name, "uid": f"uid-{name}-telemetry", "generation": generation},
        "spec": {
            "assignments": [a.model_dump(by_alias=True) for a in assignments],
            "cordoned": [c.model_dump(by_alias=True) for c in cordoned],
        },
        "status": {
            "assignmentsGeneration": generation if covered is None else covered,
            "observedAt": timestamps.micros(written),
            "sampleTime": timestamps.micros(written),
            "agentVersion": "test",
            "transport": str(transport),
            "processesObserved": processes_observed,
            "summary": {"devices": devices, "healthy": devices, "allocated": 0},
            "devices": [
                _device(uuid, index, written, (held or {}).get(uuid), device) for index, uuid in enumerate(uuids)
            ],
        },
    }
    return Telemetry(
        uid=f"uid-{name}-telemetry",
        name=name,
        generation=generation,
        resource_version="30",
        deleting=False,
        model=GPUTelemetry.model_validate(body),
        confirmed_at=written,
        conditions={c.type: c for c in conditions},
    )


def telemetry_status(found: Telemetry) -> TelemetryStatus:
    """The status of a telemetry object that has one."""
    assert found.status is not None
    return found.status


def _device(
    uuid: str, index: int, written: datetime, holders: Holders | None, values: Mapping[str, Any]
) -> dict[str, Any]:
    holders = holders if isinstance(holders, Sequence) else [holders] if holders else []
    return {
        "uuid": uuid,
        "index": index,
        "model": "NVIDIA H100 80GB HBM3",
        "computeCapability": "9.0",
        "sampleTime": timestamps.micros(written),
        "memoryTotalMiB": 81559,
        "memoryUsedMiB": 500,
        "utilizationPercent": 0,
        "temperatureCelsius": 40,
        "powerMilliwatts": 70000,
        "powerLimitMilliwatts": 700000,
        "processCount": 0,
        "health": {"state": "Healthy"},
        "allocatedTo": [_holder(one) for one in holders],
        **values,
    }


def _holder(one: Assignment | Pod) -> dict[str, Any]:
    if isinstance(one, Pod):
        shared = SHARED_RESOURCE in one.needs.extended
        return {
            "namespace": one.namespace,
            "pod": one.name,
            "container": "main",
            "podUID": one.uid or None,
            "shared": shared,
        }
    return {
        "namespace": one.namespace,
        "pod": one.pod,
        "container": one.container,
        "podUID": one.pod_uid,
        "shared": one.memory_mib is not None,
        "memoryMiB": one.memory_mib,
        "computePercent": one.compute_percent,
    }


def with_terminating_holders(found: Telemetry) -> Telemetry:
    """The same report after the kubelet has dropped the holders, whose processes still run."""
    status = telemetry_status(found)
    devices = [
        d.model_copy(update={"allocated_to": [h.model_copy(update={"terminating": True}) for h in d.allocated_to]})
        for d in status.devices
    ]
    changed = status.model_copy(update={"devices": devices})
    return replace(found, model=found.model.model_copy(update={"status": changed}))


def node(name: str = "node-1", *, devices: int = 2, **fields: Unpack[NodeFields]) -> Node:
    """A node with more CPU and memory than any test requests."""
    allocatable = {"cpu": 16_000, "memory": 64 * 2**30, "pods": 110, RESOURCE: devices}
    allocatable[SHARED_RESOURCE] = devices * SHARED_SLOTS
    usual = Node(uid=f"uid-{name}", name=name, resource_version="40", allocatable=allocatable)
    return replace(usual, **fields)


def snapshot(
    *objects: Workload | Pod | Telemetry | Node,
    state: PassState | None = None,
    limits: Limits | None = None,
    now: datetime = NOW,
    without_nodes: Sequence[str] = (),
    **fields: Unpack[SnapshotFields],
) -> Snapshot:
    """A snapshot of these objects. Nodes that only have telemetry get a Node."""
    telemetries = {o.name: o for o in objects if isinstance(o, Telemetry)}
    nodes = {o.name: o for o in objects if isinstance(o, Node)}
    for name, found in telemetries.items():
        plugin = found.transport is Transport.DEVICE_PLUGIN
        count = len(found.status.devices) if found.status and plugin else 0
        nodes.setdefault(name, node(name, devices=count))
    workloads = {o.uid: o for o in objects if isinstance(o, Workload)}
    state, limits = state or PassState(), limits or Limits()
    reported = [one for one in telemetries.values() if one.status and one.status.devices]
    return Snapshot(
        now=now,
        name_seed="seed",
        templates=check_templates(workloads, state.templates, limits.resources),
        workloads=workloads,
        telemetry=telemetries,
        pods={o.uid: o for o in objects if isinstance(o, Pod)},
        nodes_with={each: {one.name for one in reported if one.transport is each} for each in Transport},
        nodes={name: found for name, found in nodes.items() if name not in without_nodes},
        previous_state=state,
        limits=limits,
        **fields,
    )


def checks(*workloads: Workload) -> dict[str, TemplateCheck]:
    """The checks of workloads' templates, as a snapshot of them has them."""
    return check_templates({w.uid: w for w in workloads}, {}, DEFAULTS)


def with_state(snapshot: Snapshot, state: PassState) -> Snapshot:
    """The same cluster after a pass that left this state."""
    return replace(snapshot, previous_state=state)


def later(snapshot: Snapshot, actions: Actions, seconds: float) -> Snapshot:
    """The same cluster some time later, with the state that a pass left. Telemetry grows older as well."""
    return replace(snapshot, now=snapshot.now + timedelta(seconds=seconds), previous_state=actions.state)


@dataclass(frozen=True, slots=True)
class HolderMemory:
    """What a holder uses, in MiB, and for how many seconds it was observed."""

    used_mib: int
    max_mib: int | None = None
    """None: as used_mib."""
    seconds: float = 3600


def reclaimable(assignment: Assignment) -> Assignment:
    """The reservation of a workload that lets others have what it does not use."""
    changed: Assignment = assignment.model_copy(update={"reclaim": Reclaim.USED})
    return changed


def using(found: Telemetry, memory: Mapping[str, HolderMemory]) -> Telemetry:
    """The same report with what the holders use on each of their devices, by pod name."""
    status = telemetry_status(found)
    observed_at = timestamps.parse(status.observed_at)

    def measured(holder: DeviceHolder) -> DeviceHolder:
        if holder.pod not in memory:
            return holder
        one = memory[holder.pod]
        changed: DeviceHolder = holder.model_copy(
            update={
                "memory_used_mib": one.used_mib,
                "memory_used_max_mib": one.used_mib if one.max_mib is None else one.max_mib,
                "observed_since": timestamps.micros(observed_at - timedelta(seconds=one.seconds)),
            }
        )
        return changed

    devices = [
        device.model_copy(update={"allocated_to": [measured(holder) for holder in device.allocated_to]})
        for device in status.devices
    ]
    changed = status.model_copy(update={"devices": devices})
    return replace(found, model=found.model.model_copy(update={"status": changed}))
