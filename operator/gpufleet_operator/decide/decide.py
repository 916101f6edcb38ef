"""One pass: `decide(snapshot) -> actions`. A pure function."""

from collections import Counter
from collections.abc import Sequence

from gpufleet_operator.decide.adoption.replacement import with_methods
from gpufleet_operator.decide.gang_creation import due_creations, remove_incomplete_gangs, retry_when_freed
from gpufleet_operator.decide.lifecycle.removals import record_evictions, record_removals, restart_without_removed
from gpufleet_operator.decide.lifecycle.run_policy import expired
from gpufleet_operator.decide.moments import due_moments, earliest
from gpufleet_operator.decide.plan import FleetSource, place_waiting
from gpufleet_operator.decide.replicas import assess
from gpufleet_operator.decide.reports import collect_reports
from gpufleet_operator.decide.retries.rejections import count_rejections
from gpufleet_operator.decide.retries.retry_fit import RetryFit
from gpufleet_operator.decide.retries.retry_pauses import apply_retry_pauses
from gpufleet_operator.decide.retries.stuck_pods import remove_stuck_pods
from gpufleet_operator.decide.rolling.rollout import apply_update_strategy
from gpufleet_operator.decide.rolling.successors import pass_on
from gpufleet_operator.decide.services import collect_restored_services, collect_services, with_restored
from gpufleet_operator.decide.state import advance, next_state
from gpufleet_operator.decide.statuses import collect_statuses
from gpufleet_operator.decide.writes import collect_writes
from gpufleet_operator.ledger.ledger import read_ledger
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.replica import WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.report.gated_pods import WaitingFor


def decide(snapshot: Snapshot, source: FleetSource | None = None) -> Actions:
    """Returns everything to write now. After these writes, another call returns nothing to write.

    Args:
        snapshot: The cluster.
        source: Where the fleet comes from; None: it is built from the snapshot.
    """
    source = source or FleetSource()
    # 1. Carry over the state of the previous pass, updated by what the snapshot shows.
    state = retry_when_freed(snapshot, advance(snapshot))

    # 2. Read the ledger and assess every replica of the workloads with a valid template.
    ledger = read_ledger(snapshot, state)
    fit = RetryFit(snapshot, state, ledger, source)
    assessed: Sequence[WorkloadReplicas] = [
        apply_retry_pauses(
            snapshot, state, fit, restart_without_removed(snapshot, remove_stuck_pods(snapshot, state, each))
        )
        for each in assess(snapshot, state, ledger)
    ]
    creations = due_creations(snapshot, state, assessed)
    assessed = remove_incomplete_gangs(state, assessed, creations)

    # 3. Choose the pods of an older template to replace now, and pass their devices on to their successors.
    ledger, assessed = apply_update_strategy(snapshot, ledger, assessed)
    ledger, assessed = pass_on(snapshot, state, ledger, assessed)
    assessed = tuple(with_methods(each) for each in assessed)

    # 4. Pick devices for the replicas that wait for them.
    plan = place_waiting(snapshot, state, ledger, assessed, source)

    # 5. Collect the writes to Services, pods and reservations, without those that are backing off.
    services = collect_services(snapshot, state)
    restored_services = collect_restored_services(snapshot, state)
    assessed = tuple(record_removals(each) for each in assessed)
    writes = collect_writes(snapshot, state, assessed, plan, creations)
    assessed = tuple(record_evictions(each, writes.drained) for each in assessed)

    # 6. Count the rejections of this pass, and collect the statuses that explain them.
    rejections = count_rejections(snapshot, state.rejections, assessed)
    statuses = collect_statuses(snapshot, state, rejections, assessed, plan)

    # 7. Collect the reports to people: conditions of nodes, explanations of gated pods.
    reports = collect_reports(snapshot, state, assessed, plan, writes)

    # 8. Build the state for the next pass.
    after = next_state(
        snapshot,
        state,
        rejections=rejections,
        ledger=plan.ledger,
        writes=writes,
        statuses=statuses,
        reports=reports,
    )
    after = with_restored(snapshot, after, restored_services)
    moments, waits = due_moments(snapshot, after, assessed), _waits(snapshot, assessed)
    return Actions(
        services=services,
        restored_services=restored_services,
        creates=writes.creates,
        deletes=writes.deletes,
        evictions=writes.evictions,
        restores=writes.restores,
        reserves=writes.reserves,
        releases=writes.releases,
        statuses=statuses,
        reports=reports.to_write,
        expired=tuple(e for e in expired(snapshot) if not state.is_backing_off(e.key, snapshot.now)),
        state=after,
        due=earliest(moments),
        moments=moments,
        unplaced=plan.unplaced,
        waits=waits,
        gated=Counter(waits.values()),
        inconsistencies=plan.inconsistencies,
        unexpected_errors=_unexpected_errors(snapshot),
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
