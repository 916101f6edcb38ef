import json
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Unpack

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gpufleet_agent.devices.base import DeviceInfo, MemoryModel, Reading, Recovery, Sample, ThrottleReason
from gpufleet_agent.overuse.container_usage import ContainerUsage
from gpufleet_agent.overuse.episodes import OveruseEpisode
from gpufleet_agent.overuse.memory_usage import MemoryUsage
from gpufleet_agent.podresources.holdings import HoldingContainer
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.publish.payload import build_status, timestamp
from gpufleet_agent.sampling.errors import ImplausibleSampleError
from gpufleet_agent.sampling.health import HealthPolicy
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.snapshot import (
    DeviceSnapshot,
    HealthReason,
    HealthSnapshot,
    HealthState,
    NodeSnapshot,
    Statistics,
    WindowSummary,
)
from gpufleet_api.telemetry.gpu_telemetry import TelemetryStatus
from gpufleet_testing.agent.sampling import SampleFields

NOW = 1_780_000_000.25
HEALTHY = HealthSnapshot(HealthState.HEALTHY)
SICK = HealthSnapshot(
    HealthState.UNHEALTHY,
    (HealthReason("XidError", "XID 79", NOW - 60, Recovery.RESET),),
    NOW - 60,
    (HealthReason("HwThermalSlowdown", "too hot", NOW - 30, fault=False),),
)


def device(index: int, *, health: HealthSnapshot = HEALTHY, **values: Unpack[SampleFields]) -> DeviceSnapshot:
    uuid = f"GPU-{index}"
    sample = Sample(uuid=uuid, taken_at=NOW - 1, **values) if values else None
    info = DeviceInfo(uuid, index, "NVIDIA H100 80GB HBM3", memory_total_mib=1000)
    return DeviceSnapshot(info, health, sample, None if sample is None else 1.0)


def status_of(*devices: DeviceSnapshot, **fields: object) -> dict[str, Any]:
    snapshot = NodeSnapshot(devices=devices, driver_version="580.1", sample_time=NOW - 1, sample_age_seconds=1.0)
    usual: dict[str, Any] = {"holders": {}, "generation": 7, "observed_at": NOW, "agent_version": "1.2.3"}
    return build_status(snapshot, **{**usual, **fields})


FULL: dict[str, Any] = {
    "uuid": "GPU-0",
    "index": 0,
    "model": "M" * 96,
    "architecture": "Hopper",
    "computeCapability": "9.0",
    "pciBusId": "0000:01:00.0",
    "numaNode": 1,
    "nvlinkPeers": ["GPU-1"],
    "sampleTime": "2026-05-28T20:26:39.250000Z",
    "memoryTotalMiB": 1000,
    "memoryUsedMiB": 250,
    "memoryReservedMiB": 600,
    "utilizationPercent": 0,
    "temperatureCelsius": -5,
    "powerMilliwatts": 71_250,
    "powerLimitMilliwatts": 700_000,
    "memoryTemperatureCelsius": 61,
    "clocks": {"smMHz": 1980, "memoryMHz": 2619},
    "throttleReasons": ["HwThermalSlowdown", "SwPowerCap"],
    "ecc": {"correctedVolatile": 4, "uncorrectedVolatile": 0},
    "rowRemap": {"pending": True, "failed": False},
    "pageRetirementPending": False,
    "migMode": "Disabled",
    "processCount": 0,
    "health": {
        "state": "Unhealthy",
        "reasons": [
            {"code": "XidError", "message": "XID 79", "since": "2026-05-28T20:25:40.250000Z", "recovery": "Reset"}
        ],
        "warnings": [
            {
                "code": "HwThermalSlowdown",
                "message": "too hot",
                "since": "2026-05-28T20:26:10.250000Z",
                "recovery": "Automatic",
            }
        ],
        "since": "2026-05-28T20:25:40.250000Z",
    },
    "window": {
        "samples": 60,
        "seconds": 60,
        "utilizationPercent": {"mean": 50, "max": 90, "p95": 80},
        "temperatureCelsius": {"mean": 40, "max": 41, "p95": 41},
    },
    "allocatedTo": [{"namespace": "ml", "pod": "train-0", "container": "main", "podUID": "uid-train-0"}],
}
"""A device of which everything is known, as it is published."""


def test_device_that_is_withheld_or_cordoned_is_not_free() -> None:
    out = {"withheld": {"GPU-1": "no device node"}, "cordoned": {"GPU-2", "GPU-elsewhere"}}
    status = status_of(device(0), device(1), device(2), device(3), **out)
    assert (status["summary"]["healthy"], status["summary"]["free"]) == (4, 2)


