"""Environment variables of containers that use a claim. Pure."""

from collections.abc import Iterable, Mapping

from gpufleet_agent.dra.obstacles import assignment_of
from gpufleet_agent.dra.prepared_claim import PreparedDevice
from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.plugin.inject.env import gpufleet_env
from gpufleet_agent.plugin.types import ManagedAllocation
from gpufleet_api.names import ENV_DEVICES, ENV_MEMORY_MIB, ENV_VISIBLE_DEVICES


def claim_env(
    devices: tuple[PreparedDevice, ...],
    pod_uids: frozenset[str],
    assignments: Iterable[Assignment],
    order: Mapping[str, int],
    *,
    visible: str | None,
) -> dict[str, dict[str, str]]:
    """Returns the variables by request.

    The containers of a pod with a reservation get those that the device plugin sets. A container without one gets the
    devices of its request, and the memory of each if it is a share.

    Args:
        devices: Of the claim.
        pod_uids: Of the claim's pods.
        assignments: The reservations.
        order: Index of each device, by UUID.
        visible: Value of `NVIDIA_VISIBLE_DEVICES`; None: the devices, which NVIDIA's runtime then injects.
    """
    known = tuple(assignments)
    requests = dict.fromkeys(device.request for device in devices)
    return {
        request: _request_env(
            tuple(device for device in devices if device.request == request),
            pod_uids,
            known,
            order,
            visible=visible,
        )
        for request in requests
    }


def _request_env(
    devices: tuple[PreparedDevice, ...],
    pod_uids: frozenset[str],
    assignments: tuple[Assignment, ...],
    order: Mapping[str, int],
    *,
    visible: str | None,
) -> dict[str, str]:
    assignment = assignment_of(pod_uids, (device.uuid for device in devices), assignments)
    uuids = {device.uuid for device in devices} if assignment is None else set(assignment.devices)
    ordered = tuple(sorted(uuids, key=lambda uuid: (order.get(uuid, len(order)), uuid)))
    env = {ENV_VISIBLE_DEVICES: ",".join(ordered) if visible is None else visible}
    if assignment is not None:
        return env | gpufleet_env(ManagedAllocation(assignment, ordered))
    env[ENV_DEVICES] = ",".join(ordered)
    shares = {device.memory_mib for device in devices}
    if None not in shares and len(shares) == 1:
        env[ENV_MEMORY_MIB] = str(*shares)
    return env
