"""Verifies that a pod's container got its reserved devices.

There are up to three sources: `allocatedResourcesStatus` in the pod's status (the kubelet, tied to the pod's uid), the
agent's `status.devices[].allocatedTo` (the kubelet's PodResources), and kube-scheduler's allocation of the pod's
ResourceClaim if it has one. One of them is enough for a mismatch, but a mismatch also needs a report that covers the
reservation, so that no pod is deleted because of a report that is older than its reservation. Every source that exists
has to report the devices. The agent exists while it reports. The kubelet is a source for pods' statuses if it has the
field, which is known when a pod on the node has it: before 1.36 it is off by default.
"""

from dataclasses import dataclass

from gpufleet_api.names import DRA_DRIVER
from gpufleet_api.telemetry.gpu_telemetry import TelemetryStatus
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload_status import PlacementState
from gpufleet_common import timestamps
from gpufleet_common.device_ids import device_name, device_of
from gpufleet_operator.ledger.device_usage import held_by, is_holder
from gpufleet_operator.model.objects import Pod, PodPhase, Reservation
from gpufleet_operator.model.pod_state.containers import Container
from gpufleet_operator.model.pod_state.device_containers import DevicesOfContainer, split
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState

_NOT_REPORTED = "the kubelet has not reported the devices yet"
_SEVERITY = {PlacementState.MISMATCH: 0, PlacementState.BOUND: 1, PlacementState.ALLOCATED: 2}


@dataclass(frozen=True, slots=True)
class AllocationCheck:
    """BOUND (not known yet), ALLOCATED, or MISMATCH with a message.

    `missing` names the sources that have not reported the devices yet; empty: all that exist have.
    """

    state: PlacementState
    message: str = ""
    unlisted: bool = False
    """The kubelet listed the devices before and lists none now; nothing contradicts that the container has them."""
    missing: str = ""


def rejected_by_kubelet(pod: Pod) -> bool:
    """Returns True when the kubelet rejected the pod at admission: it is Failed and never ran.

    UnexpectedAdmissionError, OutOf<resource>, TopologyAffinityError, NodeAffinity, NodeShutdown and the like. A failed
    init container sets no reason, and DeadlineExceeded is the user's own limit: both are failures of the application.
    """
    return pod.phase is PodPhase.FAILED and pod.reason not in ("", "DeadlineExceeded") and not pod.ran


def verify_allocation(
    snapshot: Snapshot,
    state: PassState,
    pod: Pod,
    reservation: Reservation,
    *,
    was_allocated: bool = False,
    kubelet_reports: bool = False,
) -> AllocationCheck:
    """Returns whether a bound pod that is not terminal holds the devices of its reservation.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        pod: The pod.
        reservation: Its reservation.
        was_allocated: It was seen with exactly these devices before.
        kubelet_reports: The node's kubelet has `allocatedResourcesStatus`, see `nodes_with_device_status`.
    """
    report = _covering_report(snapshot, state, reservation)
    claimed = _verify_claim(snapshot, pod, reservation)
    if claimed is not None:
        return claimed
    checks = [
        _verify_container(
            snapshot,
            state,
            pod,
            reservation,
            part,
            report=report,
            was_allocated=was_allocated,
            kubelet_reports=kubelet_reports,
        )
        for part in split(reservation.assignment)
    ]
    return min(checks, key=lambda check: _SEVERITY[check.state])


def _verify_claim(snapshot: Snapshot, pod: Pod, reservation: Reservation) -> AllocationCheck | None:
    """Returns the error of the allocation of the pod's claim; None: it has the reserved devices."""
    if pod.device_claim is None or not snapshot.limits.claims:
        return None
    claim = snapshot.claim_of(pod)
    if claim is None or claim.allocated is None:
        return AllocationCheck(PlacementState.BOUND, missing=f"ResourceClaim {pod.claim_name} is not allocated")
    allocated = sorted((d.driver, d.pool, d.device) for d in claim.allocated)
    devices, driver = reservation.assignment.devices, reservation.assignment.resource
    if driver == DRA_DRIVER:
        expected = sorted((driver, reservation.node, device_name(uuid)) for uuid in devices)
    else:  # the driver chooses the names of devices; the agent's report has their UUIDs
        expected = sorted((driver, reservation.node, device) for _, _, device in allocated[: len(devices)])
    if allocated == expected and len(allocated) == len(devices):
        return None
    found = ", ".join(f"{device} of {driver} on {pool}" for driver, pool, device in allocated)
    reserved = f"reserved {_join(frozenset(devices))} on {reservation.node}"
    return AllocationCheck(PlacementState.MISMATCH, f"{reserved}, but ResourceClaim {claim.name} has {found}")


