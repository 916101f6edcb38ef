"""The counts in a workload's status, and the one-word summary of it."""

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadState
from gpufleet_operator.model.objects import PodPhase
from gpufleet_operator.pods import labels
from gpufleet_operator.status.context import StatusContext
from gpufleet_operator.status.rollout import is_scaled_to_zero


def count(context: StatusContext, *states: PlacementState) -> int:
    return sum(r.state in states for r in context.replicas)


def ready(context: StatusContext) -> str:
    """Returns `7/8`: the replicas that are ready, or have succeeded."""
    return f"{ready_replicas(context) + count(context, PlacementState.SUCCEEDED)}/{len(context.replicas)}"


def ready_replicas(context: StatusContext) -> int:
    """Returns the number of replicas whose pod is Ready and holds its devices."""
    return sum(r.ready for r in context.replicas)


def failures(context: StatusContext) -> int:
    """Returns the number of failures of the application, in all replicas, also in those that were scaled away."""
    earlier = context.assessed.earlier_failures if context.assessed else 0
    return earlier + sum(r.failures for r in context.replicas)


def replicas(context: StatusContext) -> int:
    """Returns the number of replicas that have a pod."""
    return sum(r.pod is not None for r in context.replicas)


def updated(context: StatusContext) -> int:
    """Returns the number of replicas whose pod was built from the current template."""
    return sum(r.pod is not None and not r.pod.terminal and not r.outdated for r in context.replicas)


def gpus(placements: list[ReplicaPlacement], context: StatusContext) -> int:
    """Returns the number of devices that are reserved now; `placements` also have those of ended replicas."""
    reserved = {r.index for r in context.replicas if context.reservation(r) is not None}
    return sum(len(p.devices) for p in placements if p.replica in reserved)


def selector(context: StatusContext) -> str:
    """Returns the label selector of the pods, as the scale subresource has it."""
    return ",".join(f"{key}={value}" for key, value in labels.selector(context.workload.name).items())


def state(context: StatusContext) -> WorkloadState:
    """Returns the one-word summary of a workload that parses."""
    if context.outcome is not None:
        return WorkloadState.COMPLETE if context.outcome.complete else WorkloadState.FAILED
    adopts = context.assessed is not None and context.assessed.spec.adopts
    if context.suspended:
        return WorkloadState.SUSPENDED
    if is_scaled_to_zero(context) and not adopts:
        return WorkloadState.SCALED_TO_ZERO
    unplaced = context.assessed.unplaced if context.assessed else ()
    if adopts and not unplaced and all(r.state is PlacementState.SUCCEEDED for r in context.replicas):
        return WorkloadState.IDLE
    runs = any(r.pod is not None and r.pod.phase is PodPhase.RUNNING for r in context.replicas)
    return WorkloadState.RUNNING if runs else WorkloadState.PENDING
