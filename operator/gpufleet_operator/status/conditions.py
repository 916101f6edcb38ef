"""The conditions of a workload, as `kubectl wait`, Argo CD and Flux expect them (kstatus).

Ready: every replica's pod is Ready and holds its devices. Allocated: every replica holds its devices. Placed: every
replica has devices. Complete, Failed, Suspended: as for a Job. Degraded: something is wrong with devices in use.
Reconciling: the operator is working on it. Stalled: nothing will change until the user changes something. All of these
are always present, except Ready: kstatus would report a complete or suspended workload with Ready False as InProgress.
The first condition is Ready, or Complete or Suspended in its place; its message is a column of `kubectl get`.
"""

from collections import Counter
from collections.abc import Callable

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.workload_status import Explanation, PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.fleet.device_health import unhealthy_or_missing_devices
from gpufleet_operator.model.create_errors import CreateError, classify
from gpufleet_operator.model.replica import ENDED_STATES, WaitReason
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.pods.network import address_error
from gpufleet_operator.status import adoption, outcome, rollout
from gpufleet_operator.status.context import StatusContext
from gpufleet_operator.status.finding import ConditionFinding, is_false, is_true
from gpufleet_operator.status.messages import message_or_default
from gpufleet_operator.status.placements import with_notes
from gpufleet_operator.status.ready import allocated, pods_not_ready, ready, unknown_ends
from gpufleet_operator.status.unreachable import unreachable_replicas

_MAX_MESSAGE_LENGTH = 4096
_MAX_NODES_LENGTH = 512

_WITH_DEVICES = (PlacementState.RESERVED, PlacementState.BOUND, PlacementState.ALLOCATED, PlacementState.MISMATCH)


def conditions(snapshot: Snapshot, context: StatusContext, placed: ConditionFinding) -> list[Condition]:
    """Returns all conditions. The transition time of a condition whose status did not change is kept.

    Args:
        snapshot: The cluster.
        context: The workload after this pass.
        placed: Of the condition Placed.
    """
    stalled = _stalled(context)
    reconciling = _reconciling(context, stalled, placed)
    findings = {
        "Ready": ready(context, stalled, reconciling),
        "Allocated": allocated(context, placed),
        "Placed": placed,
        "Complete": outcome.complete(context),
        "Failed": outcome.failed(context),
        "Suspended": outcome.suspended(context),
        "Degraded": _degraded(snapshot, context),
        "Reconciling": reconciling,
        "Stalled": stalled,
    }
    stored = {c.type: c for c in context.workload.status.conditions} if context.workload.status else {}
    result = []
    for kind, finding in findings.items():
        if finding is None:
            continue
        status = _status(finding)
        old = stored.get(kind)
        message = message_or_default(kind, finding.reason, finding.message)[:_MAX_MESSAGE_LENGTH]
        found = (status, finding.reason, message, context.workload.generation)
        if old and found == (old.status, old.reason, old.message, old.observed_generation):
            result.append(old)
            continue
        since = old.last_transition_time if old and old.status is status else timestamps.seconds(snapshot.now)
        result.append(
            Condition(
                type=kind,
                status=status,
                reason=finding.reason,
                message=message,
                observed_generation=context.workload.generation,
                last_transition_time=since,
            )
        )
    return sorted(result, key=lambda condition: not _summarizes(condition))


def _summarizes(condition: Condition) -> bool:
    """Returns True for the condition that summarizes the state of the workload: Ready, or the one that replaces it."""
    return condition.type == "Ready" or (
        condition.type in ("Complete", "Suspended") and condition.status is ConditionStatus.TRUE
    )


def _status(finding: ConditionFinding) -> ConditionStatus:
    if finding.unknown:
        return ConditionStatus.UNKNOWN
    return ConditionStatus.TRUE if finding.true else ConditionStatus.FALSE


def _stalled(context: StatusContext) -> ConditionFinding:
    if context.workload.model is None:
        return is_true("InvalidObject", context.workload.invalid)
    if context.outcome is not None:
        ended = context.outcome
        return is_false("AsExpected") if ended.complete else is_true(ended.reason, ended.message)
    if context.internal_error:
        return is_true("InternalError", context.internal_error)
    if context.template_errors:
        return is_true("InvalidTemplate", "; ".join(context.template_errors))
    invalid_pod = adoption.invalid_pod(context)
    if invalid_pod is not None:
        return invalid_pod
    claimed = _rejected_claim(context)
    if claimed is not None and claimed.reason != CreateError.QUOTA:
        return claimed
    rejected = classify(context.create_error)
    if _rejected_pods(context) and rejected is not CreateError.QUOTA:
        return is_true(rejected, f"cannot create pods: {context.create_error}")
    if unknown := unknown_ends(context):
        return is_true("EndUnknown", unknown)
    return is_false("AsExpected")


