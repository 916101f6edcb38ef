"""Builds a workload's status, which is written on change."""

from collections.abc import Iterable

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.workload_status import PlacementState, WorkloadStatus
from gpufleet_common import timestamps
from gpufleet_operator.model.actions import WriteStatus
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.status import counts, outcome
from gpufleet_operator.status.changes.events import events
from gpufleet_operator.status.changes.progress import is_progress
from gpufleet_operator.status.conditions import conditions, placed_finding
from gpufleet_operator.status.context import StatusContext
from gpufleet_operator.status.explanation import explanation
from gpufleet_operator.status.placements import nodes, placements, unassigned
from gpufleet_operator.status.undecodable import status_without_spec


def write(snapshot: Snapshot, context: StatusContext) -> WriteStatus | None:
    """Returns the status to write now; None if nothing changed, or if only messages changed shortly after a write."""
    workload = context.workload
    status, stored = build(snapshot, context), workload.status
    if stored is not None and status == stored:
        return None
    if workload.model is None or (stored is not None and without_messages(status) == without_messages(stored)):
        last = context.last_written
        if last is not None and snapshot.now - last < snapshot.limits.message_interval:
            return None
    return WriteStatus(
        workload_uid=workload.uid,
        namespace=workload.namespace,
        name=workload.name,
        resource_version=workload.resource_version,
        status=status,
        events=events(stored, status),
        progress=context.assessed is not None and is_progress(context.assessed.spec, stored, status),
    )


def build(snapshot: Snapshot, context: StatusContext) -> WorkloadStatus:
    explained = explanation(context)
    placed = placed_finding(context, explained)
    found = conditions(snapshot, context, placed)
    if context.assessed is None:
        known = status_without_spec(snapshot, context)
        return known.model_copy(update={"conditions": found, "reason": _reason(found)})
    listed = placements(context)
    restart, incomplete = context.assessed.group_restart, context.assessed.incomplete_since
    return WorkloadStatus(
        observed_generation=context.workload.generation,
        conditions=found,
        state=counts.state(context),
        reason=_reason(found),
        ready=counts.ready(context),
        replicas=counts.replicas(context),
        ready_replicas=counts.ready_replicas(context),
        allocated_replicas=counts.count(context, PlacementState.ALLOCATED),
        updated_replicas=counts.updated(context),
        succeeded=counts.count(context, PlacementState.SUCCEEDED),
        failed=counts.failures(context),
        restarts=restart.count if restart else None,
        restart_time=timestamps.seconds(restart.at) if restart else None,
        incomplete_since=timestamps.seconds(incomplete) if incomplete else None,
        selector=counts.selector(context),
        start_time=outcome.start_time(snapshot, context, placed),
        completion_time=outcome.completion_time(snapshot, context),
        gpus=counts.gpus(listed, context),
        nodes=nodes(context),
        placements=listed,
        unassigned_items=unassigned(context, listed),
        explanation=explained,
    )


def _reason(found: Iterable[Condition]) -> str | None:
    """Returns the reason of Ready; without it, that of the condition which takes its place."""
    reasons = {c.type: c.reason for c in found if c.type == "Ready" or c.status is ConditionStatus.TRUE}
    return next((reasons[kind] for kind in ("Ready", "Complete", "Suspended") if kind in reasons), None)


def without_messages(status: WorkloadStatus) -> tuple[object, ...]:
    """Returns everything but messages and numbers, which change with each telemetry."""
    return (
        status.model_copy(update={"conditions": [], "placements": [], "explanation": None}),
        tuple((c.type, c.status, c.reason) for c in status.conditions),
        tuple(p.model_copy(update={"message": None}) for p in status.placements),
        status.explanation is None,
    )
