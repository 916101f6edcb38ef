"""Gauges of a decision."""

from prometheus_client import CollectorRegistry

from gpufleet_api.telemetry import CordonedDevice
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.runtime.metrics import Metrics
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
