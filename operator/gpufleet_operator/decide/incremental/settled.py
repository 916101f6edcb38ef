"""Nodes whose pods no decision waits for: new measurements there matter only to those that may get their devices."""

from gpufleet_api.telemetry.spec import Assignment
from gpufleet_common import timestamps
from gpufleet_operator.decide.incremental.kept import Kept
from gpufleet_operator.fleet.engine_input import sampled_at
from gpufleet_operator.model.cluster.changes import SubjectKind
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.objects import Pod, Telemetry
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState

_CURRENT_SECONDS = 10.0
"""Age up to which a sample is certainly not stale. Older ones are left to the whole rule."""


def is_settled(name: str, snapshot: Snapshot, kept: Kept, index: ClusterIndex) -> bool:
    """Returns True if new measurements of a node can change no status of a workload with devices there.

    All pods there run with the whole devices that are reserved for them, the agent has reported that, its samples are
    current as were those before, and the conditions of the node are written. False leaves the node to the whole rule.

    Args:
        name: Of the node, which reported nothing but new measurements.
        snapshot: The whole cluster.
        kept: Of the last pass.
        index: Of the cluster.
    """
    state, telemetry = kept.state, snapshot.telemetry.get(name)
    if telemetry is None or not _is_current(telemetry):
        return False
    written = state.up_to_date_nodes.get(name)
    if written is None or written.stale or written.drained or written.excluded_until is not None:
        return False
    # The moment at which it becomes stale is still to come, or the last pass found the node stale already.
    if kept.renewals.get((SubjectKind.NODE, name)) is None or name in state.pressure:
        return False
    reserved = {one.pod_uid: one for one in telemetry.assignments}
    return reserved.keys() == index.pods_on.get(name, set()) and all(
        _runs(snapshot.pods.get(uid), name, one, state) for uid, one in reserved.items()
    )


def _is_current(telemetry: Telemetry) -> bool:
    """Returns whether the agent has read all reservations, and all of its samples are new."""
    status = telemetry.status
    if status is None or telemetry.decode_error or status.assignments_generation != telemetry.generation:
        return False
    at = timestamps.to_epoch(status.observed_at)
    # Most devices of a node are sampled together.
    taken = [
        timestamps.to_epoch(text) for text in {sampled_at(device, status.sample_time) for device in status.devices}
    ]
    return at is not None and all(moment is not None and at - moment <= _CURRENT_SECONDS for moment in taken)


def _runs(pod: Pod | None, node: str, assignment: Assignment, state: PassState) -> bool:
    """Returns whether a pod was reported with the whole devices that are reserved for it, and nothing is due."""
    if pod is None or pod.node != node or pod.gates or pod.terminal or pod.deleting:
        return False
    if assignment.memory_mib is not None or assignment.moved_from is not None or assignment.keep_for_successor:
        return False
    uid = pod.uid
    transient = (
        state.unschedulable_since,
        state.unanswered_since,
        state.ended,
        state.released_since,
        state.kept_since,
        state.without_devices,
        state.unhealthy_since,
    )
    return uid in state.seen_holding and not any(uid in one for one in transient)
