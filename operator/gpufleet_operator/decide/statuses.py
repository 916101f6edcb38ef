"""Collects the statuses that differ from the stored ones."""

from collections.abc import Sequence

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.plan import Plan
from gpufleet_operator.decide.retries.pause_rules import pause_key
from gpufleet_operator.model.actions import WriteStatus, create_key, service_key
from gpufleet_operator.model.replica import WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Backoff, PassState, Rejections
from gpufleet_operator.placement.model import Terms
from gpufleet_operator.status import build
from gpufleet_operator.status.context import StatusContext


def collect_statuses(
    snapshot: Snapshot, state: PassState, rejections: Rejections, assessed: Sequence[WorkloadReplicas], plan: Plan
) -> tuple[WriteStatus, ...]:
    """Returns the statuses to write, without those that are backing off.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        rejections: Including those of this pass.
        assessed: The workloads with a valid template.
        plan: The devices picked in this pass.
    """
    assessed_by_uid = {a.workload.uid: a for a in assessed}
    picked: dict[str, dict[int, Terms]] = {}
    for (uid, index), pick in plan.picked.items():
        picked.setdefault(uid, {})[index] = pick.terms
    rejected: dict[str, dict[tuple[int, str], Backoff]] = {}
    holding = {(a.workload.uid, r.index) for a in assessed for r in a.replicas if r.state is PlacementState.ALLOCATED}
    for (uid, index, node), backoff in rejections.backoffs.items():
        if (uid, index) in holding:
            continue  # kept in case that the allocation is taken back, but there is nothing to explain
        rejected.setdefault(uid, {})[index, node] = backoff
    writes: list[WriteStatus] = []
    for uid, workload in snapshot.workloads.items():
        if workload.deleting:
            continue
        check, assessed_one = snapshot.templates.get(uid), assessed_by_uid.get(uid)
        replicas = assessed_one.replicas if assessed_one is not None else ()
        context = StatusContext(
            workload=workload,
            assessed=assessed_one,
            template_errors=check.errors if check else (),
            create_error=_rejection(state, create_key(uid)),
            service_error=_rejection(state, service_key(uid)),
            reservations=plan.ledger.active,
            picked=picked.get(uid, {}),
            diagnosis=plan.unplaced.get(uid),
            rejections=rejected.get(uid, {}),
            pauses={r.index: p for r in replicas if (p := rejections.pauses.get(pause_key(snapshot, uid, r.index)))},
            last_written=state.status_written.get(uid),
        )
        write = build.write(snapshot, context)
        if write is not None and not state.is_backing_off(write.key, snapshot.now):
            writes.append(write)
    return tuple(writes)


def _rejection(state: PassState, key: str) -> str:
    """Returns the apiserver's error for the writes of a key. A lost response is excluded: the user cannot fix it."""
    backoff = state.write_backoffs.get(key)
    return backoff.message if backoff and backoff.by == "apiserver" else ""
