"""Two memories of an earlier process and what they say together."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.devices.base import DeviceEvent, DeviceInfo, Reading, Recovery
from gpufleet_agent.faults.merge import changes_since, is_status_newer, merge
from gpufleet_agent.sampling.health import HealthPolicy, is_one_time
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.saved_state import Checkpoint, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState
from gpufleet_testing.hypothesis_profiles import examples

UUIDS = ("GPU-0", "GPU-1", "MIG-2")
ONCE = ("XidError", "DeviceLost", "ResetRequired")
SHOWN = ("ReadFailed", "RowRemapFailed", "DriverUnavailable")


def device(uuid: str, *codes: str, since: float = 50.0, last: float | None = None) -> SavedDevice:
    reasons = tuple(HealthReason(code, f"{code} told", since, Recovery.RESET) for code in sorted(codes))
    state = HealthState.UNHEALTHY if reasons else HealthState.HEALTHY
    lasts = {} if last is None else dict.fromkeys(codes, last)
    return SavedDevice(DeviceInfo(uuid, UUIDS.index(uuid), "Sim"), HealthSnapshot(state, reasons, since), lasts)


def past(reported: float, *devices: SavedDevice, driver: str | None = "1") -> SavedState:
    return SavedState(reported, driver, {one.info.uuid: one for one in devices})


def standing(found: SavedState) -> set[tuple[str, str]]:
    return {(uuid, reason.code) for uuid, one in found.devices.items() for reason in one.health.reasons}


def once(found: SavedState) -> set[tuple[str, str]]:
    return {(uuid, code) for uuid, code in standing(found) if is_one_time(code)}


@st.composite
def pasts(draw: st.DrawFn, codes: tuple[str, ...]) -> SavedState:
    """Of some of the devices."""
    uuids = draw(st.sets(st.sampled_from(UUIDS)))
    sets = st.sets(st.sampled_from(codes))
    since, reported = draw(st.floats(1, 100)), draw(st.floats(100, 200))
    driver = draw(st.sampled_from(("1", "2", None)))
    return past(reported, *(device(uuid, *draw(sets), since=since) for uuid in sorted(uuids)), driver=driver)


FILES, STATUSES = pasts(ONCE), pasts(ONCE + SHOWN)


@examples(25)
@given(FILES, STATUSES, st.booleans())
def test_every_device_that_either_names_is_known(file: SavedState, status: SavedState, newer: bool) -> None:
    merged = merge(file, status, status_is_newer=newer)
    assert merged.devices.keys() == file.devices.keys() | status.devices.keys()
    assert standing(merged) <= standing(file) | standing(status), "nothing is made up"


@examples(25)
@given(FILES, STATUSES, st.booleans())
def test_the_newer_one_is_believed_of_each_device_that_it_names(
    file: SavedState, status: SavedState, newer: bool
) -> None:
    merged = merge(file, status, status_is_newer=newer)
    source = status if newer else file
    assert {one for one in once(merged) if one[0] in source.devices} == once(source)


@examples(25)
@given(FILES, STATUSES, st.booleans())
def test_device_only_in_the_older_state_is_kept_unless_driver_changed(
    file: SavedState, status: SavedState, newer: bool
) -> None:
    merged = merge(file, status, status_is_newer=newer)
    source, other = (status, file) if newer else (file, status)
    same = None in {file.driver_version, status.driver_version} or file.driver_version == status.driver_version
    alone = {one for one in standing(other) if one[0] not in source.devices}
    assert {one for one in standing(merged) if one[0] not in source.devices} == (alone if same else set())


@examples(25)
@given(STATUSES, st.booleans())
def test_what_both_say_is_what_they_say_together(status: SavedState, newer: bool) -> None:
    assert standing(merge(status, status, status_is_newer=newer)) == standing(status)


@examples(25)
@given(FILES, STATUSES, st.booleans())
def test_in_two_steps_a_process_comes_to_the_same_as_in_one(file: SavedState, status: SavedState, newer: bool) -> None:
    merged = merge(file, status, status_is_newer=newer)
    assert taken_over(file, changes_since(merged, file)) == taken_over(merged)


@examples(25)
@given(FILES, STATUSES, st.booleans())
def test_what_has_ended_in_between_is_not_brought_back(file: SavedState, status: SavedState, newer: bool) -> None:
    assert not standing(changes_since(merge(file, file, status_is_newer=newer), file))
    merged = merge(file, status, status_is_newer=newer)
    same = None in {merged.driver_version, file.driver_version} or merged.driver_version == file.driver_version
    if same:
        assert not once(changes_since(merged, file)) & once(file)


def taken_over(*pasts: SavedState) -> set[tuple[str, str]]:
    """Returns the events of a process that restores these states, with all devices present and healthy."""
    record = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy(recover_reads=1))
    for one in pasts:
        record.restore(one, Instant(1, 300))
    infos = [DeviceInfo(uuid, index, "Sim") for index, uuid in enumerate(UUIDS)]
    driver = next((one.driver_version for one in reversed(pasts) if one.driver_version), "1")
    record.register(infos, driver, Instant(2, 301))
    return {
        (snapshot.info.uuid, reason.code)
        for snapshot in record.snapshot(Instant(3, 302)).devices
        for reason in snapshot.health.reasons
        if reason.code == "XidError"
    }


def test_the_clock_was_set_back_and_the_new_fault_counts_all_the_same() -> None:
    file = Checkpoint(past(100, device("GPU-0", "XidError")), reports=frozenset({5000.0}))
    assert not is_status_newer(past(5000, device("GPU-0")), file), "the file says that it is later than that one"
    assert not is_status_newer(past(99, device("GPU-0")), file)
    assert is_status_newer(past(5001, device("GPU-0")), file)
    assert is_status_newer(past(101, device("GPU-0")), file)


def test_each_event_keeps_the_time_at_which_it_came_last() -> None:
    file, status = past(200, device("GPU-0", "XidError", last=120)), past(150, device("GPU-1", "XidError"))
    merged = merge(file, status, status_is_newer=False)
    assert {uuid: dict(one.last_seen) for uuid, one in merged.devices.items()} == {
        "GPU-0": {"XidError": 120},
        "GPU-1": {"XidError": 150},
    }
    assert merged.reported_at == 200


def test_readings_come_from_status_and_partition_from_file() -> None:
    part = device("MIG-2", "XidError")
    part = replace(part, info=replace(part.info, parent="GPU-9", profile="1g.10gb"))
    told = device("MIG-2", "RowRemapFailed", since=20)
    told = replace(told, info=replace(told.info, architecture="Hopper"))
    merged = merge(past(200, part), past(150, told), status_is_newer=False).devices["MIG-2"]
    assert (merged.info.parent, merged.info.profile, merged.info.architecture) == ("GPU-9", "1g.10gb", "Hopper")
    assert [reason.code for reason in merged.health.reasons] == ["RowRemapFailed", "XidError"]


@pytest.mark.parametrize("again", [False, True], ids=["not seen since", "seen since"])
def test_a_later_report_withdraws_what_the_file_said_unless_it_is_seen_again(again: bool) -> None:
    file = past(100, device("GPU-0", "XidError"))
    record = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy())
    record.restore(file, Instant(0, 300))
    record.register([DeviceInfo("GPU-0", 0, "Sim")], "1", Instant(1, 301))
    record.record(Reading(uuid="GPU-0"), Instant(2, 302))
    assert [reason.code for reason in record.snapshot(Instant(2, 302)).devices[0].health.reasons] == ["XidError"]
    if again:
        record.event(DeviceEvent("GPU-0", "XidError", 79, "XID 79", fault=True), Instant(3, 303))
    merged = merge(file, past(150, device("GPU-0")), status_is_newer=True)
    record.restore(changes_since(merged, file), Instant(4, 304))
    codes = [reason.code for reason in record.snapshot(Instant(5, 305)).devices[0].health.reasons]
    assert codes == (["XidError"] if again else [])
