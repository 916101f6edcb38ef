"""Selects the replicas of a workload to place, and its reservations that are no longer usable."""

from collections.abc import Collection
from dataclasses import replace

from gpufleet_api.workload_placement import Topology
from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.model.replica import WITHOUT_USABLE_POD, Replica, WaitReason, WorkloadReplicas

_NOT_PLACED = (WaitReason.OTHER_GATES, WaitReason.RESUME, WaitReason.CLAIM)
"""Wait reasons of a replica with a gated pod for which no devices may be reserved."""


def without_in_flight(assessed: WorkloadReplicas, in_flight: Collection[str]) -> WorkloadReplicas:
    """Returns the replicas that may be placed or lose their reservation now.

    Of a gang, all or none: so also with topology SameNode, because the node of a reservation without a response is not
    known here.
    """
    if not is_in_flight(assessed, in_flight):
        return assessed
    placement = assessed.spec.placement
    others = () if placement.gang or placement.topology is Topology.SAME_NODE else assessed.replicas
    left_out = [r for r in others if r.pod is not None and r.pod.uid in in_flight]
    return replace(
        assessed,
        replicas=tuple(r for r in others if r.pod is None or r.pod.uid not in in_flight),
        # Spread counts them where they are.
        reserved_in_flight=tuple(r.reservation for r in left_out if r.reservation is not None),
    )


def is_in_flight(assessed: WorkloadReplicas, in_flight: Collection[str]) -> bool:
    """Returns True while a reservation or a release of one of the pods has no response."""
    return bool(in_flight) and any(r.pod is not None and r.pod.uid in in_flight for r in assessed.replicas)


def stale_reservations(assessed: WorkloadReplicas) -> tuple[Replica, ...]:
    """Returns replicas without a started pod whose reservation is no longer usable or part of an incomplete gang."""
    reserved = [r for r in assessed.replicas if r.reservation is not None and r.may_be_placed]
    if assessed.spec.placement.gang and _is_incomplete(assessed) and not has_started(assessed):
        return tuple(reserved)
    return tuple(r for r in reserved if r.wait_reason is not WaitReason.NOTHING)


def _is_incomplete(assessed: WorkloadReplicas) -> bool:
    has_devices = (WaitReason.NOTHING, WaitReason.PREDECESSOR)
    return any(r.wait_reason not in has_devices for r in assessed.replicas)


def has_started(assessed: WorkloadReplicas) -> bool:
    """Returns True when a replica of a gang was released already."""
    return any(r.pod is not None and not r.gated for r in assessed.replicas) or any(
        r.state is PlacementState.SUCCEEDED for r in assessed.replicas
    )


def unplaced_replicas(assessed: WorkloadReplicas) -> tuple[Replica, ...]:
    """Returns the replicas to place. A gang waits until each of its pods can be released."""
    stale = {r.index for r in stale_reservations(assessed)}
    gang = assessed.spec.placement.gang
    if gang and any(r.wait_reason in WITHOUT_USABLE_POD for r in assessed.replicas):
        return ()
    candidates = (r for r in assessed.replicas if r.wait_reason not in _NOT_PLACED)
    return tuple(r for r in candidates if r.wait_reason is WaitReason.DEVICES or r.index in stale)
