"""The conditions Ready and Allocated, and why pods that have devices are not Ready."""

from collections import Counter
from collections.abc import Iterable

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.model.pod_state.problems import NOT_READY, not_ready
from gpufleet_operator.model.replica import Replica
from gpufleet_operator.status.context import StatusContext
from gpufleet_operator.status.finding import ConditionFinding, is_false, is_true, is_unknown
from gpufleet_operator.status.rollout import is_scaled_to_zero, no_replicas
from gpufleet_operator.status.unreachable import unreachable_replicas

_BOUND = (PlacementState.BOUND, PlacementState.ALLOCATED)


def ready(context: StatusContext, stalled: ConditionFinding, reconciling: ConditionFinding) -> ConditionFinding | None:
    """Returns Ready; None for a workload that has completed or is suspended, which is neither Ready nor about to be."""
    outcome = context.outcome
    if (outcome is not None and outcome.complete) or (context.suspended and not reconciling.true and not stalled.true):
        return None
    total, count = len(context.replicas), sum(r.ready for r in context.replicas)
    if stalled.true or outcome is not None or context.assessed is None:
        working = f"; {count} of {total} replicas are ready" if count and outcome is None else ""
        return is_false(stalled.reason, stalled.message + working)
    succeeded = sum(r.state is PlacementState.SUCCEEDED for r in context.replicas)
    if all(r.state in (*_BOUND, PlacementState.SUCCEEDED) for r in context.replicas) and (
        unreachable := unreachable_replicas(context)
    ):
        return is_false("NodeNotReady", unreachable)
    unplaced = context.assessed.unplaced and reconciling.true
    if count + succeeded == total and not unplaced:
        return is_true(*(_all_ready(count, succeeded, total) if total else no_replicas(context)))
    return is_false(reconciling.reason, reconciling.message)


def _all_ready(count: int, succeeded: int, total: int) -> tuple[str, str]:
    message = f"{count} of {total} replicas are ready and hold exactly their reserved devices"
    return "AllReplicasReady", f"{message}; {succeeded} succeeded" if succeeded else message


def unknown_ends(context: StatusContext) -> str:
    """Returns the replicas whose end nobody saw, with their messages; empty: there is none."""
    return "; ".join(f"replica {r.index}: {r.message}" for r in context.replicas if r.state is PlacementState.UNKNOWN)


def allocated(context: StatusContext, placed: ConditionFinding) -> ConditionFinding:
    states = Counter(r.state for r in context.replicas)
    total = len(context.replicas)
    held = states[PlacementState.ALLOCATED] + states[PlacementState.SUCCEEDED]
    unlisted = [f"replica {r.index}: {r.message}" for r in context.replicas if r.unlisted]
    if held == total and unlisted:
        return is_unknown("NotListed", "; ".join(unlisted))
    if unknown := unknown_ends(context):
        return is_unknown("EndUnknown", unknown)
    if is_scaled_to_zero(context):
        return is_true(*no_replicas(context))
    if context.outcome is None and total and held == total:
        return is_true("Allocated", f"{total} of {total} replicas hold exactly their reserved devices")
    if not placed.true:
        return is_false(placed.reason, placed.message)
    return is_false("Confirming", f"{held} of {total} replicas hold exactly their reserved devices")


def pods_not_ready(context: StatusContext) -> ConditionFinding | None:
    """Returns why bound pods are not Ready: nodes, then errors of containers, then devices that are not reported."""
    waiting = [r for r in context.replicas if r.state in _BOUND and not r.ready]
    if not waiting:
        return None
    if unreachable := unreachable_replicas(context):
        return is_true("NodeNotReady", unreachable)
    problems = [(r, not_ready(r.pod)) for r in waiting if r.pod is not None and not r.pod.ready]
    errors = [(r, problem) for r, problem in problems if problem.reason != NOT_READY]
    if errors:
        return is_true(errors[0][1].reason, _by_message((r, problem.message) for r, problem in errors))
    unconfirmed = [(r, r.unconfirmed) for r in waiting if r.unconfirmed]
    if unconfirmed:
        return is_true("Confirming", _by_message(unconfirmed))
    return is_true(NOT_READY, _by_message((r, problem.message) for r, problem in problems))


def _by_message(found: Iterable[tuple[Replica, str]]) -> str:
    """Returns `replica 0: ...; replicas 1, 2: ...`."""
    indices: dict[str, list[int]] = {}
    for replica, message in found:
        indices.setdefault(message, []).append(replica.index)
    return "; ".join(
        f"replica{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}: {message}"
        for message, numbers in indices.items()
    )
