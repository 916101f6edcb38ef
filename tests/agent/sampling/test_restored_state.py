"""What an earlier process knew of the devices, taken over by the record of this one."""

from dataclasses import replace

import pytest

from gpufleet_agent.devices.base import DeviceEvent, DeviceInfo, Reading, Recovery, SlowReading
from gpufleet_agent.sampling.health import HealthPolicy, ReadFault
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.saved_state import FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState

DEVICES = tuple(DeviceInfo(f"GPU-{index}", index, "Sim") for index in range(3))


def at(seconds: float) -> Instant:
    return Instant(monotonic=seconds, wall=1_000_000 + seconds)


def make() -> NodeRegistry:
    return NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy())


def sick(code: str = "XidError", recovery: Recovery = Recovery.AUTOMATIC) -> HealthSnapshot:
    reason = HealthReason(code, "reported before", 1_000_000 - 500, recovery)
    return HealthSnapshot(HealthState.UNHEALTHY, (reason,), 1_000_000 - 500)


def past(*healths: HealthSnapshot, driver: str | None = "570.1") -> SavedState:
    """A report of devices like `DEVICES`, from a second before the first."""
    devices = {f"GPU-{i}": SavedDevice(DeviceInfo(f"GPU-{i}", i, "Sim"), health) for i, health in enumerate(healths)}
    return SavedState(1_000_000 - 1, driver, devices)


def codes(record: NodeRegistry) -> list[list[str]]:
    return [[reason.code for reason in device.health.reasons] for device in record.snapshot(at(9)).devices]


WELL = HealthSnapshot(HealthState.HEALTHY)
LASTING = sick(recovery=Recovery.RESET)


@pytest.mark.parametrize("late", [False, True], ids=["before the devices are known", "after"])
def test_restart_keeps_all_faults(late: bool) -> None:
    record = make()
    if late:
        record.register(DEVICES, "570.1", at(0))
    record.restore(past(WELL, LASTING, WELL), at(1))
    if not late:
        assert codes(record) == []
        record.register(DEVICES, "570.1", at(2))
    assert codes(record) == [[], ["XidError"], []]
    assert record.snapshot(at(9)).devices[1].health == LASTING
    for second in range(3, 8):
        record.record(Reading(uuid="GPU-1"), at(second))
    assert codes(record) == [[], ["XidError"], []]


def test_device_missing_after_restart_is_lost_until_back_or_acknowledged() -> None:
    record = make()
    record.restore(past(WELL, WELL, WELL), at(0))
    record.register(DEVICES[:2], "570.1", at(1))
    assert codes(record) == [[], [], ["DeviceLost"]]
    assert record.snapshot(at(1)).devices[2].info.model == "Sim"
    record.acknowledge(FaultAcknowledgment(1_000_000), at(2))
    assert codes(record) == [[], [], ["DeviceLost"]], "it was gone later than that"
    record.acknowledge(FaultAcknowledgment(1_000_001, "GPU-2"), at(3))
    assert codes(record) == [[], []]
    record.register(DEVICES[:2], "570.1", at(4))
    assert codes(record) == [[], []]
    record.register(DEVICES, "570.1", at(5))
    assert codes(record) == [[], [], []]


def placed(uuid: str, address: str | None = "0000:1B:00.0") -> DeviceInfo:
    return DeviceInfo(uuid, 0, "Sim", pci_bus_id=address)


def test_a_device_with_others_in_its_place_was_divided_and_not_lost() -> None:
    record = make()
    record.register([placed("GPU-0"), placed("GPU-1", "0000:1C:00.0")], "570.1", at(0))
    record.register([placed("MIG-0"), placed("MIG-1"), placed("GPU-1", "0000:1C:00.0")], "570.1", at(1))
    assert {device.info.uuid for device in record.snapshot(at(1)).devices} == {"MIG-0", "MIG-1", "GPU-1"}
    assert codes(record) == [[], [], []]
    record.register([placed("MIG-0"), placed("MIG-1")], "570.1", at(2))
    assert sorted(codes(record)) == [[], [], ["DeviceLost"]]


