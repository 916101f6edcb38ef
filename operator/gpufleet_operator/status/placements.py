"""The factual part of a workload's status: per replica its pod, node, devices, share and score."""

from gpufleet_api.telemetry import Assignment
from gpufleet_api.workload import PlacementState, ReplicaPlacement, ScoreTerms
from gpufleet_operator.distribution import unassigned_items
from gpufleet_operator.model.replica import Replica
from gpufleet_operator.placement.model import Terms
from gpufleet_operator.status.context import StatusContext

_OVER = (PlacementState.SUCCEEDED, PlacementState.FAILED)
_NODES_LENGTH = 1024


def placements(outlook: StatusContext) -> list[ReplicaPlacement]:
    """One entry per replica."""
    return [_placement(outlook, replica) for replica in outlook.replicas]


def confirmed(outlook: StatusContext) -> str | None:
    """`7/8`: replicas that hold their devices, or did until they succeeded."""
    if outlook.standing is None:
        return None
    good = sum(r.state in (PlacementState.CONFIRMED, PlacementState.SUCCEEDED) for r in outlook.replicas)
    return f"{good}/{len(outlook.replicas)}"


def nodes(outlook: StatusContext) -> str | None:
    """Names of the nodes in use."""
    names = {entry.node for r in outlook.replicas if (entry := outlook.entry(r)) is not None}
    text = ",".join(sorted(names))
    return text if len(text) <= _NODES_LENGTH else text[: _NODES_LENGTH - 1].rpartition(",")[0] + ",…" or None


def unassigned(outlook: StatusContext) -> int | None:
    """Items that no replica has, once they are divided."""
    spec = outlook.standing.spec if outlook.standing else None
    if spec is None or spec.distribution is None:
        return None
    ranges = {
        p.replica: (p.shard_start, p.shard_end)
        for p in placements(outlook)
        if p.shard_start is not None and p.shard_end is not None
    }
    return unassigned_items(spec.distribution.items, ranges) if len(ranges) == spec.replicas else None


def _placement(outlook: StatusContext, replica: Replica) -> ReplicaPlacement:
    record = outlook.workload.recorded.get(replica.index)
    entry, pod = outlook.entry(replica), replica.pod
    message = replica.message[:1024] or None
    if replica.state in _OVER and record is not None and (pod is None or record.pod_uid == pod.uid):
        # The reservation is released when the pod is over; what it had stays on record.
        return record.model_copy(update={"state": replica.state, "message": message})
    if entry is None:
        keep = record is not None and not outlook.suspended
        return ReplicaPlacement(
            replica=replica.index,
            state=replica.state,
            pod=pod.name if pod else None,
            pod_uid=pod.uid if pod else None,
            node=pod.node if pod else None,
            devices=record.devices if record and pod and pod.node and record.pod_uid == pod.uid else [],
            shard_start=record.shard_start if record and keep else None,
            shard_end=record.shard_end if record and keep else None,
            message=message,
        )
    return _reserved(outlook, replica, entry.node, entry.assignment)


def _reserved(outlook: StatusContext, replica: Replica, node: str, assignment: Assignment) -> ReplicaPlacement:
    record = outlook.workload.recorded.get(replica.index)
    same = record is not None and record.pod_uid == assignment.pod_uid and record.devices == assignment.devices
    terms = outlook.picked.get(replica.index)
    score = _score(terms) if terms else (record.score if record and same else None)
    waiting = replica.state is PlacementState.PENDING
    return ReplicaPlacement(
        replica=replica.index,
        state=PlacementState.RESERVED if waiting else replica.state,
        pod=assignment.pod,
        pod_uid=assignment.pod_uid,
        node=node,
        devices=assignment.devices,
        shard_start=assignment.shard_start,
        shard_end=assignment.shard_end,
        score=score,
        message=replica.message[:1024] or None,
    )


def _score(terms: Terms) -> ScoreTerms:
    return ScoreTerms(
        total=_thousandths(terms.total),
        memory=_optional(terms.memory),
        utilization=_optional(terms.utilization),
        temperature=_optional(terms.temperature),
        power=_optional(terms.power),
    )


def _thousandths(value: float) -> int:
    return min(1000, max(0, round(value * 1000)))


def _optional(value: float | None) -> int | None:
    return None if value is None else _thousandths(value)
