"""Metrics of shared devices that run out of memory."""

from datetime import timedelta

from prometheus_client import CollectorRegistry

from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.state_types import DevicePressure, PassState
from gpufleet_operator.runtime.metrics import PressureMetrics
from gpufleet_testing.operator import make


def test_time_counts_for_devices_that_were_under_pressure_in_both_passes() -> None:
    registry = CollectorRegistry()
    metrics = PressureMetrics(registry)
    for seconds, samples in ((0, [1]), (10, [2, 1]), (30, [0, 2]), (35, [])):
        pressure = {"node-1": {f"GPU-{i}": DevicePressure(n, "t") for i, n in enumerate(samples)}}
        metrics.record(make.NOW + timedelta(seconds=seconds), Actions(state=PassState(pressure=pressure)))

    assert registry.get_sample_value("gpufleet_operator_memory_pressure_seconds_total") == 10 + 20
    assert registry.get_sample_value("gpufleet_operator_memory_pressure_devices") == 0


def test_moves_and_rejections_are_counted_by_reason_from_zero() -> None:
    registry = CollectorRegistry()
    metrics = PressureMetrics(registry)
    metrics.record(make.NOW, Actions(moves={"Overuse": 2}, rejected_moves={"NoRoom": 1}))

    def value(name: str, reason: str) -> float | None:
        return registry.get_sample_value(f"gpufleet_operator_{name}_total", {"reason": reason})

    assert [value("moves", reason) for reason in ("Overuse", "Reclaim")] == [2, 0]
    assert [value("moves_rejected", reason) for reason in ("NoRoom", "HourlyLimit", "NoMovablePod")] == [1, 0, 0]