def test_withheld_reason_is_published_and_truncated() -> None:
    status = status_of(device(0), device(1), withheld={"GPU-1": "x" * 300})
    assert [one.get("withheld") for one in status["devices"]] == [None, "x" * 256]
    TelemetryStatus.model_validate(status)


def test_a_full_device_and_its_summary() -> None:
    window = WindowSummary(60, 59.6, Statistics(49.6, 90, 80), None, Statistics(40.4, 41, 41), None)
    info = DeviceInfo("GPU-0", 0, "M" * 200, "Hopper", "9.0", "0000:01:00.0", 1, ("GPU-1",), 1000)
    sample = Sample(
        uuid="GPU-0",
        taken_at=NOW - 1,
        memory_total_mib=1000,
        memory_used_mib=250,
        utilization_percent=0,
        temperature_celsius=-5,
        power_milliwatts=71_250,
        power_limit_milliwatts=700_000,
        memory_temperature_celsius=61,
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        memory_reserved_mib=600,
        throttle_reasons=frozenset({ThrottleReason.SW_POWER_CAP, ThrottleReason.HW_THERMAL_SLOWDOWN}),
        ecc_corrected=4,
        ecc_uncorrected=0,
        row_remap_pending=True,
        row_remap_failed=False,
        page_retirement_pending=False,
        mig_enabled=False,
        process_count=0,
    )
    holder = HoldingContainer(ContainerKey("ml", "train-0", "main"), "uid-train-0")
    device = DeviceSnapshot(info, SICK, sample, 1.0, window)
    status = status_of(device, holders={"GPU-0": (holder,)}, boot_id="b00t")
    assert status == {
        "assignmentsGeneration": 7,
        "observedAt": "2026-05-28T20:26:40.250000Z",
        "sampleTime": "2026-05-28T20:26:39.250000Z",
        "agentVersion": "1.2.3",
        "driverVersion": "580.1",
        "bootId": "b00t",
        "devices": [FULL],
        "summary": {
            "state": "Ready",
            "devices": 1,
            "healthy": 0,
            "allocated": 1,
            "free": 0,
            "memoryTotalMiB": 1000,
            "memoryUsedMiB": 250,
            "meanUtilizationPercent": 0,
            "meanTemperatureCelsius": -5,
            "powerWatts": 71,
        },
    }


def test_overuse_is_reported_on_its_device_only() -> None:
    holder = HoldingContainer(ContainerKey("ml", "a", "main"), "uid-a", shared=True, memory_mib=100)
    other = HoldingContainer(ContainerKey("ml", "b", "main"), "uid-b", shared=True, memory_mib=100)
    over = OveruseEpisode(MemoryUsage("GPU-1", 1, holder.key, "uid-a", 100, 150), NOW - 10)
    holders = {"GPU-0": (holder, other), "GPU-1": (holder, other)}
    status = status_of(device(0), device(1), holders=holders, overuse=(over,))
    TelemetryStatus.model_validate(status)
    reported = [one.get("overuse") for gpu in status["devices"] for one in gpu["allocatedTo"]]
    assert reported == [None, None, {"memoryUsedMiB": 150, "since": "2026-05-28T20:26:30.250000Z"}, None]


def test_container_has_its_utilization_and_is_terminating_until_it_ended() -> None:
    holder = HoldingContainer(ContainerKey("ml", "a", "main"), "uid-a", terminating=True)
    usages = (ContainerUsage("GPU-1", holder.key, 42, 1000), ContainerUsage("GPU-0", holder.key, None, 1000))
    status = status_of(device(0), device(1), holders={"GPU-0": (holder,), "GPU-1": (holder,)}, usages=usages)
    TelemetryStatus.model_validate(status)
    held = [one for gpu in status["devices"] for one in gpu["allocatedTo"]]
    assert [one.get("utilizationPercent") for one in held] == [None, 42]
    assert [one["terminating"] for one in held] == [True, True]


def test_a_node_without_devices_has_counts_and_no_means() -> None:
    assert status_of()["summary"] == {"state": "Ready", "devices": 0, "healthy": 0, "allocated": 0, "free": 0}
    assert status_of()["devices"] == []


def test_unreported_values_are_absent_and_not_in_the_mean() -> None:
    status = status_of(device(0, utilization_percent=80), device(1, temperature_celsius=50), device(2))
    assert status["summary"]["meanUtilizationPercent"] == 80
    assert status["summary"]["meanTemperatureCelsius"] == 50
    assert "powerWatts" not in status["summary"]
    assert "memoryAvailableMiB" not in status["summary"]
    assert "sampleTime" not in status["devices"][2]
    assert status["devices"][0].keys().isdisjoint({"clocks", "throttleReasons", "ecc", "rowRemap", "migMode"})
    assert status["devices"][2]["memoryTotalMiB"] == 1000


