"""One pass: `decide(snapshot) -> actions`. A pure function."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from gpufleet_operator.decide.adoption.replacement import with_methods
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.claims.new_pods import transports_of_new_pods
from gpufleet_operator.decide.claims.transports import replace_pods
from gpufleet_operator.decide.gang_creation import Creations, due_creations, remove_incomplete_gangs, retry_when_freed
from gpufleet_operator.decide.lifecycle.removals import record_evictions, record_removals, restart_without_removed
from gpufleet_operator.decide.lifecycle.run_policy import expired
from gpufleet_operator.decide.moments import due_moments, earliest
from gpufleet_operator.decide.plan import FleetSource, Plan, place_waiting
from gpufleet_operator.decide.queue.namespace_use import update_use
from gpufleet_operator.decide.replicas import assess
from gpufleet_operator.decide.reports import collect_reports
from gpufleet_operator.decide.retries.rejections import count_rejections
from gpufleet_operator.decide.retries.retry_fit import RetryFit
from gpufleet_operator.decide.retries.retry_pauses import apply_retry_pauses
from gpufleet_operator.decide.retries.stuck_pods import remove_stuck_pods
from gpufleet_operator.decide.rolling.rollout import apply_update_strategy
from gpufleet_operator.decide.rolling.successors import pass_on
from gpufleet_operator.decide.services import collect_restored_services, collect_services
from gpufleet_operator.decide.state import advance, next_state, with_picks
from gpufleet_operator.decide.statuses import collect_statuses
from gpufleet_operator.decide.writes import collect_writes
from gpufleet_operator.ledger.ledger import Ledger, read_ledger
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.replica import WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.report.gated_pods import WaitingFor


def decide(snapshot: Snapshot, source: FleetSource | None = None) -> Actions:
    """Returns everything to write now. After these writes, another call returns nothing to write.

    Args:
        snapshot: The cluster.
        source: Where the fleet comes from; None: it is built from the snapshot.
    """
    source, guard = source or FleetSource(), WorkloadGuard()
    # 1. Carry over the state of the previous pass, updated by what the snapshot shows.
    state = retry_when_freed(snapshot, advance(snapshot))

    # 2. Read the ledger and assess every replica of the workloads that parse.
    ledger = read_ledger(snapshot, state)
    state = replace(state, device_use=update_use(snapshot, state.device_use, ledger))
    assessed = _assess(snapshot, state, ledger, source, guard=guard)
    creations = due_creations(snapshot, state, assessed, source.creations_elsewhere(), guard=guard)
    source.require(creations.elsewhere)
    if (creations.held, creations.queued) != (state.held_creations, state.queued_creations):
        state = replace(state, held_creations=creations.held, queued_creations=creations.queued)
    assessed = remove_incomplete_gangs(state, assessed, {*creations.due, *creations.queued}, guard=guard)

    # 3. Choose the pods of an older template to replace now, and pass their devices on to their successors.
    ledger, assessed = apply_update_strategy(snapshot, ledger, assessed, guard=guard)
    ledger, assessed = pass_on(snapshot, state, ledger, assessed, source, guard=guard)
    assessed = guard.workloads(with_methods, assessed)

    # 4. Find out for which transport the missing pods are created, before the devices that they may get are picked.
    by_uid = {each.workload.uid: each for each in assessed}
    due = [by_uid[uid] for uid in creations.due if uid in by_uid]
    expected = transports_of_new_pods(snapshot, state, ledger, due, source, guard=guard)
    creations = replace(creations, transports=expected)

    # 5. Pick devices for the replicas that wait for them.
    plan = place_waiting(snapshot, state, ledger, assessed, source, guard=guard)
    state = with_picks(state, plan)
    assessed = guard.workloads(partial(replace_pods, switched=plan.switched), assessed)
    return _collect(snapshot, state, assessed, creations, plan, guard=guard)


def _assess(
    snapshot: Snapshot, state: PassState, ledger: Ledger, source: FleetSource, *, guard: WorkloadGuard
) -> Sequence[WorkloadReplicas]:
    """Returns the replicas of the workloads that parse, without pods to remove and with the pauses of retries."""
    fit = RetryFit(snapshot, state, ledger, source)

    def with_pauses(one: WorkloadReplicas) -> WorkloadReplicas:
        kept = restart_without_removed(snapshot, remove_stuck_pods(snapshot, state, one))
        return apply_retry_pauses(snapshot, state, fit, kept)

    all_assessed = assess(snapshot, state, ledger, guard)
    found = [guard.call(each.workload.uid, partial(with_pauses, each)) for each in all_assessed]
    return [each for each in found if each is not None]


def _collect(
    snapshot: Snapshot,
    state: PassState,
    assessed: Sequence[WorkloadReplicas],
    creations: Creations,
    plan: Plan,
    *,
    guard: WorkloadGuard,
) -> Actions:
    """Returns everything to write after the devices are picked, and the state for the next pass."""
    # 6. Collect the writes to Services, pods and reservations, without those that are backing off.
    services = collect_services(snapshot, state, guard=guard)
    restored_services = collect_restored_services(snapshot, state, guard=guard)
    assessed = guard.workloads(record_removals, assessed)
    writes = collect_writes(snapshot, state, assessed, plan, creations, guard=guard)
    assessed = guard.workloads(partial(record_evictions, evicted=writes.evicted), assessed)
    deletions = expired(snapshot, guard)

    # 7. Collect the reports to people: conditions of nodes, explanations of gated pods.
    reports = collect_reports(snapshot, state, assessed, plan, writes, guard=guard)

    # 8. Count the rejections of this pass, and collect the statuses that explain them, and the exceptions until here.
    rejections = count_rejections(snapshot, state.rejections, assessed, guard=guard)
    statuses = collect_statuses(snapshot, state, rejections, assessed, plan, guard=guard)

    # 9. Build the state for the next pass.
    after = next_state(
        snapshot,
        state,
        rejections=rejections,
        plan=plan,
        writes=writes,
        restored_services=restored_services,
        statuses=statuses,
        reports=reports,
    )
    moments = due_moments(snapshot, after, assessed, plan.moments, reports.later, guard=guard)
    return Actions(
        services=services,
        restored_services=restored_services,
        creates=writes.creates,
        deletes=writes.deletes,
        evictions=writes.evictions,
        restores=writes.restores,
        reserves=writes.reserves,
        claims=writes.claims,
        deleted_claims=writes.deleted_claims,
        releases=writes.releases,
        statuses=statuses.to_write,
        reports=reports.to_write,
        late_reports=reports.late,
        expired=tuple(e for e in deletions if not state.is_backing_off(e.key, snapshot.now)),
        state=after,
        due=earliest(moments),
        moments=moments,
        unplaced=plan.unplaced,
        waits=_waits(snapshot, assessed),
        moves=plan.moves.reasons,
        rejected_moves=plan.moves.rejected,
        inconsistencies=plan.inconsistencies,
        unexpected_errors=_unexpected_errors(snapshot),
        failed_decisions=guard.tracebacks,
    )


def _waits(snapshot: Snapshot, assessed: Sequence[WorkloadReplicas]) -> dict[str, str]:
    """Returns what each gated pod waits for, by uid."""
    reasons: dict[str, str] = {r.pod.uid: r.wait_reason for a in assessed for r in a.replicas if r.pod is not None}
    reasons |= {one.pod.uid: one.reason for a in assessed for one in a.unplaced}
    return {uid: str(reasons.get(uid, WaitingFor.WORKLOAD)) for uid, pod in snapshot.pods.items() if pod.gates}


def _unexpected_errors(snapshot: Snapshot) -> dict[str, str]:
    """Returns the tracebacks of templates that were checked for this pass, by the workload's full name."""
    return {
        snapshot.workloads[uid].full_name: check.unexpected_error
        for uid, check in snapshot.templates.items()
        if check.unexpected_error and snapshot.previous_state.templates.get(uid) is not check
    }
