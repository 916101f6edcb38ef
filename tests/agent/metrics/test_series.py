"""The series as Prometheus gets them."""

from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gpufleet_agent.devices.base import DeviceInfo, Sample
from gpufleet_agent.metrics.agent import AgentCollector
from gpufleet_agent.metrics.counters import Counters
from gpufleet_agent.metrics.devices import READINGS, DeviceCollector
from gpufleet_agent.plugin.handover import Reason
from gpufleet_agent.podresources.holdings import Holder
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.sampling.view import DeviceView, EventCount, HealthReason, HealthState, HealthView, NodeView

HEALTHY = HealthView(HealthState.HEALTHY)
SICK = HealthView(HealthState.UNHEALTHY, (HealthReason("XidError", "XID 79", 1.0),), 1.0)
FULL: dict[str, Any] = {
    "memory_total_mib": 81_559,
    "memory_used_mib": 559,
    "utilization_percent": 0,
    "memory_utilization_percent": 7,
    "temperature_celsius": 41,
    "power_milliwatts": 71_250,
    "power_limit_milliwatts": 700_000,
    "process_count": 2,
}


def device(index: int, *, age: float = 0.5, health: HealthView = HEALTHY, **values: Any) -> DeviceView:
    sample = Sample(uuid=f"GPU-{index}", taken_at=1.0, **values) if values else None
    info = DeviceInfo(f"GPU-{index}", index, "NVIDIA H100", pci_bus_id=f"0000:0{index}:00.0")
    events = (EventCount("XidError", 31, 3, 50.0), EventCount("XidError", 79, 1, 60.0)) if health is SICK else ()
    return DeviceView(info, health, sample, age if sample else None, events=events)


