"""Builders of pods that other owners create, and of the workload that places them."""

from datetime import timedelta
from typing import Unpack

from gpufleet_api.names import RESOURCE, SCHEDULING_GATE
from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_operator.model.claims.resource_claim import ClaimReference
from gpufleet_operator.model.objects import Pod, PodPhase, Workload
from gpufleet_operator.model.pod_state.containers import Container
from gpufleet_operator.model.pod_state.owner import JOB_TRACKING_FINALIZER, DeviceRequest, PodOwner
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_testing.operator import make
from gpufleet_testing.operator.fields import PodFields, WorkloadSpecFields


def workload(status: WorkloadStatus | None = None, **spec: Unpack[WorkloadSpecFields]) -> Workload:
    """GPUWorkload `train` without a template."""
    return make.workload(template=None, status=status, **spec)


def job(name: str = "job") -> PodOwner:
    return PodOwner("Job", name, f"uid-{name}", "batch")


def replica_set(name: str = "web-1") -> PodOwner:
    return PodOwner("ReplicaSet", name, f"uid-{name}", "apps")


def stateful_set(name: str = "db") -> PodOwner:
    return PodOwner("StatefulSet", name, f"uid-{name}", "apps")


def requests(count: int = 1, container: str = "main", resource: str = RESOURCE) -> tuple[DeviceRequest, ...]:
    """The device requests of a pod of which one container requests devices."""
    return (DeviceRequest(container, "spec.containers[0]", ((resource, count),)),)


def pod(name: str = "web", owner: PodOwner | None = None, /, *, count: int = 1, **fields: Unpack[PodFields]) -> Pod:
    """A gated pod with the label of workload `train`. Pods are older the earlier their name is in the alphabet."""
    usual: PodFields = {
        "uid": f"uid-{name}",
        "name": name,
        "created": make.NOW - timedelta(seconds=100 - min(99, ord(name[-1]) - 40)),
        "workload_uid": "",
        "workload_label": "train",
        "owner": owner,
        "run": owner.uid if owner is not None and owner.is_job else "",
        "finalizers": (JOB_TRACKING_FINALIZER,) if owner is not None and owner.is_job else (),
        "device_requests": requests(count),
        "needs": PodNeeds(cpu_milli=100, memory_bytes=2**20, extended={RESOURCE: count}),
        "gates": (SCHEDULING_GATE,),
    }
    usual.update(fields)
    return make.pod("train", 0, **usual)


def claiming(name: str = "web", owner: PodOwner | None = None, /, **fields: Unpack[PodFields]) -> Pod:
    """A gated pod that names the template of workload `train`, of a Deployment unless another owner is given."""
    usual: PodFields = {
        "uid": f"0123456789ab-{name}",
        "device_claim": ClaimReference("", ("main",), "gpufleet-train"),
        "device_requests": (),
        "needs": PodNeeds(cpu_milli=100, memory_bytes=2**20),
        **fields,
    }
    return pod(name, owner or replica_set(), **usual)


def released(
    name: str = "web", owner: PodOwner | None = None, /, *, to: str = "node-1", **fields: Unpack[PodFields]
) -> Pod:
    """A pod that the operator released to a node."""
    changed: PodFields = {"gates": (), "pinned": to, "assigned": True, "has_annotations": True, **fields}
    return pod(name, owner, **changed)


def running(
    name: str = "web",
    owner: PodOwner | None = None,
    /,
    *,
    on: str = "node-1",
    devices: tuple[str, ...] = ("GPU-1-0",),
    **fields: Unpack[PodFields],
) -> Pod:
    """A pod that runs with these devices."""
    main = Container(
        "main", running=True, ran=True, started_at=make.NOW, devices={RESOURCE: frozenset(devices)}, ready=True
    )
    usual: PodFields = {"node": on, "phase": PodPhase.RUNNING, "containers": (main,), "ready": True, **fields}
    return released(name, owner, to=on, **usual)
