"""Builds the engine's fleet from a snapshot: one NodeState per node that has both a Node and a GPUTelemetry."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.fleet.engine_input import node_state
from gpufleet_operator.fleet.holders import holders_by_node
from gpufleet_operator.fleet.node_capacity import node_without_devices, requested_per_node
from gpufleet_operator.fleet.node_health import not_placeable_reason
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Node, Telemetry
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.model import HolderPod, NodeState


@dataclass(frozen=True, slots=True)
class BuiltFleet:
    """The fleet, and a message for each node that is excluded because its telemetry is inconsistent."""

    fleet: Fleet
    inconsistencies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeInputs:
    """Input of a NodeState."""

    telemetry: Telemetry
    node: Node
    assignments: list[Assignment]
    requested: Mapping[str, int]
    holders: tuple[HolderPod, ...]
    not_ready: str | None
    stale_reason: str | None
    at: datetime
    """Time of the pass."""

    @property
    def name(self) -> str:
        return self.telemetry.name

    def same_state(self, earlier: "NodeInputs") -> bool:
        """Returns True if the state is the one at an earlier time, but for the ages of samples.

        The caller must ensure that no sample has become stale or fresh since then.
        """
        telemetry, before = self.telemetry, earlier.telemetry
        if telemetry.model is not before.model or self.node is not earlier.node:
            return False
        # Entries of cordoned devices end by themselves. A status without a time, or with a future time, is never older.
        if telemetry.model.spec.cordoned or telemetry.confirmed_at is None or before.confirmed_at is None:
            return False
        if before.confirmed_at > earlier.at or telemetry.confirmed_at > self.at:
            return False
        if telemetry is not before and any(one.memory_mib is not None for one in self.assignments):
            return False  # a later sample may show memory that was promised since the earlier one
        return (self.assignments, self.requested, self.holders, self.not_ready, self.stale_reason) == (
            earlier.assignments,
            earlier.requested,
            earlier.holders,
            earlier.not_ready,
            earlier.stale_reason,
        )


def build(snapshot: Snapshot, ledger: Ledger) -> BuiltFleet:
    """Builds the nodes with their free devices and free capacity, the reservations of `ledger` deducted.

    When two nodes report the same UUID (a cloned machine, a device that was moved while running), the first by name
    keeps it, and the other is excluded until the reports agree. A node with an impossible value is excluded as well.
    """
    fleet, inconsistencies = Fleet(), []
    for state in node_states(snapshot, ledger):
        try:
            fleet.put(state)
        except PlacementError as error:
            inconsistencies.append(str(error))
            fleet.put(excluded(state, error))
    return BuiltFleet(fleet, tuple(inconsistencies))


def excluded(state: NodeState, error: PlacementError) -> NodeState:
    """Returns a node that takes no part because its telemetry is inconsistent."""
    return replace(state, devices=(), stale_reason=str(error))


def node_states(snapshot: Snapshot, ledger: Ledger) -> Iterator[NodeState]:
    """Yields the nodes as the engine sees them, by name."""
    return (node_state_of(snapshot, inputs) for inputs in node_inputs(snapshot, ledger))


def node_inputs(snapshot: Snapshot, ledger: Ledger) -> Iterator[NodeInputs]:
    """Yields the input of each node, by name."""
    requested = requested_per_node(snapshot, ledger)
    assignments = _assignments_by_node(ledger)
    holders = holders_by_node(snapshot, ledger)
    for name in sorted(name for name in snapshot.telemetry if name in snapshot.nodes):
        yield NodeInputs(
            snapshot.telemetry[name],
            snapshot.nodes[name],
            assignments=assignments.get(name, []),
            requested=requested.get(name, {}),
            holders=tuple(holders.get(name, ())),
            not_ready=not_placeable_reason(snapshot, name),
            stale_reason=snapshot.stale_reason(name),
            at=snapshot.now,
        )


def node_state_of(snapshot: Snapshot, inputs: NodeInputs) -> NodeState:
    """Returns the state of a node for the engine."""
    telemetry = inputs.telemetry
    age = snapshot.age(telemetry)
    return node_state(
        telemetry.model,
        node_without_devices(inputs.node, inputs.requested, inputs.not_ready, inputs.holders),
        age_seconds=age.total_seconds() if age is not None else 0.0,
        stale_after_seconds=snapshot.limits.stale_after.total_seconds(),
        stale_reason=inputs.stale_reason,
        now=snapshot.now,
        slots=snapshot.limits.resources.slots,
        reclaim_after=snapshot.limits.reclaim_after,
        assignments=inputs.assignments,
    )


def _assignments_by_node(ledger: Ledger) -> dict[str, list[Assignment]]:
    assignments: dict[str, list[Assignment]] = {}
    for reservation in ledger.occupying:
        assignments.setdefault(reservation.node, []).append(reservation.assignment)
    return assignments
