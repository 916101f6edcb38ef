"""Each replica's share of `spec.distribution.items`: decided once, then kept by replica index.

A share is told to a container by its environment and can't change while it runs, so what is known (from live
reservations, else from status) is never divided again; a replica whose range got lost gets the gap that it left.
"""

from collections.abc import Mapping, Sequence

from gpufleet_api.workload import CapacityMeasure, Distribution, DistributionMode, WorkloadSpec
from gpufleet_operator.distribution import apportion, apportion_evenly
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.placement.model import DeviceState

Range = tuple[int, int]
"""[start, end)"""


def assigned_ranges(workload: Workload, ledger: Ledger) -> dict[int, Range]:
    """Ranges that were given out already, by replica."""
    ranges: dict[int, Range] = {}
    for index, record in workload.recorded.items():
        if record.shard_start is not None and record.shard_end is not None:
            ranges[index] = (record.shard_start, record.shard_end)
    for entry in ledger.live.values():
        a = entry.assignment
        if a.workload_uid == workload.uid and a.shard_start is not None and a.shard_end is not None:
            ranges[a.replica] = (a.shard_start, a.shard_end)
    return ranges


def divide(
    workload: Workload, spec: WorkloadSpec, given: Mapping[int, Range], picked: Mapping[int, Sequence[DeviceState]]
) -> dict[int, Range]:
    """The range of every replica; empty without a distribution.

    Args:
        workload: whose status tells what was left unassigned, once that is decided.
        spec: the workload's spec.
        given: ranges that stand.
        picked: devices of the replicas that are placed now; all of them when nothing stands yet.

    Raises:
        InvalidCapacityError: no device of the gang has the capacity that is divided by.
    """
    distribution = spec.distribution
    if distribution is None:
        return {}
    if not given:
        if distribution.mode is DistributionMode.UNIFORM:
            fresh = apportion_evenly(distribution.items, range(spec.replicas), distribution.max_per_replica)
        elif distribution.weights is not None:
            fresh = apportion(distribution.items, dict(enumerate(distribution.weights)), distribution.max_per_replica)
        else:
            capacities = {index: _capacity(spec, distribution, picked.get(index, ())) for index in range(spec.replicas)}
            fresh = apportion(distribution.items, capacities, distribution.max_per_replica)
        return fresh.ranges
    left = workload.status.unassigned_items if workload.status else None
    return _filled(given, spec.replicas, distribution.items - (left or 0))


def _capacity(spec: WorkloadSpec, distribution: Distribution, devices: Sequence[DeviceState]) -> int:
    """A replica's capacity in MiB: the sum over its devices; a device that doesn't say counts nothing.

    Of shared devices it has what it is promised, whatever else is free.
    """
    if spec.devices.memory_mib is not None:
        return spec.devices.memory_mib * len(devices)
    if distribution.by is CapacityMeasure.TOTAL_MEMORY:
        return sum(d.memory_total_mib or 0 for d in devices)
    return sum(max(0, d.memory_free_mib or 0) for d in devices)


def _filled(given: Mapping[int, Range], replicas: int, end_of_all: int) -> dict[int, Range]:
    """Ranges are contiguous in replica order: the lost ones share the gap between their neighbours."""
    ranges = dict(given)
    index = 0
    while index < replicas:
        lost = []
        while index < replicas and index not in given:
            lost.append(index)
            index += 1
        if lost:
            start = given[lost[0] - 1][1] if lost[0] > 0 else 0
            end = given[index][0] if index < replicas else end_of_all
            for replica, (first, last) in apportion_evenly(max(0, end - start), lost).ranges.items():
                ranges[replica] = (start + first, start + last)
        index += 1
    return ranges
