"""A workload's conditions, so that `kubectl wait`, Argo CD and Flux understand it (kstatus).

Ready: every replica holds its devices (or has succeeded). Placed: every replica has devices. Degraded: it has them,
and something is wrong with them. Reconciling: the operator is still at it. Stalled: nothing will happen until someone
changes something. All five are always present.
"""

from collections import Counter
from dataclasses import dataclass

from gpufleet_api.workload import Condition, ConditionStatus, Explanation, PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.fleet.device_health import unhealthy_or_missing_devices
from gpufleet_operator.model.replica import WaitReason
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.status.context import StatusContext

_LENGTH = 4096

_HELD = (PlacementState.RESERVED, PlacementState.BOUND, PlacementState.CONFIRMED, PlacementState.MISMATCH)


@dataclass(frozen=True, slots=True)
class _Says:
    true: bool
    reason: str
    message: str


def _yes(reason: str, message: str = "") -> _Says:
    return _Says(true=True, reason=reason, message=message)


def _no(reason: str, message: str = "") -> _Says:
    return _Says(true=False, reason=reason, message=message)


def conditions(snapshot: Snapshot, outlook: StatusContext, told: Explanation | None) -> list[Condition]:
    """The five conditions; the transition time of one that didn't change its status is kept."""
    stalled = _stalled(outlook)
    placed = _placed(outlook, told)
    degraded = _degraded(snapshot, outlook)
    reconciling = _reconciling(outlook, stalled, placed)
    ready = _ready(outlook, stalled, reconciling)
    said = {"Ready": ready, "Placed": placed, "Degraded": degraded, "Reconciling": reconciling, "Stalled": stalled}
    stored = {c.type: c for c in outlook.workload.status.conditions} if outlook.workload.status else {}
    result = []
    for kind, says in said.items():
        status = ConditionStatus.TRUE if says.true else ConditionStatus.FALSE
        old = stored.get(kind)
        since = old.last_transition_time if old and old.status is status else timestamps.seconds(snapshot.now)
        result.append(
            Condition(
                type=kind,
                status=status,
                reason=says.reason,
                message=says.message[:_LENGTH],
                observed_generation=outlook.workload.generation,
                last_transition_time=since,
            )
        )
    return result


def _stalled(outlook: StatusContext) -> _Says:
    if outlook.workload.model is None:
        return _yes("InvalidObject", outlook.workload.invalid)
    if outlook.problems:
        return _yes("InvalidTemplate", "; ".join(outlook.problems))
    failed = [r for r in outlook.replicas if r.state is PlacementState.FAILED]
    if failed:
        return _yes("ReplicaFailed", "; ".join(f"replica {r.index}: {r.message}" for r in failed))
    if outlook.refused_create and any(r.wait is WaitReason.POD for r in outlook.replicas):
        return _yes("PodCreateFailed", f"the apiserver refused the pods: {outlook.refused_create}")
    return _no("AsExpected")


def _placed(outlook: StatusContext, told: Explanation | None) -> _Says:
    if outlook.standing is None:
        return _no("Stalled", "no pods are made")
    if outlook.suspended:
        return _no("Suspended", "spec.suspend is true")
    total = len(outlook.replicas)
    placed = sum(
        r.state in (PlacementState.SUCCEEDED, PlacementState.FAILED) or outlook.entry(r) is not None or r.state in _HELD
        for r in outlook.replicas
    )
    if placed == total:
        return _yes("Placed", _where(outlook))
    if outlook.diagnosis is not None and told is not None:
        return _no("NoDevices", told.message)
    message = f"{placed} of {total} replicas have devices"
    return _no("Waiting", f"{message}; {told.message}" if told else message)


def _where(outlook: StatusContext) -> str:
    """How many replicas on which node, for the event and for people."""
    per_node = Counter(entry.node for r in outlook.replicas if (entry := outlook.entry(r)) is not None)
    parts = [f"{number} on {node}" for node, number in sorted(per_node.items())]
    return f"replicas: {', '.join(parts)}"[:512] if parts else ""


def _degraded(snapshot: Snapshot, outlook: StatusContext) -> _Says:
    reasons: list[tuple[str, str]] = []
    for replica in outlook.replicas:
        entry = outlook.entry(replica)
        if replica.state is PlacementState.FAILED:
            reasons.append(("ReplicaFailed", f"replica {replica.index}: {replica.message}"))
        if entry is None or replica.state not in (PlacementState.BOUND, PlacementState.CONFIRMED):
            continue
        telemetry = snapshot.telemetry.get(entry.node)
        stale = snapshot.stale_reason(entry.node)
        if telemetry is None or stale is not None:
            reasons.append(("TelemetryStale", f"replica {replica.index} on {entry.node}: {stale}"))
        elif faulty := unhealthy_or_missing_devices(telemetry, entry.assignment):
            reasons.append(("DeviceUnhealthy", f"replica {replica.index} on {entry.node}: {', '.join(faulty)}"))
    if not reasons:
        return _no("AsExpected")
    return _yes(reasons[0][0], "; ".join(message for _, message in reasons))


def _reconciling(outlook: StatusContext, stalled: _Says, placed: _Says) -> _Says:
    if stalled.reason in ("InvalidObject", "InvalidTemplate"):
        return _no(stalled.reason)
    if outlook.suspended:
        removing = bool(outlook.standing and outlook.standing.removals)
        return _yes("Suspending") if removing else _no("Suspended")
    states = Counter(r.state for r in outlook.replicas)
    if states[PlacementState.MISMATCH] or states[PlacementState.REJECTED]:
        replaced = states[PlacementState.MISMATCH] + states[PlacementState.REJECTED]
        return _yes("Replacing", f"{replaced} pods are being replaced")
    if any(r.wait is WaitReason.POD for r in outlook.replicas):
        return _yes("CreatingPods", stalled.message if stalled.true else "")
    if any(r.wait is WaitReason.GATES for r in outlook.replicas):
        messages = [r.message for r in outlook.replicas if r.wait is WaitReason.GATES]
        return _yes("OtherGates", messages[0])
    if not placed.true:
        return _yes("WaitingForDevices", placed.message)
    unbound = [r for r in outlook.replicas if r.state in (PlacementState.PENDING, PlacementState.RESERVED)]
    if unbound:
        words = next((r.message for r in unbound if r.message), "")
        return _yes("Binding", words or "waiting for kube-scheduler to bind the pods")
    if states[PlacementState.BOUND]:
        return _yes("Confirming", "waiting for the kubelet to show the devices")
    return _no("Settled")


def _ready(outlook: StatusContext, stalled: _Says, reconciling: _Says) -> _Says:
    states = Counter(r.state for r in outlook.replicas)
    total = len(outlook.replicas)
    confirmed, succeeded = states[PlacementState.CONFIRMED], states[PlacementState.SUCCEEDED]
    if total and succeeded == total:
        return _yes("Succeeded", f"all {total} replicas have succeeded")
    if total and confirmed + succeeded == total:
        return _yes("Confirmed", f"{total} of {total} replicas hold exactly their reserved devices")
    if stalled.true:
        return _no(stalled.reason, stalled.message)
    return _no(reconciling.reason, reconciling.message)
