"""Builds the assignment that reserves devices for a replica's pod."""

from collections.abc import Iterable

from gpufleet_api.telemetry import Assignment
from gpufleet_api.workload import WorkloadSpec
from gpufleet_common import timestamps
from gpufleet_operator.decide.shards import Range
from gpufleet_operator.model.objects import DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS, Pod, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.pods.validate import device_container


def new_assignment(
    snapshot: Snapshot, workload: Workload, replica: int, pod: Pod, *, devices: Iterable[str], shard: Range | None
) -> Assignment:
    """Builds an assignment that is decided now.

    Args:
        snapshot: Its time and settings.
        workload: One that parses.
        replica: Index of the replica.
        pod: The replica's pod.
        devices: UUIDs, in order.
        shard: The replica's range of `spec.distribution.items`; None without a distribution.
    """
    if workload.model is None:
        raise TypeError(f"{workload.full_name} has no model")  # only workloads that parse are assessed
    spec, grace = workload.model.spec, pod.termination_grace_period_seconds
    return Assignment(
        pod_uid=pod.uid,
        namespace=pod.namespace,
        pod=pod.name,
        container=container_of(pod, spec),
        workload=workload.name,
        workload_uid=workload.uid,
        replica=replica,
        replicas=spec.replicas,
        resource=snapshot.limits.resources.name_for(spec.devices),
        devices=list(devices),
        memory_mib=spec.devices.memory_mib,
        compute_percent=spec.devices.compute_percent,
        shard_start=shard[0] if shard else None,
        shard_end=shard[1] if shard else None,
        decided_at=timestamps.micros(snapshot.now),
        termination_grace_period_seconds=None if grace == DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS else grace,
    )


def container_of(pod: Pod, spec: WorkloadSpec) -> str:
    """Returns the container of a pod that gets the devices.

    A pod that has no choice of containers keeps its own: a template that was changed later may have another name.
    """
    if spec.devices.container is None and pod.containers:
        return pod.containers[0].name
    return device_container(spec)
