"""Computes the state of a node without some of the pods that hold its devices."""

from collections.abc import Collection
from dataclasses import replace

from gpufleet_operator.placement.fleet.accounting import reclaimed_after, split_share, without_pod
from gpufleet_operator.placement.model import DeviceState, HolderPod, NodeState, Share


def without(node: NodeState, gone: Collection[HolderPod]) -> NodeState:
    """Returns the node without these pods.

    A pod's observed use is assumed to be freed with it; a share is first subtracted from what is in flight.
    """
    devices = {d.uuid: d for d in node.devices}
    for holder in gone:
        for uuid in holder.devices:
            if uuid in devices:
                devices[uuid] = _released(devices[uuid], holder.share)
        node = without_pod(node, holder.pod)
    kept = tuple(h for h in node.holders if h not in gone)
    return replace(node, devices=tuple(devices[d.uuid] for d in node.devices), holders=kept)


def _released(device: DeviceState, share: Share | None) -> DeviceState:
    if share is None:
        return _idle(replace(device, held=False))
    flying, rest = split_share(device, share)
    used, busy = device.memory_used_mib, device.utilization_percent
    left = replace(
        device,
        sharers=max(0, device.sharers - 1),
        free_slots=None if device.free_slots is None else device.free_slots + 1,
        in_flight_memory_mib=device.in_flight_memory_mib - flying.memory_mib,
        in_flight_compute_percent=device.in_flight_compute_percent - flying.compute_percent,
        promised_memory_mib=max(0, device.promised_memory_mib - rest.memory_mib),
        reclaimed_memory_mib=reclaimed_after(device, rest),
        promised_compute_percent=max(0, device.promised_compute_percent - rest.compute_percent),
        memory_used_mib=None if used is None else max(0, used - rest.memory_mib),
        utilization_percent=None if busy is None else max(0, busy - rest.compute_percent),
    )
    return left if left.sharers else _idle(left)


def _idle(device: DeviceState) -> DeviceState:
    """Without holders, the observed use is assumed to be theirs."""
    return replace(
        device,
        memory_used_mib=None if device.memory_used_mib is None else 0,
        utilization_percent=None if device.utilization_percent is None else 0,
        process_count=None if device.process_count is None else 0,
    )
