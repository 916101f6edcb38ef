"""Series of nodes, devices and waiting workloads. There are thousands, so they are built at each scrape."""

import heapq
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_operator.fleet import cordons
from gpufleet_operator.fleet.device_counts import device_counts
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.report.telemetry_health import fresh
from gpufleet_operator.report.waiting_workloads import waiting_workloads

MAX_WAITING = 500
"""Maximum number of workloads with a series. gpufleet_operator_unplaced_workloads counts all of them."""


class ClusterCollector(Collector):
    """Collects the series. May run in another thread than the passes.

    Args:
        snapshot: Returns the state of the cluster; None before the first pass.
    """

    def __init__(self, snapshot: Callable[[], Snapshot | None]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot()
        yield from _nodes(snapshot)
        yield _waiting(snapshot)


class DeniedReadsCollector(Collector):
    """Collects what the apiserver denies to read, also in another thread.

    Args:
        by_resource: Returns the number of denied paths by resource.
    """

    def __init__(self, by_resource: Callable[[], Mapping[str, int]]) -> None:
        self._by_resource = by_resource

    def collect(self) -> Iterable[Metric]:
        denied = GaugeMetricFamily(
            "gpufleet_operator_denied_reads",
            "Paths that the apiserver denies to list, watch or get (403), by resource; absent while it allows all.",
            labels=["resource"],
        )
        for resource, number in sorted(self._by_resource().items()):
            denied.add_metric([resource], number)
        yield denied


def _nodes(snapshot: Snapshot | None) -> Iterable[Metric]:
    age = GaugeMetricFamily(
        "gpufleet_operator_telemetry_age_seconds",
        "Age of the node's telemetry by the clock of the apiserver.",
        labels=["node"],
    )
    state = GaugeMetricFamily(
        "gpufleet_operator_telemetry_state",
        "Always 1; one series per node, by the reason of its condition Fresh (Fresh, Stale, NoDriver, Invalid).",
        labels=["node", "state"],
    )
    devices = GaugeMetricFamily(
        "gpufleet_operator_devices",
        "Devices of the node, by model, whether a pod can get them if nothing uses them (Available, Stale, Unhealthy, "
        "Cordoned, Withheld, NodeNotReady), and what uses them (Free, Exclusive, Shared, Foreign).",
        labels=["node", "model", "availability", "occupation"],
    )
    cordoned = GaugeMetricFamily(
        "gpufleet_operator_cordoned_devices",
        "Devices that are out of service by an entry of spec.cordoned; nodes without one are absent.",
        labels=["node"],
    )
    if snapshot is not None:
        for name, telemetry in tuple(snapshot.telemetry.items()):
            if entries := cordons.of_node(snapshot, name):
                cordoned.add_metric([name], len(entries))
            if (since := snapshot.age(telemetry)) is not None:
                age.add_metric([name], since.total_seconds())
            state.add_metric([name, fresh(snapshot, telemetry).reason], 1)
            for (model, availability, occupation), number in sorted(device_counts(snapshot, telemetry).items()):
                devices.add_metric([name, model, availability.value, occupation.value], number)
    yield from (age, state, devices, cordoned)


def _waiting(snapshot: Snapshot | None) -> Metric:
    waiting = GaugeMetricFamily(
        "gpufleet_operator_workload_waiting_seconds",
        "Time for which a replica of the workload has had no devices, by the reason of its condition Ready; only the "
        f"{MAX_WAITING} workloads that wait longest.",
        labels=["namespace", "workload", "reason"],
    )
    if snapshot is None:
        return waiting
    for one in heapq.nsmallest(MAX_WAITING, waiting_workloads(snapshot), key=lambda one: one.since):
        seconds = max(0.0, (snapshot.now - one.since).total_seconds())
        waiting.add_metric([one.namespace, one.name, one.reason], seconds)
    return waiting
