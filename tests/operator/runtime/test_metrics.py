"""Gauges of a decision, and of the cluster when they are read."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_api.telemetry.spec import CordonedDevice
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.decode import Decoder
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Action, CreatePod, DeleteWorkload, EvictPod
from gpufleet_operator.model.claims.claim_actions import DeleteClaim
from gpufleet_operator.model.objects import Node, Telemetry, Workload
from gpufleet_operator.model.replica import RemovalReason
from gpufleet_operator.runtime import metrics
from gpufleet_operator.runtime.cluster_collector import MAX_WAITING
from gpufleet_operator.runtime.jobs import WriteOutcome
from gpufleet_operator.runtime.metrics import Metrics, WriteMetrics
from gpufleet_testing.operator import make


def test_cordoned_devices_are_counted_by_node_until_they_return() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    over = CordonedDevice(uuid="GPU-1-0", reason="fan", until="2026-01-01T00:00:00Z")
    active = CordonedDevice(uuid="GPU-1-1", reason="fan")

    def counted(*cordoned: CordonedDevice) -> float | None:
        snapshot = make.snapshot(make.telemetry(cordoned=cordoned), make.telemetry("node-2"))
        metrics.record_decision(snapshot, decide(snapshot))
        assert registry.get_sample_value("gpufleet_operator_cordoned_devices", {"node": "node-2"}) is None
        return registry.get_sample_value("gpufleet_operator_cordoned_devices", {"node": "node-1"})

    assert counted(over, active) == 1
    assert counted(over) is None


def recorded(*objects: Workload | Telemetry | Node) -> CollectorRegistry:
    registry = CollectorRegistry()
    snapshot = make.snapshot(*objects)
    Metrics(registry).record_decision(snapshot, decide(snapshot))
    return registry


def series(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    families = [family for family in registry.collect() if family.name == name]
    return {tuple(sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_devices_are_counted_by_node_and_model() -> None:
    registry = recorded(make.telemetry(devices=3), make.telemetry("node-2", devices=1, age=200))
    assert series(registry, "gpufleet_operator_devices") == {
        ("node-1", "NVIDIA H100 80GB HBM3", "Available", "Free"): 3,
        ("node-2", "NVIDIA H100 80GB HBM3", "Stale", "Free"): 1,
    }
    states = series(registry, "gpufleet_operator_telemetry_state")
    assert states == {("node-1", "Fresh"): 1, ("node-2", "Stale"): 1}
    assert series(registry, "gpufleet_operator_telemetry_age_seconds") == {("node-1",): 1, ("node-2",): 200}


def test_longest_waiting_workloads_have_a_series() -> None:
    created = [make.NOW - timedelta(seconds=number) for number in range(MAX_WAITING + 1)]
    registry = recorded(*(make.workload(f"w-{number}", created=at) for number, at in enumerate(created)))
    waiting = series(registry, "gpufleet_operator_workload_waiting_seconds")
    assert len(waiting) == MAX_WAITING
    assert ("ml", "w-0", "Pending") not in waiting
    assert waiting["ml", "w-500", "Pending"] == 500


def test_rare_counters_exist_before_their_first_event() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    mismatches = registry.get_sample_value("gpufleet_operator_pods_removed_total", {"reason": "DeviceMismatch"})
    passes = registry.get_sample_value("gpufleet_operator_reconcile_duration_seconds_count", {"step": "decide"})
    assert (mismatches, passes) == (0, 0)


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (CreatePod("uid-w", "ml", "w-0", 0, {}), "pod_create"),
        (DeleteClaim("uid-w", "uid-p", "ml", "w-0", "uid-c", "5", "w", "w-0"), "claim_delete"),
        (DeleteWorkload("uid-w", "ml", "w"), "workload_delete"),
    ],
)
def test_writes_are_counted_by_kind(action: Action, kind: str) -> None:
    registry = CollectorRegistry()
    WriteMetrics(registry).record([WriteOutcome(action), WriteOutcome(action, failure="no")])
    counted = series(registry, "gpufleet_operator_writes")
    assert (counted[kind, "succeeded"], counted[kind, "failed"]) == (1, 1)


def test_evicted_pods_are_counted_by_the_reason_of_their_eviction() -> None:
    registry = CollectorRegistry()
    preempted = EvictPod("uid-w", "w", "ml", "w-0", "u", "preempted by ml/high", RemovalReason.PREEMPTED)
    blocked = WriteOutcome(preempted, failure="Cannot evict pod as it would violate the pod's disruption budget.")
    WriteMetrics(registry).record([blocked, WriteOutcome(preempted), WriteOutcome(replace(preempted, uid="v"))])
    counted = series(registry, "gpufleet_operator_pods_removed")
    assert {reason: number for reason, number in counted.items() if number} == {("Preempted",): 2}


def test_every_write_has_a_kind() -> None:
    assert set(metrics._KINDS) == set(get_args(Action))


def test_decode_errors_of_every_kind_exist_before_the_first_one() -> None:
    class Kinds(Decoder):
        def bind(self, convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
            kinds.add((convert.__name__,))
            return super().bind(convert)

    kinds: set[tuple[str]] = set()
    Cache(Kinds())
    registry = CollectorRegistry()
    Metrics(registry)
    assert series(registry, "gpufleet_operator_decode_errors") == dict.fromkeys(kinds, 0)


def test_denied_reads_have_a_series_by_resource() -> None:
    registry = CollectorRegistry()
    Metrics(registry, denied_reads=lambda: {"pods": 1})
    assert series(registry, "gpufleet_operator_denied_reads") == {("pods",): 1}
