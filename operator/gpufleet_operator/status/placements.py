"""The placements in a workload's status: per replica its pod, node, devices, shard and score."""

from collections.abc import Iterable, Iterator
from typing import TypedDict

from gpufleet_api.names import NOT_MOVED
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload_placement import OnPressure
from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, ScoreTerms
from gpufleet_common import timestamps
from gpufleet_operator.distribution import unassigned_items
from gpufleet_operator.ledger.move_target import never_moved
from gpufleet_operator.model.replica import ENDED_STATES, Replica
from gpufleet_operator.placement.model import Terms
from gpufleet_operator.status.context import StatusContext

_MAX_NODES_LENGTH = 1024
_MAX_MESSAGE_LENGTH = 1024


def placements(context: StatusContext) -> list[ReplicaPlacement]:
    """Returns one placement per replica."""
    return [_placement(context, replica) for replica in context.replicas]


def nodes(context: StatusContext) -> str | None:
    """Returns the names of the nodes in use, cut to the length that the API allows."""
    return joined(found.node for r in context.replicas if (found := context.reservation(r)) is not None)


def joined(names: Iterable[str]) -> str | None:
    """Returns different names of nodes as one text; None without one."""
    text = ",".join(sorted(set(names)))
    if len(text) > _MAX_NODES_LENGTH:
        text = text[: _MAX_NODES_LENGTH - 1].rpartition(",")[0] + ",…"
    return text or None


def with_notes(context: StatusContext, message: str) -> str:
    """Returns the message of a placed workload with what applies to its shares."""
    return "; ".join(filter(None, (message, *_notes(context))))


def unassigned(context: StatusContext, listed: Iterable[ReplicaPlacement]) -> int | None:
    """Returns the items that no replica has, once they are divided.

    Args:
        context: The workload after this pass.
        listed: Its placements.
    """
    spec = context.assessed.spec if context.assessed else None
    if spec is None or spec.distribution is None:
        return None
    ranges = {
        p.replica: (p.shard_start, p.shard_end) for p in listed if p.shard_start is not None and p.shard_end is not None
    }
    return unassigned_items(spec.distribution.items, ranges) if len(ranges) == spec.replicas else None


def _placement(context: StatusContext, replica: Replica) -> ReplicaPlacement:
    stored = context.workload.stored_placements.get(replica.index)
    reservation, pod = context.reservation(replica), replica.pod
    message = replica.message[:_MAX_MESSAGE_LENGTH] or None
    if replica.state in ENDED_STATES and stored is not None and (pod is None or stored.pod_uid == pod.uid):
        # The reservation ends with the pod; the status keeps what it had.
        gone = dict.fromkeys(("ready", "removal", "rejections", "last_rejection_time", "retry_time"))
        return stored.model_copy(update={"state": replica.state, "message": message, **gone, **_counts(replica)})
    if reservation is None:
        keep = stored is not None and not context.suspended
        # Without a reservation only for a moment, as when the Node registers again, the pod still has its devices.
        held = stored if stored and pod and pod.node and stored.pod_uid == pod.uid else None
        return ReplicaPlacement(
            replica=replica.index,
            state=replica.state,
            attempt=replica.attempt or None,
            failures=replica.failures or None,
            removal=replica.removal or None,
            **_rejections(context, replica),
            pod=pod.name if pod else None,
            pod_uid=pod.uid if pod else None,
            node=pod.node if pod else None,
            devices=held.devices if held else [],
            shard_start=stored.shard_start if stored and keep else None,
            shard_end=stored.shard_end if stored and keep else None,
            score=held.score if held else None,
            message=message,
        )
    return _reserved(context, replica, reservation.node, reservation.assignment)


def _reserved(context: StatusContext, replica: Replica, node: str, assignment: Assignment) -> ReplicaPlacement:
    stored = context.workload.stored_placements.get(replica.index)
    same = stored is not None and stored.pod_uid == assignment.pod_uid and stored.devices == assignment.devices
    terms = context.picked.get(replica.index)
    score = _score(terms) if terms else (stored.score if stored and same else None)
    waiting = replica.state is PlacementState.PENDING
    return ReplicaPlacement(
        replica=replica.index,
        state=PlacementState.RESERVED if waiting else replica.state,
        attempt=replica.attempt or None,
        failures=replica.failures or None,
        ready=replica.ready or None,
        removal=replica.removal or None,
        **_rejections(context, replica),
        pod=assignment.pod,
        pod_uid=assignment.pod_uid,
        node=node,
        devices=assignment.devices,
        demand_mib=assignment.demand_mib,
        demand_runs=assignment.demand_runs,
        shard_start=assignment.shard_start,
        shard_end=assignment.shard_end,
        score=score,
        message=replica.message[:_MAX_MESSAGE_LENGTH] or None,
    )


def _counts(replica: Replica) -> dict[str, int | None]:
    return {"attempt": replica.attempt or None, "failures": replica.failures or None}


class _RejectionFields(TypedDict, total=False):
    rejections: int
    last_rejection_time: str
    retry_time: str


def _rejections(context: StatusContext, replica: Replica) -> _RejectionFields:
    pause = context.pauses.get(replica.index)
    if pause is None:
        return {}
    last, until = timestamps.seconds(pause.at), timestamps.seconds(pause.until)
    return {"rejections": pause.count, "last_rejection_time": last, "retry_time": until}


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


def _notes(context: StatusContext) -> Iterator[str]:
    found = [r.assignment for r in map(context.reservation, context.replicas) if r is not None]
    learned = [one for one in found if one.demand_mib is not None]
    if learned:
        mib = _between([one.demand_mib or 0 for one in learned])
        runs = _between([one.demand_runs or 0 for one in learned])
        yield f"counted with {mib} MiB learned from {runs} runs"
    spec = context.assessed.spec if context.assessed is not None else None
    if spec is not None and spec.placement.on_pressure is OnPressure.MOVE:
        why = never_moved(spec)
        if why:
            yield f"{NOT_MOVED}: {why}"


def _between(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