def test_available_memory_is_that_of_healthy_devices() -> None:
    status = status_of(
        device(0, memory_total_mib=1000, memory_used_mib=100),
        device(1, memory_total_mib=1000, memory_used_mib=100, health=SICK),
    )
    assert status["summary"]["memoryUsedMiB"] == 200
    assert status["summary"]["memoryAvailableMiB"] == 900


def test_reserved_memory_is_published_and_not_available() -> None:
    status = status_of(
        device(0, memory_total_mib=15360, memory_used_mib=100, memory_reserved_mib=388),
        device(1, memory_total_mib=1000, memory_used_mib=900, memory_reserved_mib=200),
    )
    assert [one.get("memoryReservedMiB") for one in status["devices"]] == [388, 200]
    assert status["summary"]["memoryAvailableMiB"] == 15360 - 388 - 100, "never less than nothing"


def test_memory_model_is_published() -> None:
    info = DeviceInfo("GPU-0", 0, "NVIDIA GB10", memory_model=MemoryModel.UNIFIED)
    status = status_of(DeviceSnapshot(info, HealthSnapshot(HealthState.HEALTHY)))
    assert status["devices"][0]["memoryModel"] == "Unified"
    TelemetryStatus.model_validate(status)


def test_before_the_reservations_were_read_the_generation_is_absent() -> None:
    assert "assignmentsGeneration" not in status_of(generation=None)


def test_a_holder_without_an_assignment_has_no_uid() -> None:
    holder = HoldingContainer(ContainerKey("ml", "bare", "main"))
    status = status_of(device(0), holders={"GPU-0": (holder,)})
    assert status["devices"][0]["allocatedTo"] == [{"namespace": "ml", "pod": "bare", "container": "main"}]


def test_clock_change_does_not_change_sample_age() -> None:
    """A stuck device, a sample of three hours ago, and a clock that was set back or forth by as much in between."""
    sample = Sample(uuid="GPU-0", taken_at=NOW, utilization_percent=1)
    snapshot = NodeSnapshot(
        devices=(DeviceSnapshot(DeviceInfo("GPU-0", 0, "M"), HEALTHY, sample, 10_800.0),),
        sample_time=NOW,
        sample_age_seconds=10_800.0,
    )
    for set_by in (-10_800, 0, 10_800):
        now = NOW + 10_800 + set_by
        status = build_status(snapshot, {}, generation=1, observed_at=now, agent_version="1")
        observed = datetime.fromisoformat(status["observedAt"])
        for reported in (status["sampleTime"], status["devices"][0]["sampleTime"]):
            assert (observed - datetime.fromisoformat(reported)).total_seconds() == 10_800


def crowded(index: int) -> DeviceSnapshot:
    """Returns a device with every field at its maximum length."""
    uuid = f"GPU-{index:08}-0000-0000-0000-000000000000"
    reported = tuple(HealthReason(f"{'X' * 48}{code}", "m" * 1000, NOW, Recovery.REPLACEMENT) for code in range(16))
    peers = tuple(f"GPU-{other:08}-0000-0000-0000-000000000000" for other in range(64) if other != index)
    numbers: dict[str, Any] = dict.fromkeys(Sample.__dataclass_fields__, 2**30)
    words = {"uuid": uuid, "taken_at": NOW, "throttle_reasons": frozenset(ThrottleReason), "mig_enabled": True}
    statistics = Statistics(1e6, 2**40, 2**40)
    return DeviceSnapshot(
        DeviceInfo(uuid, index, "M" * 200, "A" * 32, "10.0", "0" * 32, 7, peers, 2**30),
        HealthSnapshot(HealthState.UNHEALTHY, reported, NOW, reported),
        Sample(**{**numbers, **words}),
        1.0,
        WindowSummary(60, 59.0, statistics, statistics, statistics, statistics),
    )


def test_the_largest_node_with_everything_wrong_fits_into_etcd() -> None:
    """64 devices, 32 reasons each, and a holder for each of 256 pods: etcd rejects above 1.5 MiB."""
    devices = [crowded(index) for index in range(64)]
    holders = [
        HoldingContainer(ContainerKey("n" * 63, "p" * 253, f"{'c' * 62}{index}"), "u" * 36) for index in range(4)
    ]
    status = status_of(*devices, holders={device.info.uuid: tuple(holders) for device in devices}, boot_id="b" * 36)
    size = len(json.dumps(status).encode())
    assert 1_000_000 < size < 1_500_000, f"{size} bytes"
    usual = status_of(*(device(index, utilization_percent=1) for index in range(8)))
    assert len(json.dumps(usual)) < 4_000


def test_a_timestamp_on_a_whole_second_keeps_its_digits() -> None:
    assert timestamp(1_780_000_000) == "2026-05-28T20:26:40.000000Z"


