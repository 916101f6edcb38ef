"""Hard tests, in the order of `Reason`: the first one that a device fails is the one reported."""

from gpufleet_operator.placement import constraints
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, PodNeeds, Reason


def refuse_node(node: NodeState, pod: PodNeeds, set_aside: frozenset[str]) -> Reason | None:
    """Why no device of this node may serve the pod, before any device is looked at."""
    if node.name in set_aside:
        return Reason.NODE_SET_ASIDE
    if reason := constraints.refusal(node, pod):
        return reason
    return Reason.TELEMETRY_STALE if node.stale_reason is not None else None


def refuse_room(node: NodeState, pod: PodNeeds) -> Reason | None:
    """What the node lacks beside the devices, as kube-scheduler counts it."""
    if pod.cpu_milli > node.free_cpu_milli:
        return Reason.NODE_CPU
    if pod.memory_bytes > node.free_memory_bytes:
        return Reason.NODE_MEMORY
    if node.free_pods < 1:
        return Reason.NODE_PODS
    if any(need > node.free_extended.get(name, 0) for name, need in pod.extended.items()):
        return Reason.NODE_RESOURCE
    return None


def refuse_device(device: DeviceState, needs: DeviceNeeds) -> Reason | None:
    """Why this device may not serve, or None. A requirement on an absent measurement fails."""
    return _refuse_state(device) or _refuse_identity(device, needs) or _refuse_measurement(device, needs)


def _refuse_state(device: DeviceState) -> Reason | None:
    if device.sample_age_seconds is None:
        return Reason.TELEMETRY_STALE
    if not device.healthy:
        return Reason.UNHEALTHY
    if device.held or device.promised_memory_mib or device.promised_compute_percent:
        return Reason.IN_USE
    return Reason.FOREIGN_PROCESS if device.process_count else None


def _refuse_identity(device: DeviceState, needs: DeviceNeeds) -> Reason | None:
    if needs.include_uuids and device.uuid not in needs.include_uuids:
        return Reason.NOT_INCLUDED
    if device.uuid in needs.exclude_uuids:
        return Reason.EXCLUDED
    if needs.models and device.model not in needs.models:
        return Reason.MODEL
    if needs.min_compute_capability is not None:
        if device.compute_capability is None:
            return Reason.MEASUREMENT_MISSING
        if capability(device.compute_capability) < capability(needs.min_compute_capability):
            return Reason.COMPUTE_CAPABILITY
    return None


def _refuse_measurement(device: DeviceState, needs: DeviceNeeds) -> Reason | None:
    if needs.min_free_memory_mib is not None:
        free = free_memory_mib(device)
        if free is None:
            return Reason.MEASUREMENT_MISSING
        if free < needs.min_free_memory_mib:
            return Reason.FREE_MEMORY
    for limit, value, reason in (
        (needs.max_utilization_percent, device.utilization_percent, Reason.UTILIZATION),
        (needs.max_temperature_celsius, device.temperature_celsius, Reason.TEMPERATURE),
    ):
        if limit is not None and value is None:
            return Reason.MEASUREMENT_MISSING
        if limit is not None and value is not None and value > limit:
            return reason
    return None


def free_memory_mib(device: DeviceState) -> int | None:
    """Total minus what is promised or in use, whichever is more; None when the device doesn't say."""
    if device.memory_total_mib is None or device.memory_used_mib is None:
        return None
    return device.memory_total_mib - max(device.memory_used_mib, device.promised_memory_mib)


def capability(text: str) -> tuple[int, int]:
    """`9.0` -> (9, 0), so that 10.0 is above 9.0."""
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)
