"""Decides which pods of an older template are deleted now, within `spec.updateStrategy`.

The decision is durable before it is carried out: first the reservation of such a pod is marked to be kept for its
successor (`keepForSuccessor`), then, in a later pass that reads the mark, the pod is deleted. `successors` passes the
devices on. A restart of the operator between any two of these writes continues with the next one.

Pods with a gate are replaced immediately: nothing ran in them. Replicas that depend on each other are updated together.
Others are updated as in a Deployment: at most `maxUnavailable` replicas are unavailable, and those that are unavailable
anyway are first, then those with the highest index. No pod is replaced while the new template is invalid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from gpufleet_api.workload_policies import UpdateStrategy, UpdateStrategyType
from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.lifecycle.attempts import needs_all_replicas
from gpufleet_operator.ledger.kept import marked
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Pod, Reservation
from gpufleet_operator.model.replica import ENDED_STATES, Removal, RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot

_MESSAGE = "spec.template changed"


@dataclass(frozen=True, slots=True)
class _Updated:
    """One workload, and the reservations whose mark changes."""

    assessed: WorkloadReplicas
    marks: Sequence[Reservation] = ()


def apply_update_strategy(
    snapshot: Snapshot, ledger: Ledger, assessed: Sequence[WorkloadReplicas], *, guard: WorkloadGuard
) -> tuple[Ledger, tuple[WorkloadReplicas, ...]]:
    """Returns the ledger with the marks to write, and the workloads with the additional removals."""
    updated = guard.workloads(partial(_update, snapshot, ledger), assessed)
    marks = {m.assignment.pod_uid: m for one in updated for m in one.marks}
    if marks:
        ledger = replace(ledger, active={**ledger.active, **marks})
    return ledger, tuple(one.assessed for one in updated)


def is_outdated(pod: Pod | None, template_hash: str) -> bool:
    """Returns True for a pod of another template. A pod without the label is not replaced for that.

    Args:
        pod: None is not outdated.
        template_hash: Of the current template; empty: no pod can have it.
    """
    return pod is not None and not pod.terminal and pod.template_hash not in ("", template_hash)


def max_unavailable(strategy: UpdateStrategy, replicas: int) -> int:
    """Returns how many replicas may be unavailable during an update; a percentage is rounded up."""
    value = strategy.max_unavailable
    return value if isinstance(value, int) else -(-replicas * int(value.rstrip("%")) // 100)


def _update(snapshot: Snapshot, ledger: Ledger, assessed: WorkloadReplicas) -> _Updated:
    current = snapshot.templates[assessed.workload.uid].template_hash
    replicas = tuple(replace(r, outdated=True) if is_outdated(r.pod, current) else r for r in assessed.replicas)
    removed = {removal.pod.uid for removal in assessed.removals}
    # Without a successor, the devices of a pod are not kept.
    may_roll = not assessed.template_errors
    marks = _changed_marks(ledger, replicas if may_roll else assessed.replicas, removed)
    if not any(r.outdated for r in replicas):
        return _Updated(assessed, marks)
    assessed = replace(assessed, replicas=replicas)
    if not may_roll:
        return _Updated(assessed, marks)
    candidates = [r for r in replicas if r.outdated and r.pod is not None and r.pod.uid not in removed]
    gated = [r for r in candidates if r.gated]
    chosen = [r for r in gated if _may_delete(ledger, r)] + _released(ledger, assessed, candidates)
    removals = [Removal(r.pod, r.index, RemovalReason.OUTDATED, _MESSAGE) for r in chosen if r.pod is not None]
    held_back = {r.index for r in gated}
    replicas = tuple(_held_back(r) if r.index in held_back else r for r in replicas)
    return _Updated(replace(assessed, replicas=replicas, removals=(*assessed.removals, *removals)), marks)


def _changed_marks(ledger: Ledger, replicas: Sequence[Replica], removed: set[str]) -> list[Reservation]:
    """Returns the reservations to mark, and those to unmark: the template changed back, or their devices are bad."""
    changed = []
    for replica in replicas:
        reservation = ledger.active.get(replica.pod.uid) if replica.pod else None
        if replica.pod is None or reservation is None:
            continue
        keep = replica.outdated and replica.pod.uid not in removed
        if keep is not bool(reservation.assignment.keep_for_successor):
            changed.append(marked(reservation, keep=keep))
    return changed


def _may_delete(ledger: Ledger, replica: Replica) -> bool:
    """Returns True when the pod has no devices, or the mark that keeps them is stored."""
    reservation = ledger.active.get(replica.pod.uid) if replica.pod else None
    if reservation is None:
        return replica.gated
    return bool(reservation.assignment.keep_for_successor)


def _held_back(replica: Replica) -> Replica:
    """Returns a gated replica that is no longer placed or released, because its pod is replaced."""
    message = f"replacing the pod: {_MESSAGE}"
    return replace(
        replica, state=PlacementState.PENDING, wait_reason=WaitReason.REPLACEMENT, reservation=None, message=message
    )


def _released(ledger: Ledger, assessed: WorkloadReplicas, candidates: Sequence[Replica]) -> list[Replica]:
    """Returns the released replicas to delete now."""
    spec = assessed.spec
    if spec.update_strategy.type is UpdateStrategyType.ON_DELETE:
        return []
    released = [r for r in candidates if not r.gated]
    if needs_all_replicas(spec):
        return released if all(_may_delete(ledger, r) for r in released) else []
    going = {r.index for r in released}
    unavailable = sum(r.index not in going and r.state not in ENDED_STATES and not r.ready for r in assessed.replicas)
    budget = max_unavailable(spec.update_strategy, spec.replicas) - unavailable
    released.sort(key=lambda r: r.index, reverse=True)
    broken = [r for r in released if not r.ready]
    working = [r for r in released if r.ready]
    chosen = broken[: max(0, budget)] + working[: max(0, budget - len(broken))]
    return [r for r in chosen if _may_delete(ledger, r)]
