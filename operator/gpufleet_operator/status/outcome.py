"""The conditions Complete, Failed and Suspended, and when a workload started and ended."""

from gpufleet_api.workload_status import PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.status import counts
from gpufleet_operator.status.context import StatusContext
from gpufleet_operator.status.finding import ConditionFinding, is_false, is_true


def complete(context: StatusContext) -> ConditionFinding:
    outcome = context.outcome
    if outcome is not None and outcome.complete:
        return is_true(outcome.reason, outcome.message)
    if outcome is not None:
        return is_false(outcome.reason, outcome.message)
    succeeded = sum(r.state is PlacementState.SUCCEEDED for r in context.replicas)
    return is_false("NotFinished", f"{succeeded} of {len(context.replicas)} replicas have succeeded")


def failed(context: StatusContext) -> ConditionFinding:
    outcome = context.outcome
    if outcome is not None and not outcome.complete:
        return is_true(outcome.reason, outcome.message)
    failures = counts.failures(context)
    return is_false("AsExpected", "no failures" if not failures else f"{failures} failure{'s' if failures > 1 else ''}")


def suspended(context: StatusContext) -> ConditionFinding:
    if context.suspended:
        return is_true("Suspended", "spec.suspend is true")
    return is_false("NotSuspended", "spec.suspend is false")


def start_time(snapshot: Snapshot, context: StatusContext, placed: ConditionFinding) -> str | None:
    """Returns when the workload first had all of its devices. A suspension resets it."""
    if context.suspended:
        return None
    stored = context.workload.status.start_time if context.workload.status else None
    starts = placed.true and context.replicas and context.outcome is None
    return stored or (timestamps.seconds(snapshot.now) if starts else None)


def completion_time(snapshot: Snapshot, context: StatusContext) -> str | None:
    if context.outcome is None:
        return None
    stored = context.workload.status.completion_time if context.workload.status else None
    return stored or timestamps.seconds(snapshot.now)
