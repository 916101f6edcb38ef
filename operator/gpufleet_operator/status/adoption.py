"""Conditions of a workload without a template, about pods that are not placed or not replaced."""

from gpufleet_operator.model.replica import RemovalMethod, UnplacedPod, UnplacedReason, WaitReason
from gpufleet_operator.status.context import StatusContext
from gpufleet_operator.status.finding import ConditionFinding, is_true

_MAX_PODS = 3


def invalid_pod(context: StatusContext) -> ConditionFinding | None:
    """Returns the finding when a pod waits for a change by its author."""
    found = _unplaced(context, UnplacedReason.INVALID_POD)
    return is_true(UnplacedReason.INVALID_POD, _listed(found)) if found else None


def waiting_for_owner(context: StatusContext) -> ConditionFinding | None:
    """Returns the finding while pods of a gang are missing, or while it has more pods than replicas."""
    missing = next((r for r in context.replicas if r.wait_reason is WaitReason.OWNER), None)
    if missing is not None:
        return is_true("WaitingForPods", missing.message)
    surplus = _unplaced(context, UnplacedReason.SURPLUS)
    return is_true(UnplacedReason.SURPLUS, _listed(surplus)) if surplus else None


def problems(context: StatusContext) -> list[tuple[str, str]]:
    """Returns reason and message of what is wrong with running or stuck pods: without the gate, or without an owner."""
    ungated = _unplaced(context, UnplacedReason.UNGATED)
    found = [(str(UnplacedReason.UNGATED), _listed(ungated))] if ungated else []
    removals = context.assessed.removals if context.assessed else ()
    kept = [r for r in removals if r.method is RemovalMethod.NONE and r.pod.owner is None]
    return found + [(str(r.reason), f"pod {r.pod.name} has no owner that replaces it: {r.message}") for r in kept]


def _unplaced(context: StatusContext, reason: UnplacedReason) -> list[UnplacedPod]:
    return [u for u in context.assessed.unplaced if u.reason is reason] if context.assessed else []


def _listed(found: list[UnplacedPod]) -> str:
    shown = [f"pod {one.pod.name}: {one.message}" for one in found[:_MAX_PODS]]
    more = len(found) - len(shown)
    return "; ".join([*shown, *([f"and {more} more pods"] if more else [])])
