"""The operator's Prometheus metrics. Label values are bounded by nodes, kinds, reasons and outcomes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from gpufleet_operator.decide.pressure.candidates import MoveReason
from gpufleet_operator.decide.pressure.plan_moves import MoveRejection
from gpufleet_operator.fleet import rejecting_nodes
from gpufleet_operator.model.actions import (
    Actions,
    CreatePod,
    CreateService,
    DeletePod,
    DeleteWorkload,
    EvictPod,
    ReleasePod,
    Reserve,
    RestoreFinalizer,
    RestoreService,
    WriteStatus,
)
from gpufleet_operator.model.claims.claim_actions import CreateClaim, DeleteClaim
from gpufleet_operator.model.replica import RemovalReason
from gpufleet_operator.model.report_actions import ExplainPod, WriteNodeCondition, WriteTelemetryConditions
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.runtime.cluster_collector import ClusterCollector, DeniedReadsCollector
from gpufleet_operator.runtime.jobs import WriteOutcome
from gpufleet_operator.runtime.lanes import Lane

_VERSION = version("gpufleet")
_PLACEMENT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


_KINDS: Mapping[type, str] = {
    CreateService: "service_create",
    RestoreService: "service_restore",
    CreatePod: "pod_create",
    DeletePod: "pod_delete",
    DeleteWorkload: "workload_delete",
    EvictPod: "pod_evict",
    RestoreFinalizer: "finalizer_restore",
    Reserve: "reserve",
    CreateClaim: "claim_create",
    DeleteClaim: "claim_delete",
    ReleasePod: "pod_release",
    WriteStatus: "status",
    WriteTelemetryConditions: "report",
    WriteNodeCondition: "report",
    ExplainPod: "report",
}
"""Label of the counter of writes."""


_DECODED_KINDS = (
    "workload",
    "telemetry",
    "node",
    "pod",
    "service",
    "resource_claim",
    "resource_quota",
    "demand",
    "kueue_workload",
    "agent_lease",
    "admission_check",
    "bound_pod",
)
"""Kinds of objects whose decoding may fail."""


class PressureMetrics:
    """Counts devices, time and moves.

    Args:
        registry: Where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._last: tuple[datetime, int] | None = None
        """Time of the last pass, and the devices under pressure then."""
        self.devices = Gauge(
            "gpufleet_operator_memory_pressure_devices",
            "Shared devices above 98 % of their usable memory.",
            registry=registry,
        )
        self.seconds = Counter(
            "gpufleet_operator_memory_pressure_seconds",
            "Time that shared devices were above 98 % of their usable memory, summed over devices.",
            registry=registry,
        )
        self.moves = Counter(
            "gpufleet_operator_moves",
            "Pods moved from a full device, counted when another device is reserved, by reason (Overuse, Reclaim).",
            ["reason"],
            registry=registry,
        )
        self.rejected = Counter(
            "gpufleet_operator_moves_rejected",
            "Attempts that moved no pod from a full device, by reason (NoMovablePod, NoRoom, HourlyLimit).",
            ["reason"],
            registry=registry,
        )
        for reason in MoveReason:
            self.moves.labels(reason)
        for rejection in MoveRejection:
            self.rejected.labels(rejection)

    def record(self, now: datetime, actions: Actions) -> None:
        """Records a pass; a device counts for the time since the last one if it was under pressure in both."""
        devices = sum(one.samples > 0 for node in actions.state.pressure.values() for one in node.values())
        if self._last is not None:
            at, before = self._last
            self.seconds.inc(max(0.0, (now - at).total_seconds()) * min(devices, before))
        self._last = now, devices
        self.devices.set(devices)
        for reason, number in actions.moves.items():
            self.moves.labels(reason).inc(number)
        for rejection, number in actions.rejected_moves.items():
            self.rejected.labels(rejection).inc(number)