def placed_finding(context: StatusContext, explained: Explanation | None) -> ConditionFinding:
    if context.outcome is not None:
        return is_false(context.outcome.reason, context.outcome.message)
    if context.assessed is None:
        return is_false("Stalled", "no pods are created")
    if context.suspended:
        return is_false("Suspended", "spec.suspend is true")
    if rollout.is_scaled_to_zero(context):
        return is_true(*rollout.no_replicas(context))
    total = len(context.replicas)
    placed = sum(
        r.state in ENDED_STATES
        or r.state in _WITH_DEVICES
        or r.wait_reason is WaitReason.PREDECESSOR
        or context.reservation(r) is not None
        or r.index in context.kept
        for r in context.replicas
    )
    if placed < total and context.template_errors:
        return is_false("Stalled", f"{placed} of {total} replicas have devices; no pods are created")
    if placed == total:
        return is_true("Placed", with_notes(context, _replicas_per_node(context)))
    if context.diagnosis is not None and explained is not None:
        return is_false("NoDevicesAvailable", explained.message)
    message = f"{placed} of {total} replicas have devices"
    return is_false("Waiting", f"{message}; {explained.message}" if explained else message)


def _replicas_per_node(context: StatusContext) -> str:
    reservations = (context.reservation(r) or context.kept.get(r.index) for r in context.replicas)
    per_node = Counter(reservation.node for reservation in reservations if reservation is not None)
    parts = [f"{number} on {node}" for node, number in sorted(per_node.items())]
    return f"replicas: {', '.join(parts)}"[:_MAX_NODES_LENGTH] if parts else ""


def _degraded(snapshot: Snapshot, context: StatusContext) -> ConditionFinding:
    unreachable = unreachable_replicas(context)
    found = [("NodeNotReady", unreachable)] if unreachable else []
    for replica in context.replicas:
        reservation = context.reservation(replica)
        if reservation is None or replica.state not in (PlacementState.BOUND, PlacementState.ALLOCATED):
            continue
        telemetry = snapshot.telemetry.get(reservation.node)
        stale = snapshot.stale_reason(reservation.node)
        if stale is not None and not snapshot.is_stale_by_itself(reservation.node) and not _is_stale_already(context):
            stale = None
        place = f"replica {replica.index} on {reservation.node}"
        if telemetry is None or stale is not None:
            found.append(("TelemetryStale", f"{place}: {stale}"))
        elif unhealthy := unhealthy_or_missing_devices(telemetry, reservation.assignment):
            found.append(("DeviceUnhealthy", f"{place}: {', '.join(unhealthy)}"))
    found += adoption.problems(context)
    if context.service_error:
        found.append(("ServiceCreateFailed", address_error(context.workload.name, context.service_error)))
    if not found:
        return is_false("AsExpected")
    return is_true(found[0][0], "; ".join(message for _, message in found))


def _is_stale_already(context: StatusContext) -> bool:
    stored = context.workload.status.conditions if context.workload.status else []
    return any(c.type == "Degraded" and c.reason == "TelemetryStale" for c in stored)


def _reconciling(context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding) -> ConditionFinding:
    """Returns the finding of the first rule that applies."""
    findings = (rule(context, stalled, placed) for rule in _RECONCILING_RULES)
    return next((finding for finding in findings if finding is not None), is_false("Reconciled"))


def _not_stalled(
    context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding
) -> ConditionFinding | None:
    """Excludes that both are True: kstatus would always report the one that comes first, Reconciling."""
    del context, placed
    return is_false(stalled.reason, stalled.message) if stalled.true else None


def _finished(context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding) -> ConditionFinding | None:
    del stalled, placed
    return is_false(context.outcome.reason, context.outcome.message) if context.outcome is not None else None


