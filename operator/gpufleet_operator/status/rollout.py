"""Reason and message of the status during a change of `spec.template` or `spec.replicas`."""

from gpufleet_api.names import WORKLOAD_LABEL
from gpufleet_api.workload_policies import UpdateStrategyType
from gpufleet_operator.model.replica import WaitReason
from gpufleet_operator.status.context import StatusContext


def is_scaled_to_zero(context: StatusContext) -> bool:
    """Returns True when no replica is wanted. A suspended workload is described as suspended."""
    return context.assessed is not None and not context.replicas and not context.suspended


def no_replicas(context: StatusContext) -> tuple[str, str]:
    """Returns reason and message for a workload without replicas."""
    if context.assessed is not None and context.assessed.spec.adopts:
        return "NoPods", f"no pod with the label {WORKLOAD_LABEL}: {context.workload.name} runs or can be placed"
    return "NoReplicas", "spec.replicas is 0"


def scaling_down(context: StatusContext) -> tuple[str, str] | None:
    """Returns the finding while pods of removed replicas exist."""
    surplus = context.assessed.surplus_pods if context.assessed else 0
    return (
        ("ScalingDown", f"{surplus} pod{'s' if surplus > 1 else ''} of removed replicas not ended yet")
        if surplus
        else None
    )


def rolling(context: StatusContext) -> tuple[str, str] | None:
    """Returns the finding while the operator replaces pods of an older template, or passes their devices on."""
    outdated = sum(r.outdated for r in context.replicas)
    passed_on = [r for r in context.replicas if r.wait_reason is WaitReason.PREDECESSOR]
    on_delete = context.assessed is None or context.assessed.spec.update_strategy.type is UpdateStrategyType.ON_DELETE
    if not passed_on and (not outdated or on_delete):
        return None
    total = len(context.replicas)
    parts = [f"{total - outdated} of {total} replicas have the current template"]
    parts += [f"replica {r.index}: {r.message}" for r in passed_on[:1]]
    return "RollingUpdate", "; ".join(parts)
