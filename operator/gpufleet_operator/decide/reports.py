"""Collects the reports of a pass, without those that are backing off."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import TypeVar

from gpufleet_operator.decide.plan import Plan
from gpufleet_operator.decide.writes import Writes
from gpufleet_operator.model.replica import WorkloadReplicas
from gpufleet_operator.model.report_actions import ExplainPod, Reports, WriteNodeCondition, WriteTelemetryConditions
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, Reported, UpToDateNode
from gpufleet_operator.report.gated_pods import GateContext, explained, explanations, unreplaced
from gpufleet_operator.report.node_reports import MESSAGE_INTERVAL, node_reports

MAX_PER_PASS = 32
"""Of each kind, so that reports do not delay the next pass. The responses start it."""

Report = TypeVar("Report", WriteTelemetryConditions, WriteNodeCondition, ExplainPod)


@dataclass(frozen=True, slots=True)
class CollectedReports:
    """The reports to write, and what the next pass has to know about them: see `PassState`."""

    to_write: Reports
    reported: Mapping[str, Reported]
    up_to_date_nodes: Mapping[str, UpToDateNode]
    late: frozenset[str]
    """Names of nodes with conditions that are due and not written, because there are too many."""
    later: Mapping[str, datetime]
    """When a message of a node's conditions is due that was held back."""


def collect_reports(
    snapshot: Snapshot, state: PassState, assessed: Sequence[WorkloadReplicas], plan: Plan, writes: Writes
) -> CollectedReports:

    def due(reports: Iterable[Report]) -> Iterator[Report]:
        return (r for r in reports if not state.is_backing_off(r.key, snapshot.now))

    context = GateContext(
        assessed={a.workload.uid: a for a in assessed},
        ledger=plan.ledger,
        unplaced=plan.unplaced,
        without_replica={one.pod.uid: one for a in assessed for one in a.unplaced},
        releases=frozenset(r.pod_uid for r in writes.releases),
    )
    nodes = node_reports(snapshot)
    telemetry, conditions = tuple(due(nodes.telemetry)), tuple(due(nodes.nodes))
    pods = due(chain(explanations(snapshot, state, context), unreplaced(state, snapshot.now, assessed)))
    reports = Reports(telemetry[:MAX_PER_PASS], conditions[:MAX_PER_PASS], tuple(islice(pods, MAX_PER_PASS)))
    late = {write.node for write in telemetry[MAX_PER_PASS:]} | {write.node for write in conditions[MAX_PER_PASS:]}
    return CollectedReports(
        reports, _reported(snapshot, reports), nodes.up_to_date, late=frozenset(late), later=nodes.later
    )


def _reported(snapshot: Snapshot, reports: Reports) -> Mapping[str, Reported]:
    """Returns when each report was last written, as far as that delays the next one."""
    now, previous = snapshot.now, snapshot.previous_state.reported
    return {
        **{key: reported for key, reported in previous.items() if now - reported.at < MESSAGE_INTERVAL},
        **explained(snapshot),
        **{write.key: Reported(now) for write in reports.telemetry},
        **{write.key: Reported(now) for write in reports.nodes},
        **{pod.key: Reported(now, pod.note_without_numbers) for pod in reports.pods},
    }
