"""Losses: a replica's pod ended after it ran, and the application did not end it.

Only workloads whose replicas cannot go on without each other react to a loss. A pod that the operator itself removes is
not lost: `removals` records the reason in the status before the pod is deleted.
"""

from collections.abc import Mapping
from datetime import datetime

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement
from gpufleet_common import timestamps
from gpufleet_operator.decide.lifecycle.attempts import ReplicaPods, has_failed, restart_delay
from gpufleet_operator.model.objects import Pod, PodDeletion, PodPhase, Workload
from gpufleet_operator.model.pod_state.problems import failure
from gpufleet_operator.model.replica import EVICTIONS, GroupRestart
from gpufleet_operator.model.state_types import BACKOFF_RESET, Limits

RELEASED_STATES = frozenset(
    {PlacementState.RESERVED, PlacementState.BOUND, PlacementState.ALLOCATED, PlacementState.MISMATCH}
)
"""States in status of a replica whose pod may run."""


def lost(workload: Workload, found: ReplicaPods, deletions: Mapping[str, PodDeletion]) -> str:
    """Returns how a replica's pod ended after it ran, if neither by itself nor replaced alone; empty: it did not.

    Args:
        workload: Its status has the pod that the replica had.
        found: The pods of the replica.
        deletions: How pods were deleted.
    """
    if any(not p.deleting and (p.phase is PodPhase.SUCCEEDED or not p.terminal) for p in found.current):
        return ""
    stored = workload.stored_placements.get(found.index)
    for pod in found.current:
        if message := _lost_pod(pod, stored if stored is not None and stored.pod_uid == pod.uid else None):
            return message
    if found.current or stored is None or stored.pod_uid is None or (stored.attempt or 0) != found.attempt:
        return ""
    never_ran = stored.state not in RELEASED_STATES or deletions.get(stored.pod_uid) is PodDeletion.NEVER_BOUND
    return "" if never_ran or _is_replaced_alone(stored) else f"pod {stored.pod} is gone"


def may_have_ended_unseen(
    stored: ReplicaPlacement | None, found: ReplicaPods, deletions: Mapping[str, PodDeletion]
) -> bool:
    """Returns True when the pod that a replica had may have succeeded, and nothing shows how it ended.

    Args:
        stored: The status of the replica.
        found: Its pods, of which none is of the current attempt.
        deletions: How pods were deleted, if this process saw it.
    """
    if stored is None or stored.pod_uid is None or (stored.attempt or 0) != found.attempt:
        return False
    if stored.removal is not None or stored.pod_uid in deletions:
        return False
    return stored.state in RELEASED_STATES or stored.state is PlacementState.UNKNOWN


def is_evicted(workload: Workload, index: int) -> bool:
    """Returns True when the operator evicted the replica's pod, or is about to: its loss ends no workload."""
    stored = workload.stored_placements.get(index)
    return stored is not None and stored.removal in EVICTIONS


def stored_restart(workload: Workload, now: datetime) -> GroupRestart | None:
    """Returns the last start of all replicas after a loss; None: there was none for some time."""
    status = workload.status
    if status is None or not status.restarts or status.restart_time is None:
        return None
    found = GroupRestart(status.restarts, timestamps.parse(status.restart_time))
    return None if now >= restart_forgotten_at(found) else found


def restart_forgotten_at(restart: GroupRestart) -> datetime:
    """Returns when a restart of all replicas no longer counts: the next one is the first again."""
    return restart.at + BACKOFF_RESET


def next_restart(limits: Limits, previous: GroupRestart | None, now: datetime) -> GroupRestart:
    """Returns the start after another loss: immediate the first time, later delayed as after a failure."""
    if previous is None:
        return GroupRestart(1, now)
    return GroupRestart(previous.count + 1, now + restart_delay(limits, previous.count))


def _lost_pod(pod: Pod, stored: ReplicaPlacement | None) -> str:
    ran = pod.ran or (stored is not None and stored.state is PlacementState.ALLOCATED)
    if not ran or (stored is not None and _is_replaced_alone(stored)):
        return ""
    if pod.deleting:
        return f"pod {pod.name} was deleted"
    if pod.phase is PodPhase.FAILED and not has_failed(pod):
        return f"pod {pod.name} was disrupted: {failure(pod)}"
    return ""


def _is_replaced_alone(stored: ReplicaPlacement) -> bool:
    """Returns True when the operator removes the pod and the other replicas go on."""
    return stored.removal is not None and stored.removal not in EVICTIONS