def _verify_container(
    snapshot: Snapshot,
    state: PassState,
    pod: Pod,
    reservation: Reservation,
    part: DevicesOfContainer,
    *,
    report: TelemetryStatus | None,
    was_allocated: bool,
    kubelet_reports: bool,
) -> AllocationCheck:
    assignment, reserved = reservation.assignment, part.devices
    container = pod.container(part.container)
    # For shared devices the kubelet reports share slots: of each device as many as the container requests devices.
    ids = container.devices.get(assignment.resource) if container else None
    kubelet = None if ids is None else frozenset(map(device_of, ids))
    agent = held_by(report, assignment, part.container, listed=True) if report else None
    if agent == frozenset(assignment.devices) and _is_of_other_driver(pod, assignment):
        agent = reserved  # the kubelet lists the whole claim for each of its containers
    for held, source in ((kubelet, "kubelet"), (agent, "PodResources")):
        if held and held != reserved and report is not None:
            message = f"reserved {_join(reserved)}, but {source} reports {_join(held)}"
            return AllocationCheck(PlacementState.MISMATCH, message)
    if reserved in (kubelet, agent):
        if agent != reserved:
            missing = _unreported_by_agent(snapshot, reservation)
        else:
            # The kubelet has no such status for sidecars, and no UUIDs of the claims of other drivers.
            reports = (
                kubelet_reports
                and not _is_of_other_driver(pod, assignment)
                and all(c.name != part.container for c in pod.init_containers)
            )
            missing = _NOT_REPORTED if kubelet != reserved and reports else ""
        return AllocationCheck(PlacementState.ALLOCATED, missing=missing)
    if report is not None and container is not None and _runs_without_devices(snapshot, state, pod, report, container):
        return _without_devices(report, reservation, was_allocated=was_allocated)
    return AllocationCheck(PlacementState.BOUND, missing=_NOT_REPORTED)


def _is_of_other_driver(pod: Pod, assignment: Assignment) -> bool:
    return pod.device_claim is not None and assignment.resource != DRA_DRIVER


def nodes_with_device_status(snapshot: Snapshot) -> frozenset[str]:
    """Returns the nodes whose kubelet reports devices in `allocatedResourcesStatus` of a pod that has not ended."""
    pods = (pod for pod in snapshot.pods.values() if pod.node is not None and not pod.terminal)
    return frozenset(pod.node or "" for pod in pods if any(c.devices for c in pod.containers))


def _unreported_by_agent(snapshot: Snapshot, reservation: Reservation) -> str:
    """Returns that the agent has not reported the devices yet; empty if it does not report at present."""
    stale = snapshot.stale_reason(reservation.node) is not None
    return "" if stale else f"the agent on {reservation.node} has not reported the devices yet"


def _covering_report(snapshot: Snapshot, state: PassState, reservation: Reservation) -> TelemetryStatus | None:
    """Returns the agent's report if it is fresh and the agent had read the reservation by then."""
    telemetry = snapshot.telemetry.get(reservation.node)
    if telemetry is None or telemetry.status is None or snapshot.stale_reason(reservation.node) is not None:
        return None
    _, first = state.first_generation.get(reservation.assignment.pod_uid, ("", telemetry.generation))
    return telemetry.status if (telemetry.status.assignments_generation or 0) >= first else None


def _runs_without_devices(
    snapshot: Snapshot, state: PassState, pod: Pod, report: TelemetryStatus, container: Container
) -> bool:
    """Returns True when nothing is held in two reports since the container's start, some seconds apart, nor in between.

    A single report may come from an agent that had just started: the pod is deleted for this, so it takes a second
    one. The times are the node's own clock.
    """
    first = state.without_devices.get(pod.uid)
    if not container.running or first is None:
        return False
    return timestamps.parse(report.observed_at) - timestamps.parse(first) >= snapshot.limits.missing_devices_grace


def _without_devices(report: TelemetryStatus, reservation: Reservation, *, was_allocated: bool) -> AllocationCheck:
    """Checks a container for which the kubelet lists nothing.

    A container that never had its devices runs without them. One that had them still has them: a kubelet never takes
    devices away, but it forgets them when its checkpoint is lost. It is left alone until another container gets one.
    """
    reserved = frozenset(reservation.assignment.devices)
    others = sorted(
        f"{holder.namespace}/{holder.pod}"
        for device in report.devices
        if device.uuid in reserved
        for holder in device.allocated_to
        if reservation.assignment.memory_mib is None and not is_holder(holder, reservation.assignment)
    )
    if was_allocated and not others:
        message = f"kubelet lists no devices for the running container, which held {_join(reserved)} before"
        return AllocationCheck(PlacementState.ALLOCATED, message, unlisted=True)
    held = f", which {others[0]} holds" if others else ""
    return AllocationCheck(
        PlacementState.MISMATCH, f"container runs without its reserved devices {_join(reserved)}{held}"
    )


def _join(devices: frozenset[str]) -> str:
    return ", ".join(sorted(devices))
