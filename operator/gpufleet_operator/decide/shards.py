"""The range of `spec.distribution.items` of each replica: decided once, then kept by replica index.

A range is passed to a container in its environment and can't change while it runs. So known ranges (from active
reservations, else from status) are never divided again, and a replica without one gets the gap between the others.
"""

from collections.abc import Iterable, Mapping, Sequence

from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload import CapacityMeasure, Distribution, DistributionMode, WorkloadSpec
from gpufleet_api.workload_status import ReplicaPlacement
from gpufleet_operator.distribution import apportion, apportion_evenly
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.replica import WorkloadReplicas
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.model import DeviceState, Pick

Range = tuple[int, int]
"""[start, end)"""


def new_ranges(assessed: WorkloadReplicas, ledger: Ledger, fleet: Fleet, picks: Iterable[Pick]) -> Mapping[int, Range]:
    """Returns the ranges of the replicas that get these devices, and of the others; empty without a distribution."""
    picked = {pick.replica: pick for pick in picks}
    if assessed.spec.distribution is None or not picked:
        return {}
    devices = {
        replica: [device for device in fleet.nodes[pick.node].devices if device.uuid in pick.devices]
        for replica, pick in picked.items()
    }
    return divide(assessed.workload, assessed.spec, assigned_ranges(assessed.workload, ledger), devices)


def range_of(source: ReplicaPlacement | Assignment) -> Range | None:
    """Returns the range in a stored placement or an assignment."""
    if source.shard_start is None or source.shard_end is None:
        return None
    return source.shard_start, source.shard_end


def assigned_ranges(workload: Workload, ledger: Ledger) -> dict[int, Range]:
    """Returns the ranges that are assigned already, by replica. Active reservations take precedence over status."""
    reserved = [r.assignment for r in ledger.active.values() if r.assignment.workload_uid == workload.uid]
    sources: Iterable[tuple[int, ReplicaPlacement | Assignment]] = (
        *workload.stored_placements.items(),
        *((a.replica, a) for a in reserved),
    )
    return {replica: found for replica, source in sources if (found := range_of(source)) is not None}


def divide(
    workload: Workload, spec: WorkloadSpec, assigned: Mapping[int, Range], picked: Mapping[int, Sequence[DeviceState]]
) -> dict[int, Range]:
    """Returns the range of every replica; empty without a distribution.

    Args:
        workload: Its status has the unassigned items, once they are decided.
        spec: The workload's spec.
        assigned: Ranges that are kept.
        picked: Devices of the replicas that are placed now: of all replicas when no range is assigned yet.

    Raises:
        InvalidCapacityError: No device of the gang has the capacity to divide by.
    """
    distribution = spec.distribution
    if distribution is None:
        return {}
    if not assigned:
        if distribution.mode is DistributionMode.UNIFORM:
            divided = apportion_evenly(distribution.items, range(spec.replicas), distribution.max_per_replica)
        elif distribution.weights is not None:
            divided = apportion(distribution.items, dict(enumerate(distribution.weights)), distribution.max_per_replica)
        else:
            capacities = {i: _capacity_mib(spec, distribution, picked.get(i, ())) for i in range(spec.replicas)}
            divided = apportion(distribution.items, capacities, distribution.max_per_replica)
        return divided.ranges
    unassigned = workload.status.unassigned_items if workload.status else None
    return _fill_gaps(assigned, spec.replicas, distribution.items - (unassigned or 0))


def _capacity_mib(spec: WorkloadSpec, distribution: Distribution, devices: Sequence[DeviceState]) -> int:
    """Sums a replica's capacity over its devices; a device without the value counts as 0.

    The capacity of shared devices is what the replica is promised, however much is free.
    """
    if spec.devices.memory_mib is not None:
        return spec.devices.memory_mib * len(devices)
    if distribution.by is CapacityMeasure.TOTAL_MEMORY:
        return sum(d.memory_total_mib or 0 for d in devices)
    return sum(max(0, d.memory_free_mib or 0) for d in devices)


def _fill_gaps(assigned: Mapping[int, Range], replicas: int, end_of_items: int) -> dict[int, Range]:
    """Ranges are contiguous in the order of replicas: replicas without one divide the gap between their neighbors."""
    ranges = dict(assigned)
    index = 0
    while index < replicas:
        missing = []
        while index < replicas and index not in assigned:
            missing.append(index)
            index += 1
        if missing:
            start = assigned[missing[0] - 1][1] if missing[0] > 0 else 0
            end = assigned[index][0] if index < replicas else end_of_items
            for replica, (first, last) in apportion_evenly(max(0, end - start), missing).ranges.items():
                ranges[replica] = (start + first, start + last)
        index += 1
    return ranges
