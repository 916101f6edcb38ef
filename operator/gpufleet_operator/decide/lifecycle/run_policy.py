"""Applies `spec.runPolicy`: a replica that failed restarts, or all replicas do, or the workload ends.

The result is only recorded: attempts, failures and outcome become part of the status. Pods are deleted and created once
the stored status has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import attrgetter

from gpufleet_api.condition import ConditionStatus
from gpufleet_api.workload_policies import OnReplicaFailure, UpdateStrategyType
from gpufleet_api.workload_status import PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.lifecycle import attempts, losses
from gpufleet_operator.decide.lifecycle.attempts import ReplicaPods
from gpufleet_operator.ledger.kept import key_of
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import DeleteWorkload
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.outcome import Outcome
from gpufleet_operator.model.pod_state.problems import last_failure, not_ready
from gpufleet_operator.model.replica import Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot


def apply_run_policy(
    snapshot: Snapshot, ledger: Ledger, assessed: WorkloadReplicas, found: Sequence[ReplicaPods]
) -> WorkloadReplicas:
    """Returns the replicas with the attempts that this pass starts, or with the outcome of the workload.

    Args:
        snapshot: Its time.
        ledger: Reservations that are kept for a successor: their pod was deleted because the template changed.
        assessed: The replicas by the pods of their current attempts; a failed replica has its pod.
        found: The pods of each replica.
    """
    if assessed.spec.suspend:
        return assessed
    messages = {one.index: losses.lost(assessed.workload, one, snapshot.deleted_pods) for one in found}
    lost = {index: message for index, message in messages.items() if message and not _rolls(ledger, assessed, index)}
    pods = [pod for one in found for pod in one.current]
    failed = tuple(r for r in assessed.replicas if r.state is PlacementState.FAILED)
    outcome = _outcome(snapshot, assessed, failed, pods, lost)
    if outcome is not None:
        return _with_outcome(assessed, outcome, failed)
    if not attempts.needs_all_replicas(assessed.spec):
        replicas = tuple(_next_attempt(r) if r in failed else r for r in assessed.replicas)
        assessed = replace(assessed, replicas=replicas)
    elif failed:
        return _restarted(assessed, failed[0], f"replica {failed[0].index}: {failed[0].message}")
    elif lost:
        index, message = min(lost.items())
        return restart_group(snapshot, assessed, f"replica {index}: {message}")
    return _limit_incomplete_gang(snapshot, assessed)


def restart_group(snapshot: Snapshot, assessed: WorkloadReplicas, message: str) -> WorkloadReplicas:
    """Starts all replicas again without a failure of the application, later than the time before."""
    restart = losses.next_restart(snapshot.limits, assessed.group_restart, snapshot.now)
    return replace(_restarted(assessed, None, message), group_restart=restart)


def next_attempts(assessed: WorkloadReplicas, message: str) -> tuple[Replica, ...]:
    """Returns the replicas in the next attempt, which all of them start together without a failure."""
    return _restarted(assessed, None, message).replicas


def _limit_incomplete_gang(snapshot: Snapshot, assessed: WorkloadReplicas) -> WorkloadReplicas:
    """Starts a gang again of which some replicas ran without the others for too long."""
    missing = _missing_member(assessed)
    if missing is None:
        return assessed
    status = assessed.workload.status
    stored = status.incomplete_since if status is not None else None
    since = timestamps.parse(stored) if stored is not None else snapshot.now
    limit = timedelta(seconds=assessed.spec.placement.gang_timeout_seconds)
    if snapshot.now - since < limit:
        return replace(assessed, incomplete_since=since)
    cause = _problem(missing)
    message = f"gang incomplete for {limit.total_seconds():.0f} s (spec.placement.gangTimeoutSeconds)"
    return restart_group(snapshot, assessed, f"{message}: replica {missing.index}{f': {cause}' if cause else ''}")


def _problem(replica: Replica) -> str:
    """Returns why a member of a gang does not run."""
    if replica.pod is None or replica.pod.node is None:
        return replica.message
    return not_ready(replica.pod).message


def _rolls(ledger: Ledger, assessed: WorkloadReplicas, index: int) -> bool:
    """Returns True when the operator deleted the pod of a replica to replace it by one of a changed template."""
    rolling = assessed.spec.update_strategy.type is UpdateStrategyType.ROLLING_UPDATE
    key = (assessed.workload.uid, index)
    return rolling and any(r.assignment.keep_for_successor and key_of(r) == key for r in ledger.occupying)


def next_moments(assessed: WorkloadReplicas) -> list[datetime]:
    """Returns when the time alone changes what is decided on the replicas."""
    if assessed.outcome is not None or assessed.spec.suspend:
        return []
    moments = [r.starts_at for r in assessed.replicas]
    moments.append(_active_deadline(assessed))
    if assessed.group_restart is not None:
        moments.append(losses.restart_forgotten_at(assessed.group_restart))
    if assessed.incomplete_since is not None:
        moments.append(assessed.incomplete_since + timedelta(seconds=assessed.spec.placement.gang_timeout_seconds))
    return [moment for moment in moments if moment is not None]


def expired(snapshot: Snapshot, guard: WorkloadGuard) -> tuple[DeleteWorkload, ...]:
    """Returns the finished workloads whose `runPolicy.ttlSecondsAfterFinished` is over."""

    def is_expired(workload: Workload) -> DeleteWorkload | None:
        if workload.deleting or (end := expiry(workload)) is None or end > snapshot.now:
            return None
        return DeleteWorkload(workload.uid, workload.namespace, workload.name)

    found = guard.each(is_expired, snapshot.workloads.values(), attrgetter("uid"))
    return tuple(deletion for deletion in found if deletion is not None)


def expiry(workload: Workload) -> datetime | None:
    """Returns when a finished workload is to be deleted; None: it is not finished, or kept."""
    ttl = workload.model.spec.run_policy.ttl_seconds_after_finished if workload.model else None
    if ttl is None or workload.status is None:
        return None
    finished = (c for c in workload.status.conditions if c.type in ("Complete", "Failed"))
    ends = [timestamps.parse(c.last_transition_time) for c in finished if c.status is ConditionStatus.TRUE]
    return ends[0] + timedelta(seconds=ttl) if ends else None


def _missing_member(assessed: WorkloadReplicas) -> Replica | None:
    """Returns a replica of a gang that does not run although another one ran; None: there is none.

    A pod whose containers cannot be created does not run, though it is bound: its node may never be able to start it.
    """
    ended = (PlacementState.SUCCEEDED, PlacementState.UNKNOWN)
    open_ones = [r for r in assessed.replicas if r.state not in ended]
    if not assessed.spec.placement.gang or not any(r.pod is not None and r.pod.ran for r in open_ones):
        return None
    return next((r for r in open_ones if r.pod is None or not _has_started(r.pod)), None)


def _has_started(pod: Pod) -> bool:
    """Returns True when an app container ran, or an init container runs for the first time, which may take long."""
    return pod.ran or any(c.running and c.restarts == 0 for c in pod.init_containers)


def _outcome(
    snapshot: Snapshot,
    assessed: WorkloadReplicas,
    failed: Sequence[Replica],
    pods: Sequence[Pod],
    lost: Mapping[int, str],
) -> Outcome | None:
    spec, policy = assessed.spec, attempts.on_failure(assessed.spec)
    if assessed.replicas and all(r.state is PlacementState.SUCCEEDED for r in assessed.replicas):
        total = len(assessed.replicas)
        return Outcome.success("Succeeded", f"{total} of {total} replicas have succeeded")
    causes = [f"replica {r.index}: {r.message}" for r in failed]
    if policy is OnReplicaFailure.FAIL:
        if spec.placement.gang:
            ended = ((i, message) for i, message in sorted(lost.items()) if not losses.is_evicted(assessed.workload, i))
            causes += [f"replica {index}: {message}" for index, message in ended]
        if causes:
            return Outcome.failure("ReplicaFailed", "; ".join(causes))
    if not attempts.is_service(spec):
        limit, count = spec.run_policy.backoff_limit, _failures(assessed, failed)
        if failed and count > limit:
            message = f"{causes[-1]}; number of failures ({count}) exceeds spec.runPolicy.backoffLimit ({limit})"
            return Outcome.failure("BackoffLimitExceeded", message)
        restarts = attempts.restarts(pods)
        # As for a Job: restarts of containers in their pods count, and reach the limit instead of exceeding it.
        if attempts.restart_policy(spec) == "OnFailure" and restarts and restarts >= limit:
            counted = f"number of container restarts ({restarts}) reached spec.runPolicy.backoffLimit ({limit})"
            return Outcome.failure("BackoffLimitExceeded", f"{_restarted_container(pods)}; {counted}")
    deadline = _active_deadline(assessed)
    if deadline is not None and snapshot.now >= deadline:
        seconds = spec.run_policy.active_deadline_seconds
        return Outcome.failure(
            "DeadlineExceeded", f"active for longer than spec.runPolicy.activeDeadlineSeconds ({seconds} s)"
        )
    return None


def _failures(assessed: WorkloadReplicas, failed: Sequence[Replica]) -> int:
    """Counts failures, with those of this pass. Replicas that restart together fail together: once."""
    new = min(len(failed), 1) if attempts.needs_all_replicas(assessed.spec) else len(failed)
    return assessed.earlier_failures + sum(r.failures for r in assessed.replicas) + new


def _restarted_container(pods: Sequence[Pod]) -> str:
    pod = next(p for p in pods if attempts.restarts([p]))
    return f"pod {pod.name}: {last_failure(pod)}"


def _active_deadline(assessed: WorkloadReplicas) -> datetime | None:
    seconds, status = assessed.spec.run_policy.active_deadline_seconds, assessed.workload.status
    if seconds is None or status is None or status.start_time is None:
        return None
    return timestamps.parse(status.start_time) + timedelta(seconds=seconds)


def _next_attempt(replica: Replica, *, counted: bool = True, message: str = "") -> Replica:
    return Replica(
        replica.index,
        PlacementState.PENDING,
        WaitReason.RESTART_BACKOFF,
        attempt=replica.attempt + 1,
        failures=replica.failures + counted,
        message=message or replica.message,
    )


def _restarted(assessed: WorkloadReplicas, failed: Replica | None, message: str) -> WorkloadReplicas:
    """Restarts all replicas, also those that succeeded. A failure counts in the replica that failed first."""
    number = max(r.attempt for r in assessed.replicas)
    replicas = tuple(
        _next_attempt(replace(r, attempt=number), counted=r is failed, message=message) for r in assessed.replicas
    )
    return replace(assessed, replicas=replicas, incomplete_since=None)


def _with_outcome(assessed: WorkloadReplicas, outcome: Outcome, failed: Sequence[Replica]) -> WorkloadReplicas:
    """Returns the replicas at the end. A replica that neither succeeded nor failed has ended with the workload."""
    together = attempts.needs_all_replicas(assessed.spec)
    replicas = tuple(
        r
        if r.state is PlacementState.SUCCEEDED
        else replace(r, failures=r.failures + (r is failed[0] if together else 1))
        if r in failed
        else Replica(r.index, PlacementState.FAILED, attempt=r.attempt, failures=r.failures, message="workload failed")
        for r in assessed.replicas
    )
    return replace(assessed, replicas=replicas, outcome=outcome, incomplete_since=None)
