"""Collects the reports of a pass, without those that are backing off."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from gpufleet_operator.decide.plan import Plan
from gpufleet_operator.decide.writes import Writes
from gpufleet_operator.model.replica import WorkloadReplicas
from gpufleet_operator.model.report_actions import ExplainPod, Reports, WriteNodeCondition, WriteTelemetryConditions
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, Reported
from gpufleet_operator.report.gated_pods import Placements, explained, explanations
from gpufleet_operator.report.node_reports import node_conditions, telemetry_conditions

_MAX_PER_PASS = 64
"""Of each kind, so that reports do not delay the next pass. The responses start it."""

Report = TypeVar("Report", WriteTelemetryConditions, WriteNodeCondition, ExplainPod)


def collect_reports(
    snapshot: Snapshot, state: PassState, assessed: Sequence[WorkloadReplicas], plan: Plan, writes: Writes
) -> Reports:
    """Returns the reports to write."""

    def due(reports: Iterable[Report]) -> tuple[Report, ...]:
        return tuple(islice((r for r in reports if not state.is_backing_off(r.key, snapshot.now)), _MAX_PER_PASS))

    placements = Placements(
        assessed={a.workload.uid: a for a in assessed},
        ledger=plan.ledger,
        unplaced=plan.unplaced,
        releases=frozenset(r.pod_uid for r in writes.releases),
    )
    return Reports(
        telemetry=due(telemetry_conditions(snapshot)),
        nodes=due(node_conditions(snapshot)),
        pods=due(explanations(snapshot, state, placements)),
    )


def reported(snapshot: Snapshot, reports: Reports) -> Mapping[str, Reported]:
    """Returns when each report was last written, for objects that still exist."""
    now, previous = snapshot.now, snapshot.previous_state.reported
    existing = [WriteTelemetryConditions(t.name, t.uid, ()).key for t in snapshot.telemetry.values()]
    existing += [WriteNodeCondition(n.name, n.uid, None).key for n in snapshot.nodes.values()]
    return {
        **{key: previous[key] for key in existing if key in previous},
        **explained(snapshot),
        **{write.key: Reported(now) for write in reports.telemetry},
        **{write.key: Reported(now) for write in reports.nodes},
        **{pod.key: Reported(now, pod.words) for pod in reports.pods},
    }