@pytest.mark.parametrize("late", [False, True], ids=["before the devices are known", "after"])
def test_a_device_that_was_divided_between_two_agents_hands_its_faults_on(late: bool) -> None:
    record = make()
    before = SavedState(1_000_000 - 1, "570.1", {"GPU-0": SavedDevice(placed("GPU-0"), LASTING)})
    if not late:
        record.restore(before, at(0))
    record.register([placed("MIG-0"), placed("MIG-1"), placed("GPU-1", "0000:1C:00.0")], "570.1", at(1))
    if late:
        record.restore(before, at(2))
    standing = {device.info.uuid: device.health.reasons for device in record.snapshot(at(3)).devices}
    assert standing == {"MIG-0": LASTING.reasons, "MIG-1": LASTING.reasons, "GPU-1": ()}


@pytest.mark.parametrize("seen", [False, True], ids=["not observed since", "observed again"])
def test_a_loss_that_a_newer_report_denies_ends_with_it_and_is_no_reset(seen: bool) -> None:
    record = make()
    record.restore(past(WELL, sick("DeviceLost")), at(0))
    record.register(DEVICES[:2], "570.1", at(1))
    if seen:
        record.failed("GPU-1", ReadFault.DEVICE_LOST, "gone", at(2))
    newer = past(WELL, LASTING)  # it came back, and had its XID after that
    record.restore(replace(newer, cleared={"GPU-1": frozenset({"DeviceLost"})}), at(3))
    assert codes(record) == [[], ["DeviceLost", "XidError"] if seen else ["XidError"]]
    for second in (4, 5, 6, 7):
        record.record(Reading(uuid="GPU-1"), at(second))
    assert codes(record) == [[], [] if seen else ["XidError"]]


def divided(uuid: str) -> DeviceInfo:
    return replace(placed(uuid), parent="GPU-0", profile="1g.10gb")


XID_79 = DeviceEvent("MIG-a", "XidError", 79, "XID 79", fault=True, recovery=Recovery.RESET)


@pytest.mark.parametrize("restarted", [False, True], ids=["by the same agent", "by the next one"])
def test_new_mig_layout_under_a_running_agent_is_no_reset(restarted: bool) -> None:
    record = make()
    record.register([divided("MIG-a")], "570.1", at(0))
    record.event(XID_79, at(1))
    record.failed("MIG-a", ReadFault.DEVICE_LOST, "gone", at(2))  # the partition, and not its GPU
    if restarted:
        kept, record = record.saved_state(at(3)), make()
        assert kept is not None
        record.restore(kept, at(4))
    record.register([divided("MIG-b"), divided("MIG-c")], "570.1", at(5))
    for second in range(6, 12):
        record.record(Reading(uuid="MIG-b"), at(second))
    assert codes(record) == [["XidError"], ["XidError"]]
    assert record.snapshot(at(12)).devices[0].health.reasons[0].since == 1_000_001
    record.acknowledge(FaultAcknowledgment(1_000_001), at(13))
    assert codes(record) == [[], []]


def test_new_partitions_after_driver_reload_inherit_nothing() -> None:
    record = make()
    record.register([divided("MIG-a")], "570.1", at(0))
    record.event(XID_79, at(1))
    record.unavailable("not loaded", at(2), unloaded=True)
    record.register([divided("MIG-b")], "570.1", at(3))
    assert codes(record) == [[]]


@pytest.mark.parametrize("restarted", [False, True], ids=["by the same agent", "by the next one"])
def test_fault_before_clock_was_set_back_can_be_acknowledged(restarted: bool) -> None:
    record = make()
    ahead = [Instant(monotonic=second, wall=1_036_000 + second) for second in range(4)]
    record.register(DEVICES, "570.1", ahead[0])
    record.event(replace(XID_79, uuid="GPU-1"), ahead[1])
    record.register(DEVICES[:2], "570.1", ahead[2])
    if restarted:
        kept, record = record.saved_state(ahead[3]), make()
        assert kept is not None
        record.restore(kept, at(4))
    record.register(DEVICES[:2], "570.1", at(5))  # looked for again, by the clock as it is now
    assert codes(record) == [[], ["XidError"], ["DeviceLost"]]
    record.acknowledge(FaultAcknowledgment(1_000_000), at(6))
    assert codes(record) == [[], ["XidError"], ["DeviceLost"]], "that is older than both, by any clock"
    record.acknowledge(FaultAcknowledgment(1_000_005), at(7))
    assert codes(record) == [[], []]


