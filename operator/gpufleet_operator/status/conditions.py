"""The conditions of a workload, as `kubectl wait`, Argo CD and Flux expect them (kstatus).

Ready and Allocated: every replica holds its devices (or has succeeded). Placed: every replica has devices. Degraded: it
has them, and something is wrong with them. Reconciling: the operator is working on it. Stalled: nothing will change
until the user changes something. All of these are always present.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.workload_status import Explanation, PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.fleet.device_health import unhealthy_or_missing_devices
from gpufleet_operator.model.create_errors import CreateError, classify
from gpufleet_operator.model.replica import WaitReason
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.pods.network import address_error
from gpufleet_operator.status.context import StatusContext
from gpufleet_operator.status.messages import message_or_default
from gpufleet_operator.status.unreachable import unreachable_replicas

_MAX_MESSAGE_LENGTH = 4096
_MAX_NODES_LENGTH = 512

_TERMINAL = (PlacementState.SUCCEEDED, PlacementState.FAILED)
_WITH_DEVICES = (PlacementState.RESERVED, PlacementState.BOUND, PlacementState.ALLOCATED, PlacementState.MISMATCH)


@dataclass(frozen=True, slots=True)
class _Finding:
    """Status, reason and message of a condition."""

    true: bool
    reason: str
    message: str
    unknown: bool = False
    """The status is Unknown; `true` does not matter."""


def _true(reason: str, message: str = "") -> _Finding:
    return _Finding(true=True, reason=reason, message=message)


def _false(reason: str, message: str = "") -> _Finding:
    return _Finding(true=False, reason=reason, message=message)


def conditions(snapshot: Snapshot, context: StatusContext, explained: Explanation | None) -> list[Condition]:
    """Returns all conditions. The transition time of a condition whose status did not change is kept."""
    stalled = _stalled(context)
    placed = _placed(context, explained)
    degraded = _degraded(snapshot, context)
    reconciling = _reconciling(context, stalled, placed)
    ready = _ready(context, stalled, reconciling)
    if ready.true and (unreachable := unreachable_replicas(snapshot, context)):
        ready = _false("NodeNotReady", unreachable)
    findings = {
        "Ready": ready,
        "Allocated": _allocated(context, placed),
        "Placed": placed,
        "Degraded": degraded,
        "Reconciling": reconciling,
        "Stalled": stalled,
    }
    stored = {c.type: c for c in context.workload.status.conditions} if context.workload.status else {}
    result = []
    for kind, finding in findings.items():
        status = _status(finding)
        old = stored.get(kind)
        since = old.last_transition_time if old and old.status is status else timestamps.seconds(snapshot.now)
        result.append(
            Condition(
                type=kind,
                status=status,
                reason=finding.reason,
                message=message_or_default(kind, finding.reason, finding.message)[:_MAX_MESSAGE_LENGTH],
                observed_generation=context.workload.generation,
                last_transition_time=since,
            )
        )
    return result


def _status(finding: _Finding) -> ConditionStatus:
    if finding.unknown:
        return ConditionStatus.UNKNOWN
    return ConditionStatus.TRUE if finding.true else ConditionStatus.FALSE


def _stalled(context: StatusContext) -> _Finding:
    if context.workload.model is None:
        return _true("InvalidObject", context.workload.invalid)
    if context.template_errors:
        return _true("InvalidTemplate", "; ".join(context.template_errors))
    failed = [r for r in context.replicas if r.state is PlacementState.FAILED]
    if failed:
        return _true("ReplicaFailed", "; ".join(f"replica {r.index}: {r.message}" for r in failed))
    rejected = classify(context.create_error)
    if _rejected_pods(context) and rejected is not CreateError.QUOTA:
        return _true(rejected, f"cannot create pods: {context.create_error}")
    return _false("AsExpected")


def _placed(context: StatusContext, explained: Explanation | None) -> _Finding:
    if context.assessed is None:
        return _false("Stalled", "no pods are created")
    if context.suspended:
        return _false("Suspended", "spec.suspend is true")
    total = len(context.replicas)
    placed = sum(
        r.state in _TERMINAL or r.state in _WITH_DEVICES or context.reservation(r) is not None for r in context.replicas
    )
    if placed == total:
        return _true("Placed", _replicas_per_node(context))
    if context.diagnosis is not None and explained is not None:
        return _false("NoDevices", explained.message)
    message = f"{placed} of {total} replicas have devices"
    return _false("Waiting", f"{message}; {explained.message}" if explained else message)


def _replicas_per_node(context: StatusContext) -> str:
    reservations = (context.reservation(r) for r in context.replicas)
    per_node = Counter(reservation.node for reservation in reservations if reservation is not None)
    parts = [f"{number} on {node}" for node, number in sorted(per_node.items())]
    return f"replicas: {', '.join(parts)}"[:_MAX_NODES_LENGTH] if parts else ""


def _degraded(snapshot: Snapshot, context: StatusContext) -> _Finding:
    unreachable = unreachable_replicas(snapshot, context)
    found = [("NodeNotReady", unreachable)] if unreachable else []
    for replica in context.replicas:
        reservation = context.reservation(replica)
        if replica.state is PlacementState.FAILED:
            found.append(("ReplicaFailed", f"replica {replica.index}: {replica.message}"))
        if reservation is None or replica.state not in (PlacementState.BOUND, PlacementState.ALLOCATED):
            continue
        telemetry = snapshot.telemetry.get(reservation.node)
        stale = snapshot.stale_reason(reservation.node)
        place = f"replica {replica.index} on {reservation.node}"
        if telemetry is None or stale is not None:
            found.append(("TelemetryStale", f"{place}: {stale}"))
        elif unhealthy := unhealthy_or_missing_devices(telemetry, reservation.assignment):
            found.append(("DeviceUnhealthy", f"{place}: {', '.join(unhealthy)}"))
    if context.service_error:
        found.append(("ServiceCreateFailed", address_error(context.workload.name, context.service_error)))
    if not found:
        return _false("AsExpected")
    return _true(found[0][0], "; ".join(message for _, message in found))


def _reconciling(context: StatusContext, stalled: _Finding, placed: _Finding) -> _Finding:
    """Returns the finding of the first rule that applies."""
    findings = (rule(context, stalled, placed) for rule in _RECONCILING_RULES)
    return next((finding for finding in findings if finding is not None), _false("Reconciled"))


def _invalid(context: StatusContext, stalled: _Finding, placed: _Finding) -> _Finding | None:
    del context, placed
    return _false(stalled.reason, stalled.message) if stalled.reason in ("InvalidObject", "InvalidTemplate") else None


def _suspending(context: StatusContext, stalled: _Finding, placed: _Finding) -> _Finding | None:
    del stalled, placed
    if not context.suspended:
        return None
    removing = context.assessed is not None and bool(context.assessed.removals)
    return _true("Suspending") if removing else _false("Suspended")


def _replacing(context: StatusContext, stalled: _Finding, placed: _Finding) -> _Finding | None:
    del stalled, placed
    replaced = sum(r.state in (PlacementState.MISMATCH, PlacementState.REJECTED) for r in context.replicas)
    return _true("Replacing", f"replacing {replaced} pods") if replaced else None


def _creating(context: StatusContext, stalled: _Finding, placed: _Finding) -> _Finding | None:
    del placed
    missing = [r for r in context.replicas if r.wait_reason is WaitReason.POD]
    if not missing:
        return None
    if _rejected_pods(context) and classify(context.create_error) is CreateError.QUOTA:
        return _true(CreateError.QUOTA, f"waiting for quota: {context.create_error}")
    if stalled.true:
        return _true("CreatingPods", stalled.message)
    held = next((r for r in missing if r.held), None)
    if held is not None:
        return _true("BackOff", f"replica {held.index}: {held.message}")
    return _true("CreatingPods", f"creating {len(missing)} of {len(context.replicas)} pods")


def _rejected_pods(context: StatusContext) -> bool:
    """Returns True if the apiserver rejected the pods that are missing."""
    return bool(context.create_error) and any(r.wait_reason is WaitReason.POD for r in context.replicas)


def _waiting_for_gates(context: StatusContext, stalled: _Finding, placed: _Finding) -> _Finding | None:
    del stalled, placed
    gated = next((r for r in context.replicas if r.wait_reason is WaitReason.OTHER_GATES), None)
    return _true("OtherSchedulingGates", gated.message) if gated else None


def _waiting_for_devices(context: StatusContext, stalled: _Finding, placed: _Finding) -> _Finding | None:
    del context, stalled
    return None if placed.true else _true("WaitingForDevices", placed.message)


def _binding(context: StatusContext, stalled: _Finding, placed: _Finding) -> _Finding | None:
    del stalled, placed
    unbound = [r for r in context.replicas if r.state in (PlacementState.PENDING, PlacementState.RESERVED)]
    if not unbound:
        return None
    message = next((r.message for r in unbound if r.message), None)
    if message is None:
        schedulers = sorted({r.pod.scheduler for r in unbound if r.pod is not None})
        message = f"waiting for {' and '.join(schedulers) or 'a scheduler'} to bind the pods"
        refused = context.last_refusal
        message = f"{message}; before, {refused}" if refused else message
    return _true("Binding", message)


def _confirming(context: StatusContext, stalled: _Finding, placed: _Finding) -> _Finding | None:
    del stalled, placed
    bound = any(r.state is PlacementState.BOUND for r in context.replicas)
    return _true("Confirming", "waiting for the kubelet to report the devices") if bound else None


_RECONCILING_RULES: tuple[Callable[[StatusContext, _Finding, _Finding], _Finding | None], ...] = (
    _invalid,
    _suspending,
    _replacing,
    _creating,
    _waiting_for_gates,
    _waiting_for_devices,
    _binding,
    _confirming,
)


def _allocated(context: StatusContext, placed: _Finding) -> _Finding:
    states = Counter(r.state for r in context.replicas)
    total = len(context.replicas)
    held = states[PlacementState.ALLOCATED] + states[PlacementState.SUCCEEDED]
    unlisted = [f"replica {r.index}: {r.message}" for r in context.replicas if r.unlisted]
    if held == total and unlisted:
        return _Finding(true=False, reason="NotListed", message="; ".join(unlisted), unknown=True)
    if total and held == total:
        return _true("Allocated", f"{total} of {total} replicas hold exactly their reserved devices")
    if not placed.true:
        return _false(placed.reason, placed.message)
    return _false("Confirming", f"{held} of {total} replicas hold exactly their reserved devices")


def _ready(context: StatusContext, stalled: _Finding, reconciling: _Finding) -> _Finding:
    states = Counter(r.state for r in context.replicas)
    total = len(context.replicas)
    allocated, succeeded = states[PlacementState.ALLOCATED], states[PlacementState.SUCCEEDED]
    if total and succeeded == total:
        return _true("Succeeded", f"all {total} replicas succeeded")
    if total and allocated + succeeded == total:
        return _true("AllReplicasReady", f"{total} of {total} replicas hold exactly their reserved devices")
    if stalled.true:
        return _false(stalled.reason, stalled.message)
    return _false(reconciling.reason, reconciling.message)
