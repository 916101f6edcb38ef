"""Debits and credits picks on device and node states, as `encode` does on arrays."""

from dataclasses import replace

from gpufleet_operator.placement.errors import InvalidFleetError
from gpufleet_operator.placement.model import DeviceState, NodeState, PodNeeds, Share


def debited(device: DeviceState, share: Share | None) -> DeviceState:
    """Returns the device after a pick of the whole device (None) or of a share, which is in flight."""
    if share is None:
        return replace(device, held=True)
    return replace(
        device,
        sharers=device.sharers + 1,
        free_slots=None if device.free_slots is None else device.free_slots - 1,
        in_flight_memory_mib=device.in_flight_memory_mib + share.memory_mib,
        in_flight_compute_percent=device.in_flight_compute_percent + share.compute_percent,
    )


def credited(device: DeviceState, share: Share | None) -> DeviceState:
    """Returns the device after a holder released it; a share is first subtracted from what is in flight.

    What is reclaimed of a shared device counts as reclaimed of this holder: the use of the others is not known here,
    and must not be counted with less than they use.

    Raises:
        InvalidFleetError: the device isn't held as a whole, or less of it is promised than the share.
    """
    if share is None:
        if not device.held:
            raise InvalidFleetError(f"device {device.uuid} is not held as a whole")
        return replace(device, held=False)
    flying, rest = split_share(device, share)
    promised = Share(device.promised_memory_mib, device.promised_compute_percent)
    if rest.memory_mib > promised.memory_mib or rest.compute_percent > promised.compute_percent or not device.sharers:
        raise InvalidFleetError(f"device {device.uuid} has promised less than {share}")
    return replace(
        device,
        sharers=device.sharers - 1,
        free_slots=None if device.free_slots is None else device.free_slots + 1,
        in_flight_memory_mib=device.in_flight_memory_mib - flying.memory_mib,
        in_flight_compute_percent=device.in_flight_compute_percent - flying.compute_percent,
        promised_memory_mib=promised.memory_mib - rest.memory_mib,
        reclaimed_memory_mib=reclaimed_after(device, rest),
        promised_compute_percent=promised.compute_percent - rest.compute_percent,
    )


def split_share(device: DeviceState, share: Share) -> tuple[Share, Share]:
    """Splits a released share into the part in flight, not in any sample yet, and the promised rest."""
    memory = min(share.memory_mib, device.in_flight_memory_mib)
    compute = min(share.compute_percent, device.in_flight_compute_percent)
    return Share(memory, compute), Share(share.memory_mib - memory, share.compute_percent - compute)


def reclaimed_after(device: DeviceState, released: Share) -> int:
    """Returns what is still reclaimed when a holder with this promise is gone."""
    reclaimed = device.reclaimed_memory_mib
    return reclaimed - min(max(0, reclaimed), released.memory_mib)


def with_pod(node: NodeState, pod: PodNeeds) -> NodeState:
    """Returns the node after adding the pod."""
    return _with_resources(node, pod, -1)


def without_pod(node: NodeState, pod: PodNeeds) -> NodeState:
    """Returns the node after removing the pod."""
    return _with_resources(node, pod, 1)


def _with_resources(node: NodeState, pod: PodNeeds, sign: int) -> NodeState:
    extended = dict(node.free_extended)
    for name, amount in pod.extended.items():
        extended[name] = extended.get(name, 0) + sign * amount
    return replace(
        node,
        free_cpu_milli=node.free_cpu_milli + sign * pod.cpu_milli,
        free_memory_bytes=node.free_memory_bytes + sign * pod.memory_bytes,
        free_pods=node.free_pods + sign,
        free_extended=extended,
    )
