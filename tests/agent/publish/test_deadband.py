from copy import deepcopy
from typing import Any

import pytest

from gpufleet_agent.publish.deadband import Significance, significance, stale_after

BASE: dict[str, Any] = {
    "assignmentsGeneration": 3,
    "observedAt": "2026-01-01T00:00:00.000000Z",
    "sampleTime": "2026-01-01T00:00:00.000000Z",
    "driverVersion": "580.1",
    "devices": [
        {
            "uuid": "GPU-0",
            "index": 0,
            "model": "M",
            "memoryTotalMiB": 80_000,
            "memoryUsedMiB": 1000,
            "utilizationPercent": 50,
            "memoryUtilizationPercent": 20,
            "temperatureCelsius": 40,
            "memoryTemperatureCelsius": 60,
            "powerMilliwatts": 100_000,
            "powerLimitMilliwatts": 700_000,
            "processCount": 1,
            "health": {"state": "Healthy"},
        }
    ],
}
SICK = {"state": "Unhealthy", "reasons": [{"code": "XidError", "message": "XID 79", "since": "2026-01-01T00:00:00Z"}]}
WARNED = {"state": "Healthy", "warnings": [{"code": "HwThermalSlowdown", "since": "2026-01-01T00:00:00Z"}]}
HELD = [{"namespace": "ml", "pod": "a", "container": "main"}]
SLOT = [{**HELD[0], "shared": True}]
NONE, CHANGE, PICKABLE, URGENT = Significance


def over(mib: int) -> list[dict[str, Any]]:
    return [{**SLOT[0], "overuse": {"memoryUsedMiB": mib, "since": "2026-01-01T00:00:00Z"}}]


def test_that_a_holder_uses_too_much_is_urgent_how_much_is_not() -> None:
    before, after = deepcopy(BASE), deepcopy(BASE)
    before["devices"][0]["allocatedTo"] = SLOT
    after["devices"][0]["allocatedTo"] = over(1200)
    assert significance(before, after) is URGENT
    assert significance(after, before) is URGENT
    before["devices"][0]["allocatedTo"] = over(9000)
    assert significance(before, after) is NONE


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        pytest.param({"memoryUsedMiB": 1255}, NONE, id="memory moved by 255 MiB"),
        pytest.param({"memoryUsedMiB": 1256}, PICKABLE, id="memory moved by 256 MiB"),
        pytest.param({"memoryUsedMaxMiB": 1755}, NONE, id="the maximum moved by 255 MiB"),
        pytest.param({"memoryUsedMaxMiB": 1244}, PICKABLE, id="the maximum moved by 256 MiB"),
        pytest.param({"memoryUsedMiB": None}, PICKABLE, id="it is not known any more"),
        pytest.param({"observedSince": "2026-01-01T01:00:00Z"}, PICKABLE, id="the observation began again"),
    ],
)
def test_memory_of_a_holder_has_a_dead_band(fields: dict[str, Any], want: Significance) -> None:
    before, after = deepcopy(BASE), deepcopy(BASE)
    since = "2026-01-01T00:00:00Z"
    used = {**SLOT[0], "memoryUsedMiB": 1000, "memoryUsedMaxMiB": 1500, "observedSince": since}
    changed = {name: value for name, value in {**used, **fields}.items() if value is not None}
    before["devices"][0]["allocatedTo"], after["devices"][0]["allocatedTo"] = [used], [changed]
    assert significance(before, after) is want


@pytest.mark.parametrize(("percent", "want"), [(59, NONE), (60, CHANGE)])
def test_use_of_a_container_has_a_dead_band(percent: int, want: Significance) -> None:
    before, after = deepcopy(BASE), deepcopy(BASE)
    for status, reported in ((before, 50), (after, percent)):
        status["devices"][0]["allocatedTo"] = [{**HELD[0], "utilizationPercent": reported}]
    assert significance(before, after) is want


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        pytest.param({}, NONE, id="nothing changed"),
        pytest.param({"utilizationPercent": 59}, NONE, id="utilization moved by 9 points"),
        pytest.param({"utilizationPercent": 40}, PICKABLE, id="utilization moved by 10 points"),
        pytest.param({"memoryUtilizationPercent": 30}, PICKABLE, id="memory utilization moved by 10 points"),
        pytest.param({"memoryUsedMiB": 1255}, NONE, id="memory moved by 255 MiB of 80 GB"),
        pytest.param({"memoryUsedMiB": 744}, PICKABLE, id="memory moved by 256 MiB"),
        pytest.param({"temperatureCelsius": 42}, NONE, id="temperature moved by 2 C"),
        pytest.param({"temperatureCelsius": 37}, PICKABLE, id="temperature moved by 3 C"),
        pytest.param({"powerMilliwatts": 169_999}, NONE, id="power moved by less than a tenth of the limit"),
        pytest.param({"powerMilliwatts": 170_000}, PICKABLE, id="power moved by a tenth of the limit"),
        pytest.param({"processCount": 5}, NONE, id="more processes"),
        pytest.param({"processCount": 0}, PICKABLE, id="the last process left"),
        pytest.param({"temperatureCelsius": None}, PICKABLE, id="a value is not reported any more"),
        pytest.param({"sampleTime": "2026-01-01T00:00:09Z"}, NONE, id="only time passed"),
        pytest.param({"window": {"samples": 60, "seconds": 59}}, NONE, id="only the window moved"),
        pytest.param({"health": SICK}, URGENT, id="the device fell ill"),
        pytest.param({"allocatedTo": HELD}, URGENT, id="a holder came"),
        pytest.param({"uuid": "GPU-9"}, URGENT, id="another device in the slot"),
        pytest.param({"migMode": "Enabled"}, URGENT, id="divided into instances"),
        pytest.param({"memoryTemperatureCelsius": 62}, NONE, id="temperature of the memory moved by 2 C"),
        pytest.param({"memoryTemperatureCelsius": 63}, PICKABLE, id="temperature of the memory moved by 3 C"),
        pytest.param({"health": WARNED}, PICKABLE, id="a warning came"),
        pytest.param({"throttleReasons": ["SwPowerCap"]}, NONE, id="clocks held down by software flicker"),
        pytest.param({"clocks": {"smMHz": 345}}, NONE, id="so do the clocks themselves"),
        pytest.param({"nvlinkPeers": ["GPU-1"]}, URGENT, id="a link came up"),
        pytest.param({"withheld": "no device node"}, URGENT, id="no container can be given it any more"),
    ],
)
def test_a_devices_change(fields: dict[str, Any], want: Significance) -> None:
    current = deepcopy(BASE)
    device = current["devices"][0]
    for name, value in fields.items():
        device.pop(name, None)
        if value is not None:
            device[name] = value
    assert significance(BASE, current) is want
    assert significance(current, BASE) is want, "and back again"


