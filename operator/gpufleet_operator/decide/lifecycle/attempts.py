"""Attempts: which pods of a replica count, which of them failed, and when the next one may be created.

The number of the attempt is in `status.placements` and, as a label, on the pods. A failure is counted by writing the
next number into the status. Only then does the pod belong to an earlier attempt and its successor may be created, so a
restart of the operator between two writes counts nothing twice and forgets nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gpufleet_api.workload import WorkloadSpec
from gpufleet_api.workload_policies import OnReplicaFailure
from gpufleet_operator.ledger.verify import rejected_by_kubelet
from gpufleet_operator.model.lenient_json import text
from gpufleet_operator.model.objects import Pod, PodPhase, Workload
from gpufleet_operator.model.replica import GroupRestart
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits


def on_failure(spec: WorkloadSpec) -> OnReplicaFailure:
    """Returns `runPolicy.onReplicaFailure` with its default: a gang restarts as a whole."""
    default = OnReplicaFailure.RESTART_ALL if spec.placement.gang else OnReplicaFailure.RESTART_REPLICA
    return spec.run_policy.on_replica_failure or default


def needs_all_replicas(spec: WorkloadSpec) -> bool:
    """Returns True when the other replicas cannot continue after the loss of one, for any cause."""
    policy = on_failure(spec)
    return policy is OnReplicaFailure.RESTART_ALL or (policy is OnReplicaFailure.FAIL and spec.placement.gang)


@dataclass(frozen=True, slots=True)
class ReplicaPods:
    """The pods of one replica by attempt, and the durable counts of the replica."""

    index: int
    attempt: int
    failures: int
    current: tuple[Pod, ...]
    """Pods of the current attempt, also those that are being deleted."""
    obsolete: tuple[Pod, ...]
    """Pods of earlier attempts that are to be deleted."""
    failed: tuple[Pod, ...]
    """Pods of earlier attempts whose application failed."""


def replica_pods(workload: Workload, spec: WorkloadSpec, index: int, pods: Sequence[Pod]) -> ReplicaPods:
    """Sorts the pods of a replica. Those that ended by themselves in earlier attempts are kept for their logs.

    A service can fail without limit, so only the pod of its last attempt is kept.
    """
    stored = workload.stored_placements.get(index)
    attempt = _current_attempt(workload, spec, index, pods)
    earlier = [p for p in pods if p.attempt < attempt]
    kept = [p for p in earlier if p.phase is PodPhase.SUCCEEDED or has_failed(p)]
    if is_service(spec):
        kept = [p for p in kept if p.attempt == attempt - 1]
    return ReplicaPods(
        index=index,
        attempt=attempt,
        failures=(stored.failures or 0) if stored else 0,
        current=tuple(p for p in pods if p.attempt == attempt),
        obsolete=tuple(p for p in earlier if p not in kept),
        failed=tuple(p for p in kept if has_failed(p)),
    )


def _current_attempt(workload: Workload, spec: WorkloadSpec, index: int, pods: Iterable[Pod]) -> int:
    """Returns the attempt in status, or a later one of the replica's pods, if a status was lost."""
    stored = workload.stored_placements.get(index)
    numbers = [pod.attempt for pod in pods]
    if stored is not None:
        numbers.append(stored.attempt or 0)
    elif needs_all_replicas(spec):  # a replica that was added to a gang takes part in the attempt of the others
        numbers += [p.attempt or 0 for p in workload.stored_placements.values()]
    return max(numbers, default=0)


def earlier_failures(workload: Workload, spec: WorkloadSpec) -> int:
    """Returns the failures of replicas that `spec.replicas` does not have any more: scaling down forgets none.

    `status.failed` counts them as well, and is written together with the placements of the remaining replicas.
    """
    placements = workload.stored_placements.items()
    return unlisted_failures(workload) + sum(p.failures or 0 for index, p in placements if index >= spec.replicas)


def unlisted_failures(workload: Workload) -> int:
    """Returns the failures in `status.failed` that no placement in the status has."""
    listed = sum(p.failures or 0 for p in workload.stored_placements.values())
    total = (workload.status.failed or 0) if workload.status else 0
    return max(0, total - listed)


def has_failed(pod: Pod) -> bool:
    """Returns True when the application in a pod failed. A pod that the cluster ended or is deleting did not."""
    return pod.phase is PodPhase.FAILED and not (pod.deleting or pod.disrupted or rejected_by_kubelet(pod))


def is_service(spec: WorkloadSpec) -> bool:
    """Returns True for `restartPolicy: Always`: it does not end, and container restarts are not limited."""
    return restart_policy(spec) == "Always"


def restart_policy(spec: WorkloadSpec) -> str:
    """Returns the template's; empty if the template is malformed."""
    return text(spec.pod_spec.get("restartPolicy"))


def next_starts(
    snapshot: Snapshot, restart: GroupRestart | None, spec: WorkloadSpec, found: Sequence[ReplicaPods]
) -> dict[int, datetime]:
    """Returns from when on a pod may be created, for the replicas that had failures or lost their pod.

    Args:
        snapshot: Its time and settings.
        restart: The last start of all replicas after a loss.
        spec: Of the workload.
        found: The pods of each replica.
    """
    limits, now = snapshot.limits, snapshot.now
    if needs_all_replicas(spec):
        together = restart.at if restart else None
        failed = [p for one in found for p in one.failed]
        after = next_start(limits, failed, sum(one.failures for one in found), now)
        moments = [m for m in (together, after) if m is not None]
        return dict.fromkeys((one.index for one in found), max(moments)) if moments else {}
    own = ((one.index, next_start(limits, one.failed, one.failures, now)) for one in found)
    return {index: moment for index, moment in own if moment is not None}


def next_start(limits: Limits, failed: Iterable[Pod], failures: int, now: datetime) -> datetime | None:
    """Returns when a pod may be created after a failure; the delay doubles with each failure, as for a Job.

    Args:
        limits: Base and cap of the delay.
        failed: Pods whose application failed in earlier attempts.
        failures: Number of failures.
        now: By the apiserver's clock. The end of a pod is by its node's clock, and is not used if it is in the future.
    """
    ends = [ended if (ended := _end_time(pod)) <= now else pod.created for pod in failed]
    if not ends or failures == 0:
        return None
    return max(ends) + restart_delay(limits, failures)


def restart_delay(limits: Limits, number: int) -> timedelta:
    """Returns the delay after the n-th end, from 1."""
    delay: timedelta = min(limits.restart_cap, limits.restart_base * (1 << min(number - 1, 30)))
    return delay


def _end_time(pod: Pod) -> datetime:
    ends = [c.terminated.finished_at for c in pod.containers if c.terminated and c.terminated.finished_at]
    return max(ends, default=pod.created)


def restarts(pods: Iterable[Pod]) -> int:
    """Counts the container restarts of pods that have not ended, init containers included, as for a Job."""
    return sum(c.restarts for p in pods if not p.terminal for c in (*p.init_containers, *p.containers))