def _suspending(context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding) -> ConditionFinding | None:
    del stalled, placed
    if not context.suspended:
        return None
    removing = context.assessed is not None and bool(context.assessed.removals)
    return is_true("Suspending") if removing else is_false("Suspended")


def _restarting(context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding) -> ConditionFinding | None:
    del stalled, placed
    waiting = next((r for r in context.replicas if r.wait_reason is WaitReason.RESTART_BACKOFF), None)
    return is_true("RestartBackOff", f"replica {waiting.index}: {waiting.message}") if waiting else None


def _replacing(context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding) -> ConditionFinding | None:
    del stalled, placed
    replaced = sum(r.state in (PlacementState.MISMATCH, PlacementState.REJECTED) for r in context.replicas)
    return is_true("Replacing", f"replacing {replaced} pod{'s' if replaced > 1 else ''}") if replaced else None


def _creating(context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding) -> ConditionFinding | None:
    del stalled, placed
    missing = [r for r in context.replicas if r.wait_reason is WaitReason.POD]
    if not missing:
        return None
    if _rejected_pods(context) and classify(context.create_error) is CreateError.QUOTA:
        return is_true(CreateError.QUOTA, f"waiting for quota: {context.create_error}")
    paused = next((r for r in missing if r.retry_paused), None)
    if paused is not None:
        return is_true("PlacementBackOff", f"replica {paused.index}: {paused.message}")
    return is_true("CreatingPods", f"creating {len(missing)} of {len(context.replicas)} pods")


def _waiting_for_owner(
    context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding
) -> ConditionFinding | None:
    del stalled, placed
    return adoption.waiting_for_owner(context)


def _rejected_pods(context: StatusContext) -> bool:
    """Returns True if the apiserver rejected the pods that are missing."""
    return bool(context.create_error) and any(r.wait_reason is WaitReason.POD for r in context.replicas)


def _waiting_for_gates(
    context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding
) -> ConditionFinding | None:
    del stalled, placed
    gated = next((r for r in context.replicas if r.wait_reason is WaitReason.OTHER_GATES), None)
    return is_true("OtherSchedulingGates", gated.message) if gated else None


def _rejected_claim(context: StatusContext) -> ConditionFinding | None:
    """Returns why the apiserver rejects a ResourceClaim of the workload; None: it does not. A quota ends by itself."""
    replica = next((r for r in context.replicas if r.wait_reason is WaitReason.CLAIM), None)
    if replica is None:
        return None
    message = f"replica {replica.index}: {replica.message}"
    if classify(replica.message) is CreateError.QUOTA:
        return is_true(CreateError.QUOTA, f"waiting for quota: {message}")
    return is_true("ClaimCreateFailed", message)


def _waiting_for_claims(
    context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding
) -> ConditionFinding | None:
    del stalled, placed
    return _rejected_claim(context)


def _waiting_for_devices(
    context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding
) -> ConditionFinding | None:
    del context, stalled
    return None if placed.true else is_true("WaitingForDevices", placed.message)


def _rolling(context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding) -> ConditionFinding | None:
    del stalled, placed
    found = rollout.rolling(context) or rollout.scaling_down(context)
    return is_true(*found) if found else None


def _binding(context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding) -> ConditionFinding | None:
    del stalled, placed
    unbound = [r for r in context.replicas if r.state in (PlacementState.PENDING, PlacementState.RESERVED)]
    if not unbound:
        return None
    message = next((r.message for r in unbound if r.message), None)
    if message is None:
        schedulers = sorted({r.pod.scheduler for r in unbound if r.pod is not None})
        message = f"waiting for {' and '.join(schedulers) or 'a scheduler'} to bind the pods"
        rejected = context.last_rejection
        message = f"{message}; last rejection: {rejected}" if rejected else message
    return is_true("Binding", message)


def _not_ready(context: StatusContext, stalled: ConditionFinding, placed: ConditionFinding) -> ConditionFinding | None:
    del stalled, placed
    return pods_not_ready(context)


_RECONCILING_RULES: tuple[
    Callable[[StatusContext, ConditionFinding, ConditionFinding], ConditionFinding | None], ...
] = (
    _not_stalled,
    _finished,
    _suspending,
    _restarting,
    _replacing,
    _creating,
    _waiting_for_owner,
    _waiting_for_gates,
    _waiting_for_claims,
    _waiting_for_devices,
    _rolling,
    _binding,
    _not_ready,
)