def used_within_total(sample: Sample) -> Sample:
    """What the sampler's validation has let through."""
    if sample.memory_total_mib is None or sample.memory_used_mib is None:
        return sample
    return replace(sample, memory_used_mib=min(sample.memory_used_mib, sample.memory_total_mib))


# Anything that the sampler may hand over.
counts = st.none() | st.integers(0, 2**30)
percents = st.none() | st.integers(0, 100)
times = st.floats(1, 4e9)
flags = st.none() | st.booleans()
ages = st.none() | st.floats(0, 1e6)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
texts = st.sampled_from(["M", "x" * 2000, "\u00e9" * 97])
statistics = st.none() | st.builds(Statistics, st.floats(0, 2**30), st.integers(0, 2**30), st.integers(0, 2**30))
samples = st.builds(
    Sample,
    uuid=words,
    taken_at=times,
    memory_total_mib=counts,
    memory_used_mib=counts,
    memory_reserved_mib=counts,
    utilization_percent=percents,
    memory_utilization_percent=percents,
    temperature_celsius=st.none() | st.integers(-273, 1000),
    power_milliwatts=counts,
    power_limit_milliwatts=counts,
    process_count=st.none() | st.integers(0, 100_000),
    memory_temperature_celsius=st.none() | st.integers(-273, 1000),
    sm_clock_mhz=st.none() | st.integers(0, 100_000),
    memory_clock_mhz=st.none() | st.integers(0, 100_000),
    throttle_reasons=st.none() | st.frozensets(st.sampled_from(ThrottleReason)),
    ecc_corrected=counts,
    ecc_uncorrected=counts,
    row_remap_pending=flags,
    row_remap_failed=flags,
    page_retirement_pending=flags,
    mig_enabled=flags,
).map(used_within_total)
reasons = st.lists(
    st.builds(HealthReason, words, texts, times, st.sampled_from(Recovery)), max_size=20, unique_by=lambda r: r.code
).map(tuple)
healths = st.builds(HealthSnapshot, st.sampled_from(HealthState), reasons, st.none() | times, reasons)
windows = st.builds(
    WindowSummary, st.integers(1, 3600), st.floats(0, 3600), statistics, statistics, statistics, statistics
)
infos = st.builds(
    DeviceInfo,
    words,
    st.integers(0, 63),
    texts,
    st.none() | words.map(lambda word: word[:32]),
    st.none() | st.just("9.0"),
    st.none() | words.map(lambda word: word[:32]),
    st.none() | st.integers(0, 8),
    st.lists(words, max_size=4, unique=True).map(tuple),
    counts,
)
views = st.builds(
    NodeSnapshot,
    st.lists(
        st.builds(DeviceSnapshot, infos, healths, st.none() | samples, ages, st.none() | windows),
        max_size=2,
        unique_by=lambda device: device.info.uuid,
    ).map(tuple),
    st.none() | words,
    st.none() | times,
    ages,
)


@cache
def structural_schema() -> Draft202012Validator:
    path = Path(__file__).parents[3] / "crds" / "gputelemetries.yaml"
    (version,) = yaml.safe_load(path.read_text())["spec"]["versions"]
    return Draft202012Validator(version["schema"]["openAPIV3Schema"]["properties"]["status"])


@given(snapshot=views, holding=st.booleans(), generation=st.none() | st.integers(0, 2**53))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_node_snapshot_is_a_valid_status(snapshot: NodeSnapshot, holding: bool, generation: int | None) -> None:
    held = [HoldingContainer(ContainerKey("ml", f"pod-{index}", "main"), None) for index in range(80)]
    holders = {device.info.uuid: tuple(held) for device in snapshot.devices} if holding else {}
    status = build_status(snapshot, holders, generation=generation, observed_at=NOW, agent_version="1.2.3")
    structural_schema().validate(status)
    # Equal both ways: the models ignore fields that they don't know.
    assert TelemetryStatus.model_validate(status).model_dump(by_alias=True, exclude_unset=True, mode="json") == status


@given(st.lists(st.integers(-(2**63), 2**63) | st.sampled_from([0, 2**24, 2**31, 2**40]), min_size=1, max_size=8))
def test_no_size_that_hardware_makes_up_makes_the_nodes_status_invalid(sizes: list[int]) -> None:
    record = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy())
    now = Instant(1, NOW)
    infos = [
        DeviceInfo(f"GPU-{index}", index, "M", memory_total_mib=size, numa_node=size)
        for index, size in enumerate(sizes)
    ]
    record.register(infos, "580.1", now)
    for info in infos:
        with suppress(ImplausibleSampleError):
            record.record(Reading(uuid=info.uuid, memory_total_mib=info.memory_total_mib), now)
    TelemetryStatus.model_validate(
        build_status(record.snapshot(now), {}, generation=1, observed_at=NOW, agent_version="1")
    )
