"""Observations whose statuses differ within dead bands only are recognized without building the statuses."""

from dataclasses import replace
from typing import Any, Unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.devices.base import DeviceInfo, Sample
from gpufleet_agent.overuse.container_usage import ContainerUsage
from gpufleet_agent.overuse.episodes import OveruseEpisode
from gpufleet_agent.overuse.memory_usage import MemoryUsage
from gpufleet_agent.overuse.memory_windows import ObservedMemory
from gpufleet_agent.podresources.holdings import HoldingContainer
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.publish.deadband import STALE_SECONDS, Significance, significance
from gpufleet_agent.publish.observation import Observation
from gpufleet_agent.sampling.snapshot import (
    DeviceSnapshot,
    EventCount,
    HealthReason,
    HealthSnapshot,
    HealthState,
    NodeSnapshot,
    WindowSummary,
)
from gpufleet_testing.agent.sampling import SampleFields
from gpufleet_testing.hypothesis_profiles import examples

UUID = "GPU-0"
KEY = ContainerKey("default", "train-0", "main")
HEALTHY = HealthSnapshot(HealthState.HEALTHY)
XID = HealthSnapshot(HealthState.UNHEALTHY, (HealthReason("XidError", "XID 79", 1.0),))
SAMPLE = Sample(
    uuid=UUID,
    taken_at=100.0,
    memory_total_mib=8192,
    memory_used_mib=4000,
    utilization_percent=50,
    temperature_celsius=60,
    power_milliwatts=200_000,
    power_limit_milliwatts=300_000,
    process_count=1,
    mig_enabled=False,
)
MEMORY = {(UUID, "uid"): ObservedMemory(4000, 4100, 50.0)}
WINDOW = WindowSummary(60, 59.0)
EPISODE = OveruseEpisode(MemoryUsage(UUID, 0, KEY, "uid", 3000, 4000), 90.0)


def observation(
    *,
    health: HealthSnapshot = HEALTHY,
    age: float = 0.5,
    info: DeviceInfo | None = None,
    sampled: bool = True,
    window: WindowSummary | None = WINDOW,
    changed: dict[str, Any] | None = None,
    events: tuple[EventCount, ...] = (),
    **sample: Unpack[SampleFields],
) -> Observation:
    device = DeviceSnapshot(
        info or DeviceInfo(uuid=UUID, index=0, model="H100", memory_total_mib=8192),
        health,
        replace(SAMPLE, **sample) if sampled else None,
        age if sampled else None,
        window,
        events,
    )
    found = Observation(
        snapshot=NodeSnapshot(devices=(device,), driver_version="570"),
        holders={UUID: (HoldingContainer(KEY, "uid", shared=True, memory_mib=3000),)},
        generation=1,
        observed_at=100.0,
        agent_version="1",
        boot_id=None,
        transport=None,
        processes_observed=True,
        overuse=(),
        usages=(ContainerUsage(UUID, KEY, 40, 4000),),
        memory=MEMORY,
        withheld={},
        cordoned=(),
    )
    return replace(found, **(changed or {}))


WRITTEN = observation()
ONCE, TWICE = ((EventCount("XidError", 79, count, 1.0 * count),) for count in (1, 2))
WARNED = HealthSnapshot(HealthState.HEALTHY, warnings=XID.reasons)


@pytest.mark.parametrize("health", [XID, WARNED])
def test_event_of_a_known_fault_or_warning_is_a_recurrence(health: HealthSnapshot) -> None:
    written = observation(health=health, events=ONCE)
    assert observation(health=health, events=TWICE).has_recurrence(written)
    assert not observation(health=health, events=ONCE).has_recurrence(written)


def test_event_of_a_healthy_device_is_only_counted() -> None:
    assert not observation(events=TWICE).has_recurrence(observation(events=ONCE))


