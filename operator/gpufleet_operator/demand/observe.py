"""Reads from the agents' reports how much memory each running container of a shared device uses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from gpufleet_api.names import API_VERSION, WORKLOAD_KIND
from gpufleet_api.telemetry.device import Device, DeviceHolder
from gpufleet_common import timestamps
from gpufleet_operator.ledger.device_usage import usable_mib
from gpufleet_operator.ledger.own_use import most_used_mib
from gpufleet_operator.model.demands.gpu_demand import OwnerReference
from gpufleet_operator.model.demands.template import TemplateKey, template_of
from gpufleet_operator.model.objects import Pod, Telemetry, Workload

RunKey = tuple[TemplateKey, str]
"""Template, and uid of the pod."""

_API_VERSIONS = {"ReplicaSet": "apps/v1", "StatefulSet": "apps/v1", "ReplicationController": "v1"}
"""Kinds of controllers whose pods do not end by themselves."""


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """Observations of a run so far."""

    since: datetime
    """By the node's clock."""
    until: datetime
    promised_mib: int
    max_mib: int
    owner: OwnerReference | None = None
    """Owners with which the GPUDemand is deleted."""
    device_mib: int = 0
    """Memory of the device that can be used; 0 when unknown."""

    def merged(self, later: "ObservedRun") -> "ObservedRun":
        """Returns the run with later observations, on this device or another."""
        return replace(
            later,
            since=min(self.since, later.since),
            until=max(self.until, later.until),
            max_mib=max(self.max_mib, later.max_mib),
            device_mib=max(self.device_mib, later.device_mib),
        )


def observe_runs(
    telemetry: Iterable[Telemetry], pods: Mapping[str, Pod], workloads: Iterable[Workload]
) -> dict[RunKey, ObservedRun]:
    """Returns the runs whose use is known.

    Args:
        telemetry: Of all nodes.
        pods: By uid. A holder without a pod is left out.
        workloads: Source of the promises: the reservation of a moved pod has its use instead.
    """
    named = {workload.full_name: workload for workload in workloads}
    found: dict[RunKey, ObservedRun] = {}
    for one in telemetry:
        status = one.status
        if status is None:
            continue
        until = timestamps.parse(status.observed_at)
        for device, holder in ((each, holder) for each in status.devices for holder in each.allocated_to):
            pod = pods.get(holder.pod_uid or "")
            if pod is None:
                continue
            run = _observed(device, holder, until, pod, named.get(pod.labeled_workload))
            if run is not None:
                key = template_of(pod, holder.container), pod.uid
                found[key] = found[key].merged(run) if key in found else run
    return found


def _observed(
    device: Device, holder: DeviceHolder, until: datetime, pod: Pod, workload: Workload | None
) -> ObservedRun | None:
    used = most_used_mib(holder)
    if used is None or holder.memory_mib is None or holder.observed_since is None:
        return None
    asked = None if workload is None or workload.model is None else workload.model.spec.devices.memory_mib
    since = min(until, timestamps.parse(holder.observed_since))
    promised = asked or holder.memory_mib
    return ObservedRun(since, until, promised, used, _lasting_owner(pod, workload), usable_mib(device))


def _lasting_owner(pod: Pod, workload: Workload | None) -> OwnerReference | None:
    """Returns the controller of a pod if it outlives the runs.

    A Job, or a GPUWorkload whose pods end, is one run: its GPUDemand would be deleted before the next run.
    """
    if pod.workload_uid:
        if workload is None or workload.uid != pod.workload_uid or workload.model is None:
            return None
        ends = workload.model.spec.pod_spec.get("restartPolicy", "Always") != "Always"
        return None if ends else OwnerReference(API_VERSION, WORKLOAD_KIND, workload.name, workload.uid)
    owner = pod.owner
    if owner is None or owner.kind not in _API_VERSIONS or owner.api_group not in ("", "apps"):
        return None
    return OwnerReference(_API_VERSIONS[owner.kind], owner.kind, owner.name, owner.uid)
