"""The operator's Prometheus metrics. Label values are bounded by nodes, kinds, reasons and outcomes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_operator.fleet import cordons
from gpufleet_operator.model.actions import (
    Actions,
    CreatePod,
    CreateService,
    DeletePod,
    EvictPod,
    ReleasePod,
    Reserve,
    RestoreService,
    WriteStatus,
)
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.runtime.executor import WriteOutcome

_PLACEMENT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


_KINDS: Mapping[type, str] = {
    CreateService: "service_create",
    RestoreService: "service_restore",
    CreatePod: "pod_create",
    DeletePod: "pod_delete",
    EvictPod: "pod_evict",
    ReleasePod: "pod_release",
    Reserve: "reserve",
    WriteStatus: "status",
}
"""Label of the counter of writes."""


class _UpdateOnRead(Collector):
    """Has no metric of its own; calls a function before others are collected."""

    def __init__(self, update: Callable[[], None]) -> None:
        self._update = update

    def collect(self) -> Iterable[Metric]:
        self._update()
        return ()


class Metrics:
    """All metrics, in a registry of their own.

    Args:
        registry: Where they are registered.
        now: Clock of the apiserver, for ages; None: the time of the last pass.
    """

    def __init__(self, registry: CollectorRegistry, now: Callable[[], datetime] | None = None) -> None:
        self.registry = registry
        self._now = now
        self._last: Snapshot | None = None
        registry.register(_UpdateOnRead(self.update_nodes))  # first: collectors are called in this order
        # One `_created` series per counter would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call] # published without types
        ProcessCollector(registry=registry)
        self.reconcile_duration = Histogram(
            "gpufleet_operator_reconcile_duration_seconds",
            "Duration of a reconcile pass, by step: decide computes the actions, execute writes them.",
            ["step"],
            registry=registry,
        )
        self.writes = Counter(
            "gpufleet_operator_writes",
            "Writes to the apiserver, by kind (pod_create, pod_delete, pod_evict, pod_release, reserve, "
            "service_create, service_restore, status, report) and outcome (succeeded, conflict, failed).",
            ["kind", "outcome"],
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
            "Pods that the operator deleted, by reason (DeviceMismatch, KubeletRejected, Unschedulable, ...).",
            ["reason"],
            registry=registry,
        )
        self.placement_duration = Histogram(
            "gpufleet_operator_placement_duration_seconds",
            "Time from the creation of a pod to the removal of its scheduling gate.",
            buckets=_PLACEMENT_BUCKETS,
            registry=registry,
        )
        self.gated_pods = Gauge(
            "gpufleet_operator_gated_pods",
            "Pods with the scheduling gate of gpufleet, by the reason why they wait.",
            ["reason"],
            registry=registry,
        )
        self.unplaced_workloads = Gauge(
            "gpufleet_operator_unplaced_workloads",
            "Workloads for which the last pass found no devices.",
            registry=registry,
        )
        self.telemetry_age = Gauge(
            "gpufleet_operator_telemetry_age_seconds",
            "Age of the node's telemetry by the clock of the apiserver.",
            ["node"],
            registry=registry,
        )
        self.cordoned_devices = Gauge(
            "gpufleet_operator_cordoned_devices",
            "Devices that are out of service by an entry of spec.cordoned; nodes without one are absent.",
            ["node"],
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
        self.unexpected_errors = Counter(
            "gpufleet_operator_unexpected_errors",
            "Unexpected errors, by kind (template: in the validation of a pod template).",
            ["kind"],
            registry=registry,
        )

    def count_decode_error(self, kind: str) -> None:
        self.decode_errors.labels(kind).inc()

    def record_decision(self, snapshot: Snapshot, actions: Actions) -> None:
        """Records a decision. Gauges are cleared first, so that deleted nodes disappear."""
        self.gated_pods.clear()
        for reason, number in actions.gated.items():
            self.gated_pods.labels(reason).set(number)
        self.unplaced_workloads.set(len(actions.unplaced))
        self.fleet_inconsistencies.set(len(actions.inconsistencies))
        self.unexpected_errors.labels("template").inc(len(actions.unexpected_errors))
        self._last = snapshot

    def update_nodes(self) -> None:
        """Sets the gauges of nodes, of which there are thousands, when they are read; also from another thread."""
        if self._last is None:
            return
        snapshot = self._last if self._now is None else replace(self._last, now=self._now())
        self.cordoned_devices.clear()
        self.telemetry_age.clear()
        for name, telemetry in tuple(snapshot.telemetry.items()):
            if cordoned := cordons.of_node(snapshot, name):
                self.cordoned_devices.labels(name).set(len(cordoned))
            age = snapshot.age(telemetry)
            if age is not None:
                self.telemetry_age.labels(name).set(age.total_seconds())

    def record_outcomes(self, outcomes: Iterable[WriteOutcome]) -> None:
        for outcome in outcomes:
            result = "succeeded" if outcome.succeeded else "conflict" if outcome.conflict else "failed"
            action = outcome.action
            if isinstance(action, DeletePod) and outcome.succeeded:
                self.pods_removed.labels(str(action.reason)).inc()
            if isinstance(action, Reserve):
                self._count_reservations(action, result)
            kind = _KINDS.get(type(action), "report")
            self.writes.labels(kind, result).inc()

    def _count_reservations(self, action: Reserve, result: str) -> None:
        if result == "succeeded":
            self.reservations.labels("created").inc(len(action.added))
            self.reservations.labels("released").inc(len(action.removed))
        else:
            self.reservations.labels(result).inc(len(action.added) or 1)
