"""The series as Prometheus gets them."""

import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gpufleet_agent.devices.base import DeviceInfo, Sample, ThrottleReason
from gpufleet_agent.metrics.agent_collector import AgentCollector
from gpufleet_agent.metrics.device_collector import CLOCK_EVENT_BITS, COUNTER, DCGM_FIELDS, DeviceCollector
from gpufleet_agent.metrics.exposition import encode
from gpufleet_agent.metrics.holder_collector import HolderCollector
from gpufleet_agent.metrics.options import HostnameLabel, MetricsOptions, PodLabels
from gpufleet_agent.overuse.container_usage import ContainerUsage
from gpufleet_agent.overuse.episodes import OveruseEpisode
from gpufleet_agent.overuse.memory_usage import MemoryUsage
from gpufleet_agent.podresources.holdings import HoldingContainer
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.sampling.snapshot import (
    DeviceSnapshot,
    EventCount,
    HealthReason,
    HealthSnapshot,
    HealthState,
    NodeSnapshot,
)
from gpufleet_common.units import BYTES_PER_MIB
from gpufleet_testing.agent.sampling import SampleFields

HEALTHY = HealthSnapshot(HealthState.HEALTHY)
SICK = HealthSnapshot(
    HealthState.UNHEALTHY,
    (HealthReason("XidError", "XID 79: GPU has fallen off the bus", 1.0),),
    1.0,
    (HealthReason("RowRemapPending", "a row waits for a reset", 1.0),),
)
USES = (
    MemoryUsage("GPU-0", 0, ContainerKey("ml", "a", "main"), "uid-a", 1000, 1200),
    MemoryUsage("GPU-0", 0, ContainerKey("ml", "b", "main"), "uid-b", 2000, None),
)
USED = (
    ContainerUsage("GPU-0", ContainerKey("ml", "whole", "main"), 60, 1000),
    ContainerUsage("GPU-1", ContainerKey("ml", "a", "main"), 0, None),
    ContainerUsage("GPU-1", ContainerKey("ml", "ended", "main"), 5, 5),
)
FULL: SampleFields = {
    "memory_total_mib": 81_559,
    "memory_used_mib": 559,
    "utilization_percent": 0,
    "memory_utilization_percent": 7,
    "temperature_celsius": 41,
    "power_milliwatts": 71_250,
    "power_limit_milliwatts": 700_000,
    "requested_power_limit_milliwatts": 650_000,
    "process_count": 2,
    "memory_reserved_mib": 543,
    "memory_temperature_celsius": 49,
    "sm_clock_mhz": 1980,
    "memory_clock_mhz": 2619,
    "throttle_reasons": frozenset({ThrottleReason.SW_POWER_CAP, ThrottleReason.HW_SLOWDOWN}),
    "encoder_percent": 3,
    "decoder_percent": 4,
    "energy_millijoules": 123_456_789_012,
    "pcie_replays": 5,
    "ecc_corrected": 6,
    "ecc_uncorrected": 0,
    "remapped_correctable": 1,
    "remapped_uncorrectable": 2,
    "row_remap_pending": True,
    "row_remap_failed": False,
    "page_retirement_pending": False,
    "mig_enabled": False,
}


def device(
    index: int, *, age: float = 0.5, health: HealthSnapshot = HEALTHY, **values: Unpack[SampleFields]
) -> DeviceSnapshot:
    sample = Sample(uuid=f"GPU-{index}", taken_at=1.0, **values) if values else None
    info = DeviceInfo(f"GPU-{index}", index, "NVIDIA H100", pci_bus_id=f"0000:0{index}:00.0")
    events = (EventCount("XidError", 31, 3, 50.0), EventCount("XidError", 79, 1, 60.0)) if health is SICK else ()
    return DeviceSnapshot(info, health, sample, age if sample else None, events=events)


