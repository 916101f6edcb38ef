"""Prometheus series of the operator. Names end in their unit; labels are bounded by nodes, reasons and outcomes."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from gpufleet_operator.model.actions import Actions, CreatePod, DeletePod, ReleasePod, Reserve
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.runtime.executor import Outcome

_LATENCY = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """All series, in a registry of their own so that tests don't share them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self.passes = Histogram(
            "gpufleet_operator_pass_seconds",
            "Duration of one pass: decide is the pure decision, execute the writes.",
            ["step"],
            registry=registry,
        )
        self.writes = Counter(
            "gpufleet_operator_writes",
            "Writes to the apiserver by kind (pod_create, pod_delete, pod_release, reserve, status) and outcome.",
            ["kind", "outcome"],
            registry=registry,
        )
        self.reservations = Counter(
            "gpufleet_operator_reservations",
            "Reservations of replicas: made, released (devices given back), lost_race, failed.",
            ["outcome"],
            registry=registry,
        )
        self.replaced = Counter(
            "gpufleet_operator_pods_removed",
            "Pods that the operator deleted, by reason (DeviceMismatch, KubeletRefused, SchedulerRefused, ...).",
            ["reason"],
            registry=registry,
        )
        self.latency = Histogram(
            "gpufleet_operator_placement_seconds",
            "From a pod's appearance to the removal of its gate.",
            buckets=_LATENCY,
            registry=registry,
        )
        self.gated = Gauge(
            "gpufleet_operator_gated_pods",
            "Pods held by our scheduling gate, by what they wait for.",
            ["reason"],
            registry=registry,
        )
        self.unplaced = Gauge(
            "gpufleet_operator_unplaced_workloads",
            "Workloads that found no devices in the last pass.",
            registry=registry,
        )
        self.telemetry_age = Gauge(
            "gpufleet_operator_telemetry_age_seconds",
            "Age of each node's telemetry by the apiserver's clock.",
            ["node"],
            registry=registry,
        )
        self.troubles = Gauge(
            "gpufleet_operator_fleet_troubles",
            "Contradictions in the fleet, such as one UUID reported by two nodes.",
            registry=registry,
        )
        self.unforeseen = Counter(
            "gpufleet_operator_unforeseen_errors",
            "Errors that nobody planned for: of a workload's template, or of an object that can't be read.",
            ["kind"],
            registry=registry,
        )

    def decided(self, snapshot: Snapshot, actions: Actions) -> None:
        """After a decision: gauges are set anew, so that what is gone disappears."""
        self.gated.clear()
        for reason, number in actions.gated.items():
            self.gated.labels(reason).set(number)
        self.unplaced.set(len(actions.unplaced))
        self.troubles.set(len(actions.troubles))
        self.unforeseen.labels("template").inc(len(actions.unforeseen))
        self.telemetry_age.clear()
        for name, telemetry in snapshot.telemetry.items():
            age = snapshot.age(telemetry)
            if age is not None:
                self.telemetry_age.labels(name).set(age.total_seconds())

    def executed(self, outcomes: Iterable[Outcome]) -> None:
        """After the writes."""
        for outcome in outcomes:
            result = "done" if outcome.done else "lost_race" if outcome.lost else "failed"
            match outcome.action:
                case CreatePod():
                    kind = "pod_create"
                case DeletePod() as action:
                    kind = "pod_delete"
                    if outcome.done:
                        self.replaced.labels(str(action.fault)).inc()
                case ReleasePod():
                    kind = "pod_release"
                case Reserve() as action:
                    kind = "reserve"
                    self._reserved(action, result)
                case _:
                    kind = "status"
            self.writes.labels(kind, result).inc()

    def _reserved(self, action: Reserve, result: str) -> None:
        if result == "done":
            self.reservations.labels("made").inc(len(action.added))
            self.reservations.labels("released").inc(len(action.removed))
        else:
            self.reservations.labels(result).inc(len(action.added) or 1)