class Scraped:
    """Series by name and labels, after a trip through Prometheus' text format."""

    def __init__(self, view: NodeView, holders: dict[str, tuple[Holder, ...]] | None = None) -> None:
        registry = CollectorRegistry()
        registry.register(DeviceCollector(lambda: view, lambda: holders or {}, "node-1", 60.0))
        registry.register(AgentCollector(lambda: view, lambda: (3, 17), lambda: 1.5, 60.0))
        Counters(registry, "1.2.3")
        self.text = generate_latest(registry).decode()
        self.families = list(text_string_to_metric_families(self.text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        (found,) = [
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return found

    def count(self, name: str) -> int:
        return sum(sample.name == name for sample in self.samples)


def test_readings_have_dcgms_names_units_and_labels() -> None:
    scraped = Scraped(NodeView((device(0, **FULL),), driver_version="580.1"))
    for name, value in {
        "DCGM_FI_DEV_GPU_UTIL": 0,
        "DCGM_FI_DEV_MEM_COPY_UTIL": 7,
        "DCGM_FI_DEV_FB_TOTAL": 81_559,
        "DCGM_FI_DEV_FB_USED": 559,
        "DCGM_FI_DEV_FB_FREE": 81_000,
        "DCGM_FI_DEV_GPU_TEMP": 41,
        "DCGM_FI_DEV_POWER_USAGE": 71.25,
        "DCGM_FI_DEV_POWER_MGMT_LIMIT": 700,
    }.items():
        assert scraped.value(name, UUID="GPU-0") == value
    (sample,) = [sample for sample in scraped.samples if sample.name == "DCGM_FI_DEV_GPU_UTIL"]
    assert sample.labels == {
        "gpu": "0",
        "UUID": "GPU-0",
        "pci_bus_id": "0000:00:00.0",
        "device": "nvidia0",
        "modelName": "NVIDIA H100",
        "hostname": "node-1",
        "DCGM_FI_DRIVER_VERSION": "580.1",
        "namespace": "",
        "pod": "",
        "container": "",
    }


def test_a_holder_is_in_the_labels_and_two_holders_have_a_series_each() -> None:
    a, b = Holder(ContainerKey("ml", "a", "main")), Holder(ContainerKey("ml", "b", "main"))
    view = NodeView((device(0, **FULL), device(1, **FULL)))
    scraped = Scraped(view, {"GPU-0": (a,), "GPU-1": (a, b)})
    assert scraped.value("DCGM_FI_DEV_GPU_TEMP", UUID="GPU-0", namespace="ml", pod="a", container="main") == 41
    assert scraped.value("DCGM_FI_DEV_GPU_TEMP", UUID="GPU-1", pod="b") == 41
    assert scraped.count("DCGM_FI_DEV_GPU_TEMP") == 3


@pytest.mark.parametrize(
    "silent",
    [
        pytest.param(device(0), id="no sample yet"),
        pytest.param(device(0, age=61, **FULL), id="a sample older than the window"),
        pytest.param(device(0, process_count=1), id="a sample without any of the readings"),
    ],
)
def test_what_is_not_known_now_has_no_series(silent: DeviceView) -> None:
    scraped = Scraped(NodeView((silent,)))
    for name, _, _ in READINGS:
        assert scraped.count(name) == 0


def test_processes_of_long_ago_have_no_series() -> None:
    scraped = Scraped(NodeView((device(0, age=61, **FULL), device(1, **FULL))))
    assert scraped.count("gpufleet_agent_device_processes") == 1


def test_health_events_and_processes() -> None:
    scraped = Scraped(NodeView((device(0, **FULL), device(1, health=SICK, **FULL))))
    assert scraped.value("gpufleet_agent_devices", state="Healthy") == 1
    assert scraped.value("gpufleet_agent_devices", state="Unhealthy") == 1
    assert scraped.value("gpufleet_agent_device_healthy", UUID="GPU-0") == 1
    assert scraped.value("gpufleet_agent_device_healthy", UUID="GPU-1") == 0
    assert scraped.value("gpufleet_agent_device_fault", UUID="GPU-1", code="XidError") == 1
    assert scraped.value("gpufleet_agent_device_events_total", UUID="GPU-1", kind="XidError", code="31") == 3
    assert scraped.value("DCGM_FI_DEV_XID_ERRORS", UUID="GPU-1") == 79
    assert scraped.count("DCGM_FI_DEV_XID_ERRORS") == 1
    assert scraped.value("gpufleet_agent_device_processes", UUID="GPU-0") == 2


def test_a_healthy_node_still_says_that_no_device_is_unhealthy() -> None:
    assert Scraped(NodeView((device(0),))).value("gpufleet_agent_devices", state="Unhealthy") == 0


def test_what_the_agent_says_of_its_own_work() -> None:
    view = NodeView(samples=120, dropped=MappingProxyType({"Invalid": 2, "ReadFailed": 5}), unavailable="no driver")
    scraped = Scraped(view)
    assert scraped.value("gpufleet_agent_samples_total") == 120
    assert scraped.value("gpufleet_agent_samples_dropped_total", reason="Invalid") == 2
    assert scraped.value("gpufleet_agent_hardware_available") == 0
    assert scraped.value("gpufleet_agent_assignments") == 3
    assert scraped.value("gpufleet_agent_assignments_generation") == 17
    assert scraped.value("gpufleet_agent_listing_age_seconds") == 1.5
    assert scraped.value("gpufleet_agent_build_info", version="1.2.3") == 1


def test_every_series_has_help_and_no_creation_time() -> None:
    scraped = Scraped(NodeView((device(0, health=SICK, **FULL),)))
    assert all(family.documentation for family in scraped.families)
    assert "_created" not in scraped.text


def test_before_anything_was_read_there_are_no_reservations_to_speak_of() -> None:
    registry = CollectorRegistry()
    registry.register(AgentCollector(NodeView, lambda: None, lambda: None, 60.0))
    text = generate_latest(registry).decode()
    assert "gpufleet_agent_assignments" not in text
    assert "gpufleet_agent_listing_age_seconds" not in text


def test_every_series_is_in_the_documentation() -> None:
    documentation = (Path(__file__).parents[3] / "docs" / "agent.md").read_text()
    scraped = Scraped(NodeView((device(0, health=SICK, **FULL),)))
    names = {line.split()[2] for line in scraped.text.splitlines() if line.startswith("# TYPE")}
    assert len(names) > 20
    assert sorted(name for name in names if f"`{name}`" not in documentation) == []


def test_every_reason_of_a_refusal_is_in_the_documentation() -> None:
    documentation = (Path(__file__).parents[3] / "docs" / "agent.md").read_text()
    assert [reason.value for reason in Reason if f"`{reason.value}`" not in documentation] == []
