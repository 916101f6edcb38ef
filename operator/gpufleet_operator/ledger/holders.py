"""Reading the agent's report: which devices does the kubelet say a reservation's pod holds?"""

from gpufleet_api.telemetry import Assignment, DeviceHolder, TelemetryStatus


def is_holder(holder: DeviceHolder, assignment: Assignment) -> bool:
    """Pod names carry a unique suffix, so namespace and name identify a pod where the agent doesn't know the uid."""
    if holder.pod_uid is not None:
        return holder.pod_uid == assignment.pod_uid
    return (holder.namespace, holder.pod) == (assignment.namespace, assignment.pod)


def held_by(status: TelemetryStatus, assignment: Assignment, container: str | None = None) -> frozenset[str]:
    """Devices reported with the reservation's pod, in whichever container or in the one named."""
    return frozenset(
        d.uuid
        for d in status.devices
        if any(is_holder(h, assignment) and container in (None, h.container) for h in d.allocated_to)
    )