class WriteMetrics:
    """Counts writes, and what they did to reservations and pods.

    Args:
        registry: Where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter(
            "gpufleet_operator_writes",
            "Writes to the apiserver, by kind (pod_create, pod_delete, pod_evict, pod_release, reserve, claim_create, "
            "claim_delete, finalizer_restore, service_create, service_restore, workload_delete, status, report) and "
            "outcome (succeeded, conflict, failed).",
            ["kind", "outcome"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "gpufleet_operator_writes_in_flight",
            "Writes of earlier passes without a response, by lane (reserve, release, create, remove, status, report).",
            ["lane"],
            registry=registry,
        )
        self.reservations = Counter(
            "gpufleet_operator_reservations",
            "Reservations of replicas, by outcome (created, released, conflict, failed).",
            ["outcome"],
            registry=registry,
        )
        self.pods_removed = Counter(
            "gpufleet_operator_pods_removed",
            "Pods that the operator deleted or evicted, by reason (DeviceMismatch, KubeletRejected, Preempted, ...).",
            ["reason"],
            registry=registry,
        )
        self.placement_duration = Histogram(
            "gpufleet_operator_placement_duration_seconds",
            "Time from the creation of a pod to the removal of its scheduling gate.",
            buckets=_PLACEMENT_BUCKETS,
            registry=registry,
        )
        self._in_flight_of = {lane: self.in_flight.labels(str(lane)) for lane in Lane}
        for reason in RemovalReason:
            self.pods_removed.labels(str(reason))

    def record_in_flight(self, sent: Mapping[Lane, int]) -> None:
        for lane, in_flight in self._in_flight_of.items():
            in_flight.set(sent.get(lane, 0))

    def record(self, outcomes: Iterable[WriteOutcome]) -> None:
        for outcome in outcomes:
            result = "succeeded" if outcome.succeeded else "conflict" if outcome.conflict else "failed"
            action = outcome.action
            if isinstance(action, DeletePod | EvictPod) and outcome.succeeded:
                self.pods_removed.labels(str(action.reason)).inc()
            if isinstance(action, Reserve):
                self._count_reservations(action, result)
            self.ended.labels(_KINDS[type(action)], result).inc()

    def _count_reservations(self, action: Reserve, result: str) -> None:
        if result == "succeeded":
            self.reservations.labels("created").inc(len(action.added))
            self.reservations.labels("released").inc(len(action.removed))
        else:
            self.reservations.labels(result).inc(len(action.added) or 1)


class Metrics:
    """All metrics, in a registry of their own.

    Args:
        registry: Where they are registered.
        now: Clock of the apiserver, for ages; None: the time of the last pass.
        denied_reads: Returns the number of paths that may not be read, by resource.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        now: Callable[[], datetime] | None = None,
        denied_reads: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.registry = registry
        self._now = now
        self._last: Snapshot | None = None
        registry.register(ClusterCollector(self._current))
        registry.register(DeniedReadsCollector(denied_reads))
        # One `_created` series per counter would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call] # published without types
        ProcessCollector(registry=registry)
        build = Gauge(
            "gpufleet_operator_build_info", "Always 1; labeled with the version.", ["version"], registry=registry
        )
        build.labels(_VERSION).set(1)
        self.reconcile_duration = Histogram(
            "gpufleet_operator_reconcile_duration_seconds",
            "Duration of a reconcile pass, by step: decide computes the actions, execute writes them.",
            ["step"],
            registry=registry,
        )
        self.leader = Gauge(
            "gpufleet_operator_leader", "1 in the process that decides, 0 in a standby.", registry=registry
        )
        self.rejecting_nodes = Gauge(
            "gpufleet_operator_rejecting_nodes",
            "Nodes on which no devices are picked because they rejected pods of several workloads.",
            registry=registry,
        )
        self.gated_pods = Gauge(
            "gpufleet_operator_gated_pods",
            "Pods with the scheduling gate of gpufleet, by the reason for the wait.",
            ["reason"],
            registry=registry,
        )
        self.unplaced_workloads = Gauge(
            "gpufleet_operator_unplaced_workloads",
            "Workloads for which the last pass found no devices.",
            registry=registry,
        )
        self.fleet_inconsistencies = Gauge(
            "gpufleet_operator_fleet_inconsistencies",
            "Contradictions between telemetry objects, such as one UUID reported by two nodes.",
            registry=registry,
        )
        self.decode_errors = Counter(
            "gpufleet_operator_decode_errors",
            "Versions of objects that could not be decoded, by kind.",
            ["kind"],
            registry=registry,
        )
        self.telemetry_outage = Gauge(
            "gpufleet_operator_telemetry_outage",
            "1 while no telemetry arrives from any node, in a cluster of two nodes or more.",
            registry=registry,
        )
        self.watch_failures = Counter(
            "gpufleet_operator_watch_failures",
            "Watches that failed, other than because their version was too old. After each, the kind is listed again.",
            registry=registry,
        )
        self.unexpected_errors = Counter(
            "gpufleet_operator_unexpected_errors",
            "Unexpected errors, by kind (template: in its validation, decision: on a workload, node or pod).",
            ["kind"],
            registry=registry,
        )
        self.writes = WriteMetrics(registry)
        self.pressure = PressureMetrics(registry)
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        """Exports counters of rare events before the first one: increase() does not see a series begin."""
        self.reconcile_duration.labels("decide")
        for kind in ("template", "decision"):
            self.unexpected_errors.labels(kind)
        for kind in _DECODED_KINDS:
            self.decode_errors.labels(kind)

    def count_decode_error(self, kind: str) -> None:
        self.decode_errors.labels(kind).inc()

    def record_decision(self, snapshot: Snapshot, actions: Actions) -> None:
        """Records a decision. Gauges are cleared first, so that deleted nodes disappear."""
        self.gated_pods.clear()
        for reason, number in actions.gated.items():
            self.gated_pods.labels(reason).set(number)
        self.unplaced_workloads.set(len(actions.unplaced))
        self.fleet_inconsistencies.set(len(actions.inconsistencies))
        self.rejecting_nodes.set(len(rejecting_nodes.active(actions.state.rejections.by_node, snapshot.now)))
        self.unexpected_errors.labels("template").inc(len(actions.unexpected_errors))
        self.pressure.record(snapshot.now, actions)
        self._last = snapshot

    def _current(self) -> Snapshot | None:
        """Returns the cluster as it is cached now, at the present time; None before the first pass."""
        if self._last is None or self._now is None:
            return self._last
        return replace(self._last, now=self._now())
