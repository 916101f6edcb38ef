"""The conditions Fresh and Healthy of GPUTelemetries, and the condition GPUHealthy of their Nodes.

A condition is written when its status or reason changes, and at most once a minute if only its message does.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from gpufleet_api.condition import Condition
from gpufleet_common import timestamps
from gpufleet_operator.model.objects import Node, NodeCondition, Telemetry
from gpufleet_operator.model.report_actions import WriteNodeCondition, WriteTelemetryConditions
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.report.telemetry_health import Finding, fresh, healthy

_MESSAGE_INTERVAL = timedelta(seconds=60)


def telemetry_conditions(snapshot: Snapshot) -> Iterator[WriteTelemetryConditions]:
    """Yields the conditions to write. An object without a status cannot have any."""
    for telemetry in snapshot.telemetry.values():
        if telemetry.deleting or (telemetry.status is None and not telemetry.decode_error):
            continue
        freshness = fresh(snapshot, telemetry)
        findings = {"Fresh": freshness, "Healthy": healthy(telemetry, freshness)}
        wanted = tuple(_condition(snapshot, telemetry, kind, finding) for kind, finding in findings.items())
        write = WriteTelemetryConditions(telemetry.name, telemetry.uid, wanted)
        stored = [telemetry.conditions.get(c.type) for c in wanted]
        if _is_due(snapshot, write.key, stored, wanted):
            yield write


def node_conditions(snapshot: Snapshot) -> Iterator[WriteNodeCondition]:
    """Yields the conditions to write to Nodes, and the removal from Nodes without a GPUTelemetry."""
    if not snapshot.limits.node_conditions:
        return
    for node in snapshot.nodes.values():
        write = WriteNodeCondition(node.name, node.uid, _node_condition(snapshot, node))
        if _is_due(snapshot, write.key, [node.condition], [write.condition]):
            yield write


def _condition(snapshot: Snapshot, telemetry: Telemetry, kind: str, finding: Finding) -> Condition:
    old = telemetry.conditions.get(kind)
    return Condition(
        type=kind,
        status=finding.status,
        reason=finding.reason,
        message=finding.message,
        last_transition_time=_since(snapshot, old, finding),
    )


def _node_condition(snapshot: Snapshot, node: Node) -> NodeCondition | None:
    telemetry, old = snapshot.telemetry.get(node.name), node.condition
    if telemetry is None or telemetry.deleting:
        return None
    has_devices = telemetry.status is not None and bool(telemetry.status.devices)
    if not has_devices and old is None:
        return None  # an agent also runs on nodes without GPUs
    finding = healthy(telemetry, fresh(snapshot, telemetry))
    return NodeCondition(finding.status, finding.reason, finding.message, _since(snapshot, old, finding))


def _since(snapshot: Snapshot, old: Condition | NodeCondition | None, finding: Finding) -> str:
    if old is not None and old.status is finding.status:
        return old.last_transition_time
    return timestamps.seconds(snapshot.now)


def _is_due(
    snapshot: Snapshot,
    key: str,
    stored: Sequence[Condition | NodeCondition | None],
    wanted: Sequence[Condition | NodeCondition | None],
) -> bool:
    if list(stored) == list(wanted):
        return False
    if [c and (c.status, c.reason) for c in stored] != [c and (c.status, c.reason) for c in wanted]:
        return True
    reported = snapshot.previous_state.reported.get(key)
    return reported is None or snapshot.now - reported.at >= _MESSAGE_INTERVAL
