"""Objects of a cluster as JSON. Names are those of the API for the same value; docs/reference/cli.md lists them."""

from typing import Any

from gpufleet_cli.view.event_view import EventView
from gpufleet_cli.view.fleet_view import FleetView
from gpufleet_cli.view.gpu_view import GPUView, PodUse
from gpufleet_cli.view.pod_view import PodView
from gpufleet_cli.view.workload_view import ConditionView, PlacementView, WorkloadView

Json = dict[str, Any]


def gpu(one: GPUView) -> Json:
    """Returns a GPU with its holders and reservations."""
    return {
        "node": one.node,
        "index": one.index,
        "uuid": one.uuid,
        "model": one.model,
        "state": one.state,
        "message": one.detail,
        "memoryTotalMiB": one.memory_total_mib,
        "memoryUsedMiB": one.memory_used_mib,
        "utilizationPercent": one.utilization_percent,
        "temperatureCelsius": one.temperature_celsius,
        "powerMilliwatts": one.power_milliwatts,
        "processCount": one.process_count,
        "pods": [use(u) for u in one.uses],
    }


def use(one: PodUse) -> Json:
    """Returns a holder or a reservation."""
    return {
        "namespace": one.namespace,
        "pod": one.pod,
        "container": one.container,
        "workload": one.workload,
        "replica": one.replica,
        "held": one.held,
        "shared": one.shared,
        "memoryMiB": one.memory_mib,
        "computePercent": one.compute_percent,
        "terminating": one.terminating,
        "overuseMiB": one.overuse_mib,
    }


def workload(view: FleetView, one: WorkloadView) -> Json:
    """Returns a workload with its replicas and pods."""
    pods = {pod.name: pod for pod in view.pods_of(one)}
    placed = {placement.pod for placement in one.placements}
    return {
        "namespace": one.namespace,
        "name": one.name,
        "state": one.state,
        "ready": one.ready,
        "observed": one.current,
        "replicas": [_placement(p, pods.get(p.pod)) for p in one.placements],
        "otherPods": [_pod(pod) for name, pod in pods.items() if name not in placed],
        "conditions": [_condition(c) for c in one.conditions],
    }


def event(one: EventView) -> Json:
    """Returns an event."""
    return {
        "kind": one.kind,
        "name": one.name,
        "type": one.type,
        "reason": one.reason,
        "message": one.message,
        "count": one.count,
        "time": one.at.isoformat() if one.at else None,
    }


def _placement(one: PlacementView, pod: PodView | None) -> Json:
    return {
        "replica": one.replica,
        "state": one.state,
        "message": one.message,
        "node": one.node or None,
        "devices": list(one.devices),
        "score": dict(one.score),
        "pod": _pod(pod) if pod is not None else None,
    }


def _pod(one: PodView) -> Json:
    return {
        "name": one.name,
        "state": one.state,
        "ready": one.ready,
        "node": one.node or None,
        "containers": list(one.containers),
        "waitingFor": one.waiting_for or None,
        "message": one.message,
    }


def _condition(one: ConditionView) -> Json:
    return {"type": one.type, "status": one.status, "reason": one.reason, "message": one.message}
