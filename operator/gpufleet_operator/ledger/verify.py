"""What became of a reservation: does the container hold exactly its devices, others, none, or was it refused?

Two witnesses: `allocatedResourcesStatus` in the pod's status (the kubelet, tied to the pod's uid) and the agent's
`status.devices[].allocatedTo` (the kubelet's PodResources). Either one can convict; a verdict against a pod needs a
report that covers the reservation, so that the agent's old view of the ledger is never held against it.
"""

from dataclasses import dataclass

from gpufleet_api.telemetry import Assignment, TelemetryStatus
from gpufleet_api.workload import PlacementState
from gpufleet_common import timestamps
from gpufleet_common.device_ids import device_of
from gpufleet_operator.ledger.device_usage import held_by
from gpufleet_operator.model.objects import Container, Pod, PodPhase
from gpufleet_operator.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class AllocationCheck:
    """BOUND (nothing known yet), CONFIRMED or MISMATCH, and why."""

    state: PlacementState
    message: str = ""


def rejected_by_kubelet(pod: Pod) -> bool:
    """True when the kubelet refused the pod: it is Failed for good and never ran.

    UnexpectedAdmissionError, OutOf<resource>, TopologyAffinityError, NodeAffinity, NodeShutdown and the like. A
    failed init container leaves no reason, and DeadlineExceeded is the user's own limit: both are the application's.
    """
    return pod.phase is PodPhase.FAILED and pod.reason not in ("", "DeadlineExceeded") and not pod.ran


def verify_allocation(snapshot: Snapshot, pod: Pod, node: str, assignment: Assignment) -> AllocationCheck:
    """Judge a pod that is on its node and not over."""
    wanted = frozenset(assignment.devices)
    container = pod.container(assignment.container)
    report = _report(snapshot, node, assignment)
    # For a shared device the kubelet names slots: each of another device, as many as there are devices.
    ids = container.devices.get(assignment.resource) if container else None
    kubelet = None if ids is None else frozenset(map(device_of, ids))
    agent = held_by(report, assignment, assignment.container) if report else None
    for held, witness in ((kubelet, "the kubelet"), (agent, "PodResources")):
        if held and held != wanted and report is not None:
            return AllocationCheck(
                PlacementState.MISMATCH, f"{witness} says {_names(held)}; reserved: {_names(wanted)}"
            )
    if wanted in (kubelet, agent):
        return AllocationCheck(PlacementState.CONFIRMED)
    if report is not None and container is not None and _runs_without(snapshot, pod, report, container):
        return AllocationCheck(
            PlacementState.MISMATCH, f"the container runs without devices; reserved: {_names(wanted)}"
        )
    return AllocationCheck(PlacementState.BOUND)


def _report(snapshot: Snapshot, node: str, assignment: Assignment) -> TelemetryStatus | None:
    """The agent's report, when it is fresh and was made with this reservation in view."""
    telemetry = snapshot.telemetry.get(node)
    if telemetry is None or telemetry.status is None or snapshot.stale_reason(node) is not None:
        return None
    first = snapshot.memory.covered_from.get(assignment.pod_uid, telemetry.generation)
    return telemetry.status if (telemetry.status.assignments_generation or 0) >= first else None


def _runs_without(snapshot: Snapshot, pod: Pod, report: TelemetryStatus, container: Container) -> bool:
    """Nothing is held, in two reports since the container's start with some seconds between, nor in any between.

    One report alone may stem from an agent that had just started: a pod is deleted for this verdict, so it takes a
    second look. The times are the node's own clock.
    """
    first = snapshot.memory.bare.get(pod.uid)
    if not container.running or first is None:
        return False
    return timestamps.parse(report.observed_at) - timestamps.parse(first) >= snapshot.limits.holder_delay


def _names(devices: frozenset[str]) -> str:
    return ", ".join(sorted(devices))
