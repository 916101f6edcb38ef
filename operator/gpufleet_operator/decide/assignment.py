"""Builds the assignment that reserves devices for a replica's pod."""

from collections.abc import Iterable

from gpufleet_api.names import Reclaim
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload import WorkloadSpec
from gpufleet_common import timestamps
from gpufleet_operator.decide.shards import Range
from gpufleet_operator.demand.learned_share import learned_demand
from gpufleet_operator.model.objects import DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS, Pod, Workload
from gpufleet_operator.model.pod_state.device_containers import assigned_containers, of_claim, of_pod, of_template
from gpufleet_operator.model.snapshot import Snapshot


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
    claimed = pod.device_claim is not None
    resource = snapshot.limits.dra_driver if claimed else snapshot.limits.resources.name_for(spec.devices)
    learned = learned_demand(snapshot, workload, [pod])
    containers = of_claim(spec, pod) if claimed else _containers(spec, pod, resource)
    return Assignment(
        pod_uid=pod.uid,
        namespace=pod.namespace,
        pod=pod.name,
        container=next(iter(containers)),
        containers=assigned_containers(containers),
        workload=workload.name,
        workload_uid=workload.uid,
        replica=replica,
        # Without a gang, the pods of other owners have no fixed number.
        replicas=max(spec.replicas, replica + 1),
        resource=resource,
        devices=list(devices),
        memory_mib=spec.devices.memory_mib,
        demand_mib=learned.mib if learned else None,
        demand_runs=learned.runs if learned else None,
        compute_percent=spec.devices.compute_percent,
        shard_start=shard[0] if shard else None,
        shard_end=shard[1] if shard else None,
        reclaim=None if claimed and snapshot.limits.claims_keep_promise else _reclaim(snapshot, spec),
        decided_at=timestamps.micros(snapshot.now),
        termination_grace_period_seconds=None if grace == DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS else grace,
    )


def _reclaim(snapshot: Snapshot, spec: WorkloadSpec) -> Reclaim | None:
    """Returns None for Never, so that the reservations of clusters that don't use it stay as they are."""
    chosen = spec.placement.reclaim or snapshot.limits.default_reclaim
    return chosen if spec.devices.memory_mib is not None and chosen is Reclaim.USED else None


def _containers(spec: WorkloadSpec, pod: Pod, resource: str) -> dict[str, int]:
    """Returns the number of devices of each container.

    The pod says which of its containers request devices. A template that was changed later may have another name, and
    the one of a pod from before the resource was renamed is that of the template.
    """
    requested = of_pod(pod, resource)
    return requested if requested or spec.adopts else of_template(spec)