def test_a_device_that_only_answers_late_after_a_restart_was_not_reset() -> None:
    record = make()
    record.restore(past(WELL, LASTING), at(0))
    record.register(DEVICES[:1], "570.1", at(1), unlisted=1)
    assert codes(record) == [[], ["DeviceLost", "XidError"]]
    record.register(DEVICES[:2], "570.1", at(2))
    for second in (3, 4, 5):
        record.record(Reading(uuid="GPU-1"), at(second))
    assert codes(record) == [[], ["XidError"]]


def test_another_driver_version_ends_faults() -> None:
    record = make()
    record.restore(past(LASTING, LASTING, driver="550.9"), at(0))
    record.register(DEVICES[:1], "570.1", at(1))
    assert codes(record) == [[], ["DeviceLost"]]


def test_faults_under_an_unknown_driver_version_outlast_a_known_one() -> None:
    record = make()
    record.restore(past(WELL, driver="550.9"), at(0))
    record.register(DEVICES[:1], None, at(1))
    record.event(DeviceEvent("GPU-0", "XidError", 79, "XID 79", fault=True, recovery=Recovery.RESET), at(2))
    kept = record.saved_state(at(3))
    assert kept is not None
    again = make()
    again.restore(kept, at(4))
    again.register(DEVICES[:1], "570.1", at(5))
    assert codes(again) == [["XidError"]]


def test_restored_devices_without_driver_are_reported_with_that_fault() -> None:
    record = make()
    record.unavailable("no driver", at(0))
    assert codes(record) == []
    record.restore(past(WELL, LASTING), at(1))
    assert codes(record) == [["DriverUnavailable"], ["DriverUnavailable", "XidError"]]
    record.acknowledge(FaultAcknowledgment(1_000_500), at(2))
    assert codes(record) == [["DriverUnavailable"], ["DriverUnavailable"]], "that is still so"
    record.register(DEVICES[:2], "570.1", at(3))
    for second in (4, 5, 6):
        for device in DEVICES[:2]:
            record.record(Reading(uuid=device.uuid), at(second))
    assert codes(record) == [[], []]


def test_an_acknowledgment_forgives_events_of_its_device() -> None:
    record = make()
    record.register(DEVICES, "570.1", at(0))
    record.event(DeviceEvent(None, "XidError", 79, "gone", fault=True, recovery=Recovery.RESET), at(1))
    record.acknowledge(FaultAcknowledgment(1_000_001, "GPU-1"), at(2))
    assert codes(record) == [["XidError"], [], ["XidError"]]
    record.acknowledge(FaultAcknowledgment(1_000_000.5), at(3))
    assert codes(record) == [["XidError"], [], ["XidError"]]
    version = record.health_version
    record.acknowledge(FaultAcknowledgment(1_000_001), at(4))
    record.acknowledge(FaultAcknowledgment(1_000_001), at(5))
    assert codes(record) == [[], [], []]
    assert record.health_version == version + 1, "a repeated one changes nothing"


def test_an_acknowledgment_forgives_nothing_that_is_yet_to_happen() -> None:
    record = make()
    record.register(DEVICES, "570.1", at(0))
    # By two threads: the event's clock was looked at after the acknowledgment's.
    record.event(DeviceEvent("GPU-1", "XidError", 79, "gone", fault=True, recovery=Recovery.RESET), at(10))
    record.acknowledge(FaultAcknowledgment(1_003_600), at(9))
    assert codes(record) == [[], ["XidError"], []]
    record.acknowledge(FaultAcknowledgment(1_003_600), at(10))
    assert codes(record) == [[], [], []]