def test_a_status_has_the_windows_of_the_devices_that_have_one() -> None:
    (device,) = WRITTEN.build()["devices"]
    assert device["window"] == {"samples": 60, "seconds": 59}
    (device,) = observation(window=None).build()["devices"]
    assert "window" not in device


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(observation(utilization_percent=59), id="utilization"),
        pytest.param(observation(memory_used_mib=4163), id="two percent of small memory"),
        pytest.param(observation(power_milliwatts=229_000), id="power"),
        pytest.param(observation(process_count=9), id="number of processes"),
        pytest.param(observation(sm_clock_mhz=1980), id="clock"),
        pytest.param(observation(age=9.0), id="sample that grows old"),
        pytest.param(observation(changed={"observed_at": 120.0, "cordoned": (UUID,)}), id="time and cordon"),
        pytest.param(observation(changed={"usages": (ContainerUsage(UUID, KEY, 49, 9000),)}), id="use of a container"),
        pytest.param(
            observation(changed={"memory": {(UUID, "uid"): ObservedMemory(4100, 4200, 50.0)}}), id="memory of a holder"
        ),
    ],
)
def test_movement_within_dead_bands_needs_no_status(after: Observation) -> None:
    assert not after.may_differ(WRITTEN, STALE_SECONDS)
    assert significance(WRITTEN.build(), after.build()) is Significance.NONE


CHANGED = {
    "utilization": observation(utilization_percent=60),
    "unknown utilization": observation(utilization_percent=None),
    "memory": observation(memory_used_mib=4164),
    "memory whose total is only described": observation(memory_used_mib=4164, memory_total_mib=None),
    "temperature": observation(temperature_celsius=57),
    "power": observation(power_milliwatts=230_000),
    "last process": observation(process_count=0),
    "MIG mode": observation(mig_enabled=True),
    "health": observation(health=XID),
    "description": observation(info=DeviceInfo(uuid=UUID, index=0, model="H100", memory_total_mib=8192, numa_node=1)),
    "no sample": observation(sampled=False),
    "driver": observation(changed={"snapshot": replace(WRITTEN.snapshot, driver_version="580")}),
    "no device": observation(changed={"snapshot": replace(WRITTEN.snapshot, devices=())}),
    "holder": observation(changed={"holders": {}}),
    "withheld device": observation(changed={"withheld": {UUID: "no CDI file"}}),
    "overuse": observation(changed={"overuse": (EPISODE,)}),
    "use of a container": observation(changed={"usages": (ContainerUsage(UUID, KEY, 50, 4000),)}),
    "memory of a holder": observation(changed={"memory": {(UUID, "uid"): ObservedMemory(4164, 4200, 50.0)}}),
    "observation of a holder": observation(changed={"memory": {(UUID, "uid"): ObservedMemory(4000, 4100, 60.0)}}),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_significance_sees_may_differ(name: str) -> None:
    assert significance(WRITTEN.build(), CHANGED[name].build()) is not Significance.NONE
    assert CHANGED[name].may_differ(WRITTEN, STALE_SECONDS)


def test_fresh_sample_after_a_stale_one_may_differ() -> None:
    stale = observation(age=STALE_SECONDS + 1)
    assert significance(stale.build(), WRITTEN.build()) is Significance.URGENT
    assert WRITTEN.may_differ(stale, STALE_SECONDS)


def numbers(around: int, spread: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(around - spread, around + spread)


OBSERVED = st.builds(
    observation,
    health=st.sampled_from([HEALTHY, XID]),
    age=st.sampled_from([0.5, 4.9, 5.1, 9.0]),
    utilization_percent=numbers(50, 12),
    memory_utilization_percent=numbers(50, 12),
    memory_total_mib=st.sampled_from([None, 8192, 81_920]),
    memory_used_mib=numbers(4000, 300),
    memory_reserved_mib=numbers(300, 250),
    temperature_celsius=numbers(60, 4),
    memory_temperature_celsius=numbers(60, 4),
    power_milliwatts=numbers(200_000, 40_000),
    power_limit_milliwatts=st.sampled_from([None, 0, 300_000]),
    process_count=st.sampled_from([None, 0, 1, 2]),
    mig_enabled=st.sampled_from([None, False, True]),
    changed=st.fixed_dictionaries(
        {
            "overuse": st.sampled_from([(), (EPISODE,)]),
            "usages": st.sampled_from([(), (ContainerUsage(UUID, KEY, 40, 1),), (ContainerUsage(UUID, KEY, 49, 1),)]),
            "memory": st.sampled_from([{}, MEMORY, {(UUID, "uid"): ObservedMemory(4100, 4100, 50.0)}]),
        }
    ),
)


@examples(300)
@given(OBSERVED, OBSERVED)
def test_two_observations_that_do_not_differ_have_equal_statuses(written: Observation, after: Observation) -> None:
    if not after.may_differ(written, STALE_SECONDS):
        assert significance(written.build(), after.build()) is Significance.NONE
