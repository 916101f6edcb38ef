"""What is told about a workload: its status, written on change, and the events that go with a change."""

from collections.abc import Mapping

from gpufleet_api.workload import Condition, WorkloadStatus
from gpufleet_operator.model.actions import Event, WriteStatus
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.status.conditions import conditions
from gpufleet_operator.status.context import StatusContext
from gpufleet_operator.status.explanation import explanation
from gpufleet_operator.status.placements import confirmed, nodes, placements, unassigned

_WARNINGS = frozenset({"Stalled", "Degraded"})
"""Conditions whose True is bad news."""


def write(snapshot: Snapshot, outlook: StatusContext) -> WriteStatus | None:
    """The status to write now, or None: nothing changed, or only numbers in messages did, a moment ago."""
    workload = outlook.workload
    status, stored = build(snapshot, outlook), workload.status
    if stored is not None and status == stored:
        return None
    if outlook.workload.model is None or (stored is not None and _essence(status) == _essence(stored)):
        last = snapshot.memory.status_written.get(workload.uid)
        if last is not None and snapshot.now - last < snapshot.limits.message_interval:
            return None
    return WriteStatus(
        workload_uid=workload.uid,
        namespace=workload.namespace,
        name=workload.name,
        resource_version=workload.resource_version,
        status=status,
        events=_events(stored, status),
    )


def build(snapshot: Snapshot, outlook: StatusContext) -> WorkloadStatus:
    """The whole status."""
    told = explanation(snapshot, outlook)
    if outlook.standing is None:
        # Nothing is known of its replicas now, and what was known of them (shares, successes) must not be lost.
        before = outlook.workload.status or WorkloadStatus()
        generation = outlook.workload.generation
        return before.model_copy(
            update={"observed_generation": generation, "conditions": conditions(snapshot, outlook, told)}
        )
    return WorkloadStatus(
        observed_generation=outlook.workload.generation,
        conditions=conditions(snapshot, outlook, told),
        confirmed=confirmed(outlook),
        nodes=nodes(outlook),
        placements=placements(outlook),
        unassigned_items=unassigned(outlook),
        explanation=told,
    )


def _essence(status: WorkloadStatus) -> tuple[object, ...]:
    """Everything but words and numbers that follow the telemetry from second to second."""
    return (
        status.observed_generation,
        tuple((c.type, c.status, c.reason) for c in status.conditions),
        status.confirmed,
        status.nodes,
        tuple(p.model_copy(update={"message": None}) for p in status.placements),
        status.unassigned_items,
        status.explanation is None,
    )


def _events(stored: WorkloadStatus | None, status: WorkloadStatus) -> tuple[Event, ...]:
    before: Mapping[str, Condition] = {c.type: c for c in stored.conditions} if stored else {}
    events = []
    for condition in status.conditions:
        old = before.get(condition.type)
        if old is not None and (old.status, old.reason) == (condition.status, condition.reason):
            continue
        true = condition.status == "True"
        good = condition.type in ("Ready", "Placed") and true
        bad = (condition.type in _WARNINGS and true) or (condition.type == "Placed" and condition.reason == "NoDevices")
        if good or bad:
            events.append(Event(condition.reason, condition.message, warning=bad))
    return tuple(events)