def test_a_loss_is_acknowledged_by_its_own_time_and_not_by_an_older_faults() -> None:
    record = make()
    record.register(DEVICES, "570.1", at(0))
    record.record_slow(SlowReading(uuid="GPU-1", ecc_uncorrected=1), at(10))
    record.register([DEVICES[0], DEVICES[2]], "570.1", at(500))
    record.acknowledge(FaultAcknowledgment(1_000_100), at(501))
    assert codes(record) == [[], ["DeviceLost", "EccUncorrected"], []]
    record.acknowledge(FaultAcknowledgment(1_000_500), at(502))
    assert codes(record) == [[], []]


def test_only_unreported_thresholds_can_be_acknowledged() -> None:
    record = make()
    record.register(DEVICES, "570.1", at(0))
    for uuid in ("GPU-0", "GPU-1"):
        record.record_slow(SlowReading(uuid=uuid, ecc_uncorrected=2), at(1))
    record.record_slow(SlowReading(uuid="GPU-1"), at(2))
    record.acknowledge(FaultAcknowledgment(1_000_000.5), at(3))
    assert codes(record) == [["EccUncorrected"], ["EccUncorrected"], []], "it began later than that"
    record.acknowledge(FaultAcknowledgment(1_000_002), at(3))
    assert codes(record) == [["EccUncorrected"], [], []]
    record.record_slow(SlowReading(uuid="GPU-1", ecc_uncorrected=2), at(4))
    assert codes(record) == [["EccUncorrected"], ["EccUncorrected"], []], "switched on again, it shows at once"


def test_what_a_later_process_may_not_hear_again_is_remembered() -> None:
    record = make()
    assert record.saved_state(at(0)) is None, "not known yet what there is"
    record.register(DEVICES, "570.1", at(0))
    record.event(DeviceEvent("GPU-0", "XidError", 79, "XID 79", fault=True, recovery=Recovery.RESET), at(1))
    record.event(DeviceEvent("GPU-0", "XidError", 79, "XID 79", fault=True, recovery=Recovery.RESET), at(5))
    record.failed("GPU-1", ReadFault.UNRESPONSIVE, "stuck", at(2))
    record.register(DEVICES[:2], "570.1", at(3))
    kept = record.saved_state(at(6))
    assert kept is not None
    assert (kept.reported_at, kept.driver_version) == (1_000_006, "570.1")
    said = {uuid: [reason.code for reason in one.health.reasons] for uuid, one in kept.devices.items()}
    assert said == {"GPU-0": ["XidError"], "GPU-1": [], "GPU-2": ["DeviceLost"]}
    assert (kept.devices["GPU-0"].health.since, kept.devices["GPU-0"].last_seen) == (1_000_001, {"XidError": 1_000_005})
    again = make()
    again.restore(kept, at(100))
    again.register(DEVICES, "570.1", at(101))
    assert again.saved_state(at(6)) == kept, "it knows as much"


def test_acknowledgment_after_restart_uses_last_event_time() -> None:
    record = make()
    last = {"XidError": 1_000_000 - 400}
    record.restore(SavedState(1_000_000 - 1, "570.1", {"GPU-1": SavedDevice(DEVICES[1], LASTING, last)}), at(0))
    record.register(DEVICES, "570.1", at(1))
    record.acknowledge(FaultAcknowledgment(1_000_000 - 401), at(2))
    assert codes(record) == [[], ["XidError"], []]
    record.acknowledge(FaultAcknowledgment(1_000_000 - 400), at(3))
    assert codes(record) == [[], [], []]


def test_the_driver_of_the_faults_is_remembered_while_there_is_none() -> None:
    record = make()
    record.restore(past(LASTING, driver="550.9"), at(0))
    record.unavailable("no driver", at(1))
    kept = record.saved_state(at(2))
    assert kept is not None
    assert kept.driver_version == "550.9"
    assert [reason.code for reason in kept.devices["GPU-0"].health.reasons] == ["XidError"]


def test_a_lost_device_is_missing_since_it_was_first_missed() -> None:
    record = make()
    record.restore(past(WELL, WELL, sick("DeviceLost")), at(0))
    record.register(DEVICES[:2], "570.1", at(1))
    (reason,) = record.snapshot(at(2)).devices[2].health.reasons
    assert reason.since == 1_000_000 - 500
    record.acknowledge(FaultAcknowledgment(1_000_000 - 400), at(3))
    assert len(codes(record)) == 2