class Scraped:
    """Series by name and labels, after a trip through Prometheus' text format."""

    def __init__(
        self,
        snapshot: NodeSnapshot,
        holders: dict[str, tuple[HoldingContainer, ...]] | None = None,
        options: MetricsOptions = MetricsOptions(),  # noqa: B008 - frozen
    ) -> None:
        registry = CollectorRegistry()
        registry.register(DeviceCollector(lambda: snapshot, lambda: holders or {}, "node-1", 60.0, options))
        registry.register(HolderCollector(lambda: snapshot, lambda: holders or {}, "node-1", lambda: USED))
        shares = lambda: (USES, (OveruseEpisode(USES[0], 1.0),), 4)  # noqa: E731 - the name says what it is
        registry.register(
            AgentCollector(lambda: snapshot, "node-1", lambda: (3, 17), lambda: 1.5, stale_seconds=60.0, overuse=shares)
        )
        Instruments(registry, "1.2.3")
        self.text = encode(registry).decode()
        # The library's parser renames counters whose names lack `_total`.
        untyped = re.sub(r"^(# TYPE DCGM_\w+) counter$", r"\1 untyped", self.text, flags=re.MULTILINE)
        self.families = list(text_string_to_metric_families(untyped))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        (found,) = [
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return found

    def count(self, name: str) -> int:
        return sum(sample.name == name for sample in self.samples)


def test_readings_have_dcgms_names_units_and_labels() -> None:
    scraped = Scraped(NodeSnapshot((device(0, **FULL),), driver_version="580.1"))
    for name, value in {
        "DCGM_FI_DEV_GPU_UTIL": 0,
        "DCGM_FI_DEV_MEM_COPY_UTIL": 7,
        "DCGM_FI_DEV_FB_TOTAL": 81_559,
        "DCGM_FI_DEV_FB_USED": 559,
        "DCGM_FI_DEV_FB_FREE": 81_000 - 543,
        "DCGM_FI_DEV_GPU_TEMP": 41,
        "DCGM_FI_DEV_POWER_USAGE": 71.25,
        "DCGM_FI_DEV_POWER_MGMT_LIMIT": 650,
        "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": 700,
        "DCGM_FI_DEV_FB_RESERVED": 543,
        "DCGM_FI_DEV_MEMORY_TEMP": 49,
        "DCGM_FI_DEV_SM_CLOCK": 1980,
        "DCGM_FI_DEV_MEM_CLOCK": 2619,
        "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": 0x4 | 0x8,
        "DCGM_FI_DEV_ENC_UTIL": 3,
        "DCGM_FI_DEV_DEC_UTIL": 4,
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 123_456_789_012,
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 5,
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": 6,
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": 0,
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": 1,
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": 2,
        "DCGM_FI_DEV_ROW_REMAP_PENDING": 1,
        "DCGM_FI_DEV_ROW_REMAP_FAILURE": 0,
        "DCGM_FI_DEV_MIG_MODE": 0,
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
    }


def holder(pod: str, *, shared: bool = False, memory_mib: int | None = None) -> HoldingContainer:
    return HoldingContainer(ContainerKey("ml", pod, "main"), shared=shared, memory_mib=memory_mib)


HELD = {
    "GPU-0": (holder("whole"),),
    "GPU-1": (holder("a", shared=True, memory_mib=1000), holder("b", shared=True)),
    "GPU-2": (holder("alone", shared=True, memory_mib=2000),),
}
THREE = NodeSnapshot(tuple(device(index, **FULL) for index in range(3)))


def test_device_has_one_series_however_many_hold_it() -> None:
    scraped = Scraped(THREE, HELD)
    power = [sample for sample in scraped.samples if sample.name == "DCGM_FI_DEV_POWER_USAGE"]
    assert sum(sample.value for sample in power) == 3 * 71.25
    pods = {sample.labels["UUID"]: sample.labels.get("pod") for sample in power}
    assert pods == {"GPU-0": "whole", "GPU-1": None, "GPU-2": None}, "only an exclusive holder is in the labels"
    assert scraped.value("DCGM_FI_DEV_GPU_TEMP", UUID="GPU-0", namespace="ml", pod="whole", container="main") == 41


def test_joined_labels_no_pod_and_holders_have_series_of_their_own() -> None:
    scraped = Scraped(THREE, HELD, MetricsOptions(pod_labels=PodLabels.NONE))
    assert not any("pod" in sample.labels for sample in scraped.samples if sample.name.startswith("DCGM"))
    promised = {
        sample.labels["pod"]: sample.value for sample in scraped.samples if sample.name == "gpufleet_device_holder"
    }
    assert promised == {
        "whole": 81_559 * BYTES_PER_MIB,
        "a": 1000 * BYTES_PER_MIB,
        "b": 0,
        "alone": 2000 * BYTES_PER_MIB,
    }
    labels = {"UUID": "GPU-1", "namespace": "ml", "pod": "a", "container": "main", "hostname": "node-1"}
    assert scraped.value("gpufleet_device_holder", **labels) == 1000 * BYTES_PER_MIB


def test_use_of_containers_has_series_while_they_hold_the_device() -> None:
    scraped = Scraped(THREE, HELD)
    ratio, memory = "gpufleet_container_gpu_utilization_ratio", "gpufleet_container_gpu_memory_bytes"
    assert {s.labels["pod"]: s.value for s in scraped.samples if s.name == ratio} == {"whole": 0.6, "a": 0}
    assert {s.labels["pod"]: s.value for s in scraped.samples if s.name == memory} == {"whole": 1000 * BYTES_PER_MIB}


def test_without_dcgm_names_only_own_series_are_left() -> None:
    scraped = Scraped(THREE, HELD, MetricsOptions(dcgm_names=False))
    assert "DCGM" not in scraped.text
    assert scraped.count("gpufleet_device_holder") == 4


@pytest.mark.parametrize("label", list(HostnameLabel))
def test_every_series_of_a_device_names_its_node(label: HostnameLabel) -> None:
    scraped = Scraped(NodeSnapshot((device(0, health=SICK, **FULL),)), HELD, MetricsOptions(hostname_label=label))
    of_devices = [sample for sample in scraped.samples if "UUID" in sample.labels]
    assert len({sample.name for sample in of_devices}) > 30
    for sample in of_devices:
        assert sample.labels[label.value if sample.name.startswith("DCGM") else "hostname"] == "node-1"


def test_partition_names_its_profile_and_instance() -> None:
    whole = device(0, **FULL)
    info = replace(whole.info, parent="GPU-9", profile="1g.10gb", gpu_instance=7)
    scraped = Scraped(NodeSnapshot((replace(whole, info=info),)))
    assert scraped.value("DCGM_FI_DEV_FB_USED", GPU_I_PROFILE="1g.10gb", GPU_I_ID="7") == 559


def xid(*reasons: HealthReason, warnings: tuple[HealthReason, ...] = ()) -> float:
    state = HealthState.UNHEALTHY if reasons else HealthState.HEALTHY
    sick = device(0, health=HealthSnapshot(state, reasons, 1.0, warnings), **FULL)
    scraped = Scraped(NodeSnapshot((replace(sick, events=(EventCount("XidError", 79, 1, 60.0),)),)), HELD)
    (found,) = [sample for sample in scraped.samples if sample.name == "DCGM_FI_DEV_XID_ERRORS"]
    assert "pod" not in found.labels, "the fault may be older than the holder"
    return found.value


def test_xid_series_has_no_pod_and_ends_with_the_fault() -> None:
    lost = HealthReason("DeviceLost", "GPU is lost", 1.0)
    assert xid(lost, HealthReason("XidError", "XID 79: GPU has fallen off the bus", 1.0)) == 79
    assert xid(HealthReason("XidError", "XID 200", 1.0)) == 200
    assert xid(warnings=(HealthReason("XidUnknown", "XID 300", 1.0, fault=False),)) == 300
    assert xid(lost) == 0, "acknowledged"
    assert xid() == 0


@pytest.mark.parametrize(
    "silent",
    [
        pytest.param(device(0), id="no sample yet"),
        pytest.param(device(0, age=61, **FULL), id="a sample older than the window"),
        pytest.param(device(0, process_count=1), id="a sample without any of the readings"),
    ],
)
def test_what_is_not_known_now_has_no_series(silent: DeviceSnapshot) -> None:
    scraped = Scraped(NodeSnapshot((silent,)))
    for reading in DCGM_FIELDS:
        assert scraped.count(reading.name) == 0
    assert scraped.count("gpufleet_agent_device_throttled") == 0


def test_processes_of_long_ago_have_no_series() -> None:
    scraped = Scraped(NodeSnapshot((device(0, age=61, **FULL), device(1, **FULL))))
    assert scraped.count("gpufleet_agent_device_processes") == 1


def test_health_events_and_processes() -> None:
    scraped = Scraped(NodeSnapshot((device(0, **FULL), device(1, health=SICK, **FULL))))
    assert scraped.value("gpufleet_agent_devices", state="Healthy") == 1
    assert scraped.value("gpufleet_agent_devices", state="Unhealthy") == 1
    assert scraped.value("gpufleet_agent_device_healthy", UUID="GPU-0") == 1
    assert scraped.value("gpufleet_agent_device_healthy", UUID="GPU-1") == 0
    assert scraped.value("gpufleet_agent_device_fault", UUID="GPU-1", code="XidError") == 1
    assert scraped.value("gpufleet_agent_device_events_total", UUID="GPU-1", kind="XidError", code="31") == 3
    assert scraped.value("DCGM_FI_DEV_XID_ERRORS", UUID="GPU-1") == 79
    assert scraped.value("DCGM_FI_DEV_XID_ERRORS", UUID="GPU-0") == 0
    assert scraped.value("gpufleet_agent_device_processes", UUID="GPU-0") == 2


def test_healthy_node_reports_zero_unhealthy_devices() -> None:
    assert Scraped(NodeSnapshot((device(0),))).value("gpufleet_agent_devices", state="Unhealthy") == 0


def test_agent_metrics() -> None:
    snapshot = NodeSnapshot(
        samples=120, dropped=MappingProxyType({"Invalid": 2, "ReadFailed": 5}), unavailable="no driver"
    )
    scraped = Scraped(snapshot)
    assert scraped.value("gpufleet_agent_samples_total") == 120
    assert scraped.value("gpufleet_agent_samples_dropped_total", reason="Invalid") == 2
    assert scraped.value("gpufleet_agent_hardware_available") == 0
    assert scraped.value("gpufleet_agent_assignments") == 3
    assert scraped.value("gpufleet_agent_assignments_generation") == 17
    assert scraped.value("gpufleet_agent_podresources_list_age_seconds") == 1.5
    assert scraped.value("gpufleet_agent_build_info", version="1.2.3") == 1


def test_every_reason_for_low_clocks_has_its_bit_and_a_series() -> None:
    assert set(CLOCK_EVENT_BITS) == set(ThrottleReason)
    scraped = Scraped(NodeSnapshot((device(0, **FULL),)))
    assert scraped.value("gpufleet_agent_device_throttled", UUID="GPU-0", reason="SwPowerCap") == 1
    assert scraped.value("gpufleet_agent_device_throttled", UUID="GPU-0", reason="HwThermalSlowdown") == 0
    assert scraped.count("gpufleet_agent_device_throttled") == len(ThrottleReason)


def test_shares_say_what_is_promised_and_used_and_who_is_over() -> None:
    scraped = Scraped(NodeSnapshot((device(0, **FULL),)))
    share = "gpufleet_agent_share_memory"
    reported = {
        pod: {
            sample.name: sample.value
            for sample in scraped.samples
            if share in sample.name and sample.labels["pod"] == pod
        }
        for pod in ("a", "b")
    }
    assert reported["a"] == {
        f"{share}_promised_bytes": 1000 * BYTES_PER_MIB,
        f"{share}_used_bytes": 1200 * BYTES_PER_MIB,
        f"{share}_overused": 1,
    }
    assert reported["b"] == {f"{share}_promised_bytes": 2000 * BYTES_PER_MIB, f"{share}_overused": 0}
    assert scraped.value("gpufleet_agent_share_overuse_episodes_total") == 4


def test_warning_is_reported_next_to_the_faults() -> None:
    scraped = Scraped(NodeSnapshot((device(0, health=SICK, **FULL),)))
    assert scraped.value("gpufleet_agent_device_warning", UUID="GPU-0", code="RowRemapPending") == 1


UNITS = re.compile(r"\((in (%|MiB|MHz|C|W|mJ)|0 or 1|number|bits|code)\)")


def test_every_series_has_help_a_unit_and_no_creation_time() -> None:
    scraped = Scraped(NodeSnapshot((device(0, health=SICK, **FULL),)))
    assert [family.name for family in scraped.families if not family.documentation] == []
    dcgm = [family for family in scraped.families if family.name.startswith("DCGM_")]
    assert [family.name for family in dcgm if not UNITS.search(family.documentation)] == []
    assert "_created" not in scraped.text


def test_counters_of_dcgm_have_their_type() -> None:
    scraped = Scraped(NodeSnapshot((device(0, **FULL),)))
    typed = dict(re.findall(r"^# TYPE (DCGM_\w+) (\w+)$", scraped.text, re.MULTILINE))
    counters = {field.name for field in DCGM_FIELDS if field.kind == COUNTER}
    assert len(counters) > 5
    assert {name for name, kind in typed.items() if kind == "counter"} == counters
    assert {kind for name, kind in typed.items() if name not in counters} == {"gauge"}


def test_series_of_devices_and_pods_that_are_gone_are_gone() -> None:
    pod = HoldingContainer(ContainerKey("ml", "a", "main"))
    now: dict[str, Any] = {"view": NodeSnapshot((device(0, **FULL), device(1, **FULL))), "holders": {"GPU-1": (pod,)}}
    registry = CollectorRegistry()
    registry.register(DeviceCollector(lambda: now["view"], lambda: now["holders"], "node-1", 60.0))
    registry.register(AgentCollector(lambda: now["view"], "node-1", lambda: None, lambda: None, stale_seconds=60.0))
    assert 'pod="a"' in encode(registry).decode()
    now["holders"] = {}
    assert 'pod="a"' not in (text := encode(registry).decode())
    assert "GPU-1" in text
    now["view"] = NodeSnapshot((device(0, **FULL),))
    assert "GPU-1" not in encode(registry).decode()


def test_before_anything_was_read_there_are_no_reservations_to_speak_of() -> None:
    registry = CollectorRegistry()
    registry.register(AgentCollector(NodeSnapshot, "node-1", lambda: None, lambda: None, stale_seconds=60.0))
    text = encode(registry).decode()
    assert "gpufleet_agent_assignments" not in text
    assert "gpufleet_agent_podresources_list_age_seconds" not in text


def documented() -> dict[str, str]:
    """Returns labels by name from the agent's tables in docs/reference/metrics.md."""
    text = (
        (Path(__file__).parents[3] / "docs/reference/metrics.md")
        .read_text(encoding="utf-8")
        .partition("## Operator")[0]
    )
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| `")]
    return {name.strip(" `"): labels if name.startswith(" `gpufleet") else "" for name, _, labels in rows}


def test_the_documentation_lists_every_series_and_no_other() -> None:
    scraped = Scraped(NodeSnapshot((device(0, health=SICK, **FULL),)), HELD)
    names = {line.split()[2] for line in scraped.text.splitlines() if line.startswith("# TYPE")}
    assert len(names) > 40
    assert set(documented()) == names


def test_the_documentation_has_every_label() -> None:
    scraped = Scraped(NodeSnapshot((device(0, health=SICK, **FULL),)), HELD)
    table = documented()
    for sample in scraped.samples:
        if sample.name.startswith("gpufleet") and sample.name in table:
            assert set(re.findall(r"`([^`]+)`", table[sample.name])) == set(sample.labels), sample.name
