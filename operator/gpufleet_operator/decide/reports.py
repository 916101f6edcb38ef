"""Collects the reports of a pass, without those that are backing off."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.plan import Plan
from gpufleet_operator.decide.writes import Writes
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.replica import WorkloadReplicas
from gpufleet_operator.model.report_actions import ExplainPod, Reports, WriteNodeCondition, WriteTelemetryConditions
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, Reported, UpToDateNode
from gpufleet_operator.report.gated_pods import (
    Explainer,
    GateContext,
    explained,
    gated_pods,
    pods_without_claim,
    unreplaced,
)
from gpufleet_operator.report.node_reports import MESSAGE_INTERVAL, NodeReports, report_node

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
    snapshot: Snapshot,
    state: PassState,
    assessed: Sequence[WorkloadReplicas],
    plan: Plan,
    writes: Writes,
    *,
    guard: WorkloadGuard,
) -> CollectedReports:
    """Returns the reports to write.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        assessed: The workloads that parse.
        plan: The devices picked in this pass.
        writes: The pods that are released.
        guard: Gets the nodes, and the workloads of the pods, on which this fails; the pod if it has no workload.
    """

    def due(reports: Iterable[Report]) -> Iterator[Report]:
        return (r for r in reports if not state.is_backing_off(r.key, snapshot.now))

    context = GateContext(
        replicas={r.pod.uid: (a, r) for a in assessed for r in a.replicas if r.pod is not None},
        ledger=plan.ledger,
        unplaced=plan.unplaced,
        without_replica={one.pod.uid: one for a in assessed for one in a.unplaced},
        releases=frozenset(r.pod_uid for r in writes.releases),
    )
    nodes = NodeReports()
    tuple(guard.each(partial(report_node, snapshot, nodes), snapshot.node_names(), str))
    telemetry, conditions = tuple(due(nodes.telemetry)), tuple(due(nodes.nodes))

    def owner_or_pod(pod: Pod) -> str:
        member = context.replicas.get(pod.uid)
        uid = member[0].workload.uid if member is not None else pod.workload_uid
        return uid if uid in snapshot.workloads else pod.uid

    explain = Explainer(snapshot, state, context)
    found = chain(
        guard.each(explain.gated, gated_pods(snapshot), owner_or_pod),
        guard.each(explain.without_claim, pods_without_claim(snapshot), owner_or_pod),
        chain.from_iterable(guard.each(partial(unreplaced, state, snapshot.now), assessed, lambda a: a.workload.uid)),
    )
    pods = due(action for action in found if action is not None)
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
