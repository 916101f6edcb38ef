"""Devices by availability and occupation."""

from collections import Counter
from datetime import timedelta

import pytest

from gpufleet_api.telemetry.spec import CordonedDevice
from gpufleet_operator.fleet.device_counts import device_counts
from gpufleet_operator.model.objects import Node, Telemetry
from gpufleet_testing.operator import make

UNHEALTHY = {"state": "Unhealthy", "reasons": [{"code": "XidError", "since": "2026-01-02T03:00:00Z"}]}


def counts(telemetry: Telemetry, *objects: Node, age: float = 0) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    snapshot = make.snapshot(telemetry, *objects, now=make.NOW + timedelta(seconds=age))
    for (model, availability, occupation), number in device_counts(snapshot, telemetry).items():
        assert model == "NVIDIA H100 80GB HBM3"
        found[availability.value, occupation.value] += number
    return found


def test_reserved_shared_and_idle_devices_are_distinguished() -> None:
    whole, share = make.pod("whole"), make.shared_assignment("share")
    telemetry = make.telemetry(devices=4, assignments=[share, make.assignment(whole, "GPU-1-1", "GPU-1-2")])
    assert counts(telemetry) == {
        ("Available", "Shared"): 1,
        ("Available", "Exclusive"): 2,
        ("Available", "Free"): 1,
    }


def test_process_without_a_pod_occupies_its_device() -> None:
    assert counts(make.telemetry(processCount=1)) == {("Available", "Foreign"): 2}


@pytest.mark.parametrize(
    ("availability", "telemetry", "node"),
    [
        ("Unhealthy", make.telemetry(devices=1, health=UNHEALTHY), make.node()),
        ("Withheld", make.telemetry(devices=1, withheld="no device node"), make.node()),
        ("Cordoned", make.telemetry(devices=1, cordoned=[CordonedDevice(uuid="GPU-1-0", reason="fan")]), make.node()),
        ("NodeNotReady", make.telemetry(devices=1), make.node(unschedulable=True)),
        ("NodeNotReady", make.telemetry(devices=1), make.node(not_ready="Kubelet stopped posting node status.")),
    ],
)
def test_device_that_no_pod_can_get_is_not_available(availability: str, telemetry: Telemetry, node: Node) -> None:
    assert counts(telemetry, node) == {(availability, "Free"): 1}


def test_stale_telemetry_hides_every_other_state() -> None:
    assert counts(make.telemetry(health=UNHEALTHY), age=100) == {("Stale", "Free"): 2}
