"""The conditions Fresh, Healthy and Drained of GPUTelemetries, and the condition GPUHealthy of their Nodes.

A condition is written when its status or reason changes, and at most once a minute if only its message does. The
message of Drained is written at once: it names the pods that are left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_common import timestamps
from gpufleet_operator.fleet import cordons, rejecting_nodes
from gpufleet_operator.model.objects import Node, NodeCondition, Telemetry
from gpufleet_operator.model.report_actions import WriteNodeCondition, WriteTelemetryConditions
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import UpToDateNode
from gpufleet_operator.report.telemetry_health import TelemetryFinding, drained, fresh, healthy

MESSAGE_INTERVAL = timedelta(seconds=60)
"""Shortest interval between two writes of a condition of which only the message differs."""


@dataclass(slots=True)
class NodeReports:
    """The conditions to write, and the nodes for which there is nothing to write."""

    telemetry: list[WriteTelemetryConditions] = field(default_factory=list)
    nodes: list[WriteNodeCondition] = field(default_factory=list)
    up_to_date: dict[str, UpToDateNode] = field(default_factory=dict)
    later: dict[str, datetime] = field(default_factory=dict)
    """Name of a node -> when a condition may be written of which only the message differs."""

    def is_due(
        self,
        snapshot: Snapshot,
        write: WriteTelemetryConditions | WriteNodeCondition,
        stored: Sequence[Condition | NodeCondition | None],
        wanted: Sequence[Condition | NodeCondition | None],
    ) -> bool:
        """Returns False, and notes when it is due, if only messages differ and the last was written within a minute."""
        if list(map(_decisive, stored)) != list(map(_decisive, wanted)):
            return True
        reported = snapshot.previous_state.reported.get(write.key)
        if reported is None or snapshot.now - reported.at >= MESSAGE_INTERVAL:
            return True
        due = reported.at + MESSAGE_INTERVAL
        self.later[write.node] = min(due, self.later.get(write.node, due))
        return False


def report_node(snapshot: Snapshot, found: NodeReports, name: str) -> None:
    """Compares the stored conditions of a node with those that it should have, and adds the reports.

    A node whose objects have not changed since nothing was to be written is skipped: of thousands of nodes, only a few
    change from one pass to the next.
    """
    telemetry, node = snapshot.telemetry.get(name), snapshot.nodes.get(name)
    up_to_date = UpToDateNode(
        telemetry.resource_version if telemetry else "",
        node.resource_version if node else "",
        stale=snapshot.is_stale_by_itself(name),
        drained=frozenset(cordons.drained(snapshot, name)),
        excluded_until=rejecting_nodes.active(snapshot.previous_state.rejections.by_node, snapshot.now).get(name),
    )
    before = snapshot.previous_state.up_to_date_nodes.get(name)
    if before == up_to_date or not _differs(snapshot, found, telemetry, node):
        found.up_to_date[name] = up_to_date


def _differs(snapshot: Snapshot, found: NodeReports, telemetry: Telemetry | None, node: Node | None) -> bool:
    """Adds the writes that are due; returns whether a condition differs, due or not."""
    if telemetry is not None and telemetry.deleting:
        telemetry = None
    freshness = fresh(snapshot, telemetry) if telemetry else None
    health = _health(snapshot, telemetry, freshness) if telemetry and freshness else None
    differs = False
    if (
        telemetry
        and snapshot.stale_reason(telemetry.name) is not None
        and not snapshot.is_stale_by_itself(telemetry.name)
    ):
        return False  # looked at again when the outage ends
    # An object without a status cannot have conditions.
    if telemetry and freshness and health and (telemetry.status is not None or telemetry.decode_error):
        findings = {"Fresh": freshness, "Healthy": health, "Drained": drained(snapshot, telemetry)}
        wanted = [_condition(snapshot, telemetry, kind, f) if f else None for kind, f in findings.items()]
        stored = [telemetry.conditions.get(kind) for kind in findings]
        write = WriteTelemetryConditions(telemetry.name, telemetry.uid, tuple(c for c in wanted if c is not None))
        differs = stored != wanted
        if differs and found.is_due(snapshot, write, stored, wanted):
            found.telemetry.append(write)
    if node is not None and snapshot.limits.node_conditions:
        to_node = WriteNodeCondition(node.name, node.uid, _node_condition(snapshot, telemetry, node, health))
        if node.condition != to_node.condition:
            differs = True
            if found.is_due(snapshot, to_node, [node.condition], [to_node.condition]):
                found.nodes.append(to_node)
    return differs


def _health(snapshot: Snapshot, telemetry: Telemetry, freshness: TelemetryFinding) -> TelemetryFinding:
    """Returns whether the devices are healthy, and containers get them."""
    found, rejected = healthy(telemetry, freshness), snapshot.previous_state.rejections.by_node
    end = rejecting_nodes.active(rejected, snapshot.now).get(telemetry.name)
    if end is None or found.status is ConditionStatus.FALSE:
        return found
    message = rejecting_nodes.message(rejected[telemetry.name], end)
    return TelemetryFinding(ConditionStatus.FALSE, "PodsRejected", message)


def _condition(snapshot: Snapshot, telemetry: Telemetry, kind: str, finding: TelemetryFinding) -> Condition:
    old = telemetry.conditions.get(kind)
    return Condition(
        type=kind,
        status=finding.status,
        reason=finding.reason,
        message=finding.message,
        last_transition_time=_since(snapshot, old, finding),
    )


def _node_condition(
    snapshot: Snapshot, telemetry: Telemetry | None, node: Node, health: TelemetryFinding | None
) -> NodeCondition | None:
    """Returns the condition that the Node should have; None: none, because it has no agent or no device."""
    if telemetry is None or health is None:
        return None
    has_devices = telemetry.status is not None and bool(telemetry.status.devices)
    if not has_devices and node.condition is None:
        return None  # an agent also runs on nodes without GPUs
    return NodeCondition(health.status, health.reason, health.message, _since(snapshot, node.condition, health))


def _since(snapshot: Snapshot, old: Condition | NodeCondition | None, finding: TelemetryFinding) -> str:
    if old is not None and old.status is finding.status:
        return old.last_transition_time
    return timestamps.seconds(snapshot.now)


def _decisive(condition: Condition | NodeCondition | None) -> tuple[object, ...] | None:
    """Returns what is written immediately. Who is left on a drained device does not change with each measurement."""
    if condition is None:
        return None
    drains = isinstance(condition, Condition) and condition.type == "Drained"
    return condition.status, condition.reason, condition.message if drains else ""