@pytest.mark.parametrize(
    ("holders", "want"),
    [
        pytest.param(None, PICKABLE, id="free"),
        pytest.param(SLOT, PICKABLE, id="shared: more may fit beside"),
        pytest.param(HELD, CHANGE, id="held as a whole"),
        pytest.param([*SLOT, *HELD], CHANGE, id="held as a whole, and a slot that is still being let go"),
    ],
)
def test_readings_of_a_device_that_could_be_picked_matter_more(
    holders: list[dict[str, object]] | None, want: Significance
) -> None:
    before = deepcopy(BASE)
    if holders is not None:
        before["devices"][0]["allocatedTo"] = holders
    after = deepcopy(before)
    after["devices"][0]["temperatureCelsius"] = 80
    assert significance(before, after) is want


def test_the_device_that_could_be_picked_counts_among_many_that_are_held() -> None:
    before = deepcopy(BASE)
    free, held = before["devices"][0], {**deepcopy(before["devices"][0]), "uuid": "GPU-1", "allocatedTo": HELD}
    before["devices"] = [held, free]
    noise, both = deepcopy(before), deepcopy(before)
    for status in (noise, both):
        status["devices"][0]["utilizationPercent"] = 99
    both["devices"][1]["temperatureCelsius"] = 80
    assert significance(before, noise) is CHANGE
    assert significance(before, both) is PICKABLE


def test_fresh_samples_after_stale_ones_are_urgent() -> None:
    def sampled(at: str) -> dict[str, Any]:
        status = deepcopy(BASE)
        status |= {"observedAt": "2026-01-01T00:01:00.5Z"}
        status["devices"][0]["sampleTime"] = at
        return status

    old, fresh, fresher = (sampled(f"2026-01-01T00:00:{second}.25Z") for second in (55, 56, 59))
    assert significance(old, fresh) is URGENT
    assert significance(old, deepcopy(old)) is NONE
    assert significance(fresh, fresher) is NONE
    assert significance(fresh, old) is NONE, "the operator reckons with a sample's age itself"
    assert significance(old, fresh, stale_seconds=6.0) is NONE, "where samples are taken each 3 s"


@pytest.mark.parametrize(("sample_seconds", "want"), [(0.1, 5.0), (2.5, 5.0), (10.0, 20.0), (60.0, 120.0)])
def test_what_is_old_goes_by_how_often_samples_are_taken(sample_seconds: float, want: float) -> None:
    assert stale_after(sample_seconds) == want


def test_small_memory_has_a_band_of_two_percent() -> None:
    before, after = deepcopy(BASE), deepcopy(BASE)
    for status, used in ((before, 1000), (after, 1080)):
        status["devices"][0] |= {"memoryTotalMiB": 4000, "memoryUsedMiB": used}
    assert significance(before, after) is PICKABLE


def test_without_a_power_limit_the_band_is_a_tenth_of_the_last_value() -> None:
    before, after = deepcopy(BASE), deepcopy(BASE)
    for status, power in ((before, 100_000), (after, 110_000)):
        del status["devices"][0]["powerLimitMilliwatts"]
        status["devices"][0]["powerMilliwatts"] = power
    assert significance(before, after) is PICKABLE


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"driverVersion": "590.1"}, id="the driver"),
        pytest.param({"devices": []}, id="the number of devices"),
    ],
)
def test_a_nodes_change_is_urgent(fields: dict[str, Any]) -> None:
    assert significance(BASE, {**BASE, **fields}) is URGENT


def test_generation_of_the_reservations_is_no_difference() -> None:
    assert significance(BASE, {**BASE, "assignmentsGeneration": 4}) is NONE


def test_new_reason_is_urgent_and_new_message_is_not() -> None:
    def with_reason(code: str, message: str) -> dict[str, Any]:
        status = deepcopy(BASE)
        status["devices"][0]["health"] = {"state": "Unhealthy", "reasons": [{"code": code, "message": message}]}
        return status

    assert significance(with_reason("XidError", "a"), with_reason("DeviceLost", "a")) is URGENT
    assert significance(with_reason("XidError", "a"), with_reason("XidError", "b")) is NONE
