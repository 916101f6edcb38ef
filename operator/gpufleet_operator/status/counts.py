"""The counts in a workload's status, and the one-word summary of it."""

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadState
from gpufleet_operator.pods import labels
from gpufleet_operator.status.context import StatusContext


def count(context: StatusContext, *states: PlacementState) -> int:
    return sum(r.state in states for r in context.replicas)


def ready(context: StatusContext) -> str:
    """Returns `7/8`: the replicas that hold their devices, or held them until they succeeded."""
    return f"{count(context, PlacementState.ALLOCATED, PlacementState.SUCCEEDED)}/{len(context.replicas)}"


def replicas(context: StatusContext) -> int:
    """Returns the number of replicas that have a pod."""
    return sum(r.pod is not None for r in context.replicas)


def gpus(placements: list[ReplicaPlacement], context: StatusContext) -> int:
    """Returns the number of devices that are reserved now; `placements` also have those of ended replicas."""
    reserved = {r.index for r in context.replicas if context.reservation(r) is not None}
    return sum(len(p.devices) for p in placements if p.replica in reserved)


def selector(context: StatusContext) -> str:
    """Returns the label selector of the pods, as the scale subresource has it."""
    return ",".join(f"{key}={value}" for key, value in labels.selector(context.workload.name).items())


def state(context: StatusContext) -> WorkloadState:
    """Returns the one-word summary. A workload that cannot be assessed keeps the stored one."""
    if context.assessed is None:
        stored = context.workload.status
        return (stored.state if stored else None) or WorkloadState.PENDING
    if context.suspended:
        return WorkloadState.SUSPENDED
    total = len(context.replicas)
    if total and count(context, PlacementState.SUCCEEDED) == total:
        return WorkloadState.COMPLETE
    if count(context, PlacementState.FAILED):
        return WorkloadState.FAILED
    return WorkloadState.RUNNING if count(context, PlacementState.ALLOCATED) else WorkloadState.PENDING
