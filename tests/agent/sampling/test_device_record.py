"""What readings and events of a device come to in its health."""

import pytest

from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceInfo,
    ProcessMemory,
    Reading,
    Recovery,
    RecoveryAction,
    SlowReading,
)
from gpufleet_agent.sampling.errors import ImplausibleSampleError
from gpufleet_agent.sampling.health import HealthPolicy
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.saved_state import SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState

DEVICES = (DeviceInfo("GPU-0", 0, "Sim"), DeviceInfo("GPU-1", 1, "Sim"))


def at(seconds: float) -> Instant:
    return Instant(monotonic=seconds, wall=1_000_000 + seconds)


def make() -> NodeRegistry:
    record = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy())
    record.register(DEVICES, "570.1", at(0))
    return record


def test_impossible_slow_value_hides_no_other_fact() -> None:
    record = make()
    process = ProcessMemory(4711, 2**30)
    slow = SlowReading(
        uuid="GPU-0",
        process_count=1,
        processes=(process,),
        encoder_percent=101,
        ecc_uncorrected=5,
        row_remap_failed=True,
        unreadable=("energy",),
    )
    dropped = record.record_slow(slow, at(1))
    assert sorted(error.field for error in dropped) == ["encoder_percent", "processes"]
    record.record(Reading(uuid="GPU-0", unreadable=("power",)), at(1))
    snapshot = record.snapshot(at(1))
    device = snapshot.devices[0]
    assert [reason.code for reason in device.health.reasons] == ["EccUncorrected", "RowRemapFailed"]
    assert device.sample is not None
    assert (device.sample.process_count, device.sample.encoder_percent, device.sample.ecc_uncorrected) == (1, None, 5)
    assert snapshot.dropped == {}
    assert snapshot.dropped_values == {
        ("encoder_percent", "Over100Percent"): 1,
        ("processes", "TooLarge"): 1,
        ("energy", "ReadFailed"): 1,
        ("power", "ReadFailed"): 1,
    }


def test_impossible_value_of_a_reading_hides_no_recovery_action() -> None:
    record = make()
    reading = Reading(uuid="GPU-0", temperature_celsius=5000, recovery_action=RecoveryAction.RESET)
    with pytest.raises(ImplausibleSampleError):
        record.record(reading, at(1))
    version = record.health_version
    assert [reason.code for reason in record.snapshot(at(1)).devices[0].health.reasons] == ["RecoveryReset"]
    with pytest.raises(ImplausibleSampleError):
        record.record(reading, at(2))
    assert record.health_version == version


@pytest.mark.parametrize(
    ("action", "reasons", "warnings"),
    [
        (RecoveryAction.RESET, [("RecoveryReset", Recovery.RESET)], []),
        (RecoveryAction.DRAIN_AND_RESET, [("RecoveryReset", Recovery.RESET)], []),
        (RecoveryAction.BUS_RESET, [("RecoveryReset", Recovery.RESET)], []),
        (RecoveryAction.REBOOT, [("RecoveryReboot", Recovery.REBOOT)], []),
        (RecoveryAction.DRAIN_PEERS, [("RecoveryDrain", Recovery.AUTOMATIC)], []),
        (RecoveryAction.RECOVER_DOMAIN, [], [("RecoverImexDomain", Recovery.AUTOMATIC)]),
        (RecoveryAction.UNKNOWN, [], [("RecoveryUnknown", Recovery.AUTOMATIC)]),
    ],
)
def test_recovery_action_lasts_as_long_as_the_driver_reports_it(
    action: RecoveryAction, reasons: list[tuple[str, Recovery]], warnings: list[tuple[str, Recovery]]
) -> None:
    record = make()

    def shown(moment: float) -> tuple[list[tuple[str, Recovery]], list[tuple[str, Recovery]]]:
        health = record.snapshot(at(moment)).devices[0].health
        return [(one.code, one.recovery) for one in health.reasons], [
            (one.code, one.recovery) for one in health.warnings
        ]

    for second in range(1, 1000, 100):
        record.record(Reading(uuid="GPU-0", recovery_action=action), at(second))
        assert shown(second) == (reasons, warnings)
    record.record(Reading(uuid="GPU-0"), at(1001))
    assert shown(1001) == (reasons, warnings), "not reported this time"
    record.record(Reading(uuid="GPU-0", recovery_action=RecoveryAction.NONE), at(1002))
    assert shown(1002) == ([], [])


def test_contained_error_ends_with_the_program_that_had_it() -> None:
    record = make()
    contained = DeviceEvent("GPU-0", "XidError", 94, "XID 94: Contained memory error", fault=False, contained=True)

    def slow(second: float, errors: int, *pids: int) -> tuple[list[str], list[str]]:
        processes = tuple(ProcessMemory(pid, 5) for pid in pids)
        reading = SlowReading(uuid="GPU-0", process_count=len(pids), processes=processes, ecc_uncorrected=errors)
        record.record_slow(reading, at(second))
        health = record.snapshot(at(second)).devices[0].health
        return [one.code for one in health.reasons], [one.code for one in health.warnings]

    assert slow(0, 0, 4711) == ([], [])
    record.event(contained, at(1))
    assert slow(5, 1, 4711) == (["EccUncorrected"], [])
    assert slow(10, 1, 4711, 4712) == (["EccUncorrected"], [])
    assert slow(15, 1, 4712) == (["EccUncorrected"], ["EccContained"]), "three readings end a fault"
    slow(20, 1, 4712)
    assert slow(25, 1, 4712) == ([], ["EccContained"]), "another program goes on"
    assert slow(30, 2, 4712) == (["EccUncorrected"], ["EccContained"]), "an error without that event"
    assert slow(35, 0, 4712) == (["EccUncorrected"], []), "a reset clears the count"
    slow(40, 0)
    assert slow(45, 0) == ([], [])
    assert slow(50, 1) == (["EccUncorrected"], [])


def test_contained_error_of_a_partition_is_no_fault_of_others() -> None:
    record = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy())
    partitions = [DeviceInfo(f"MIG-{number}", 0, "Sim", parent="GPU-0") for number in range(2)]
    record.register((*partitions, DeviceInfo("GPU-1", 1, "Sim")), "570.1", at(0))
    running = (ProcessMemory(4711, 5),)
    for info in partitions:
        record.record_slow(SlowReading(uuid=info.uuid, processes=running, ecc_uncorrected=0), at(0))
    record.event(DeviceEvent("MIG-0", "XidError", 94, "", fault=False, contained=True), at(1))
    for info in partitions:
        record.record_slow(SlowReading(uuid=info.uuid, processes=running, ecc_uncorrected=1), at(5))
    health = [[reason.code for reason in device.health.reasons] for device in record.snapshot(at(5)).devices]
    assert health == [["EccUncorrected"], [], []]


def test_contained_errors_are_remembered_across_a_restart() -> None:
    record = make()
    message = "contained memory errors since the last reset, whose programs have ended: 2"
    warning = HealthReason("EccContained", message, 1_000_000, Recovery.RESET, fault=False)
    health = HealthSnapshot(HealthState.HEALTHY, warnings=(warning,))
    record.restore(SavedState(1_000_000, "570.1", {"GPU-0": SavedDevice(DEVICES[0], health)}), at(0))
    record.record_slow(SlowReading(uuid="GPU-0", processes=(), ecc_uncorrected=2), at(1))
    assert record.faults() == frozenset()
    record.record_slow(SlowReading(uuid="GPU-0", processes=(), ecc_uncorrected=3), at(2))
    assert record.faults() == {"EccUncorrected"}


def test_contained_error_lasts_while_processes_are_unknown() -> None:
    record = make()
    record.event(DeviceEvent("GPU-0", "XidError", 94, "", fault=False, contained=True), at(1))
    for second in range(5, 200, 5):
        record.record_slow(SlowReading(uuid="GPU-0", ecc_uncorrected=1), at(second))
    assert record.faults() == {"EccUncorrected"}


def test_warning_event_is_no_fault_and_is_not_saved_as_one() -> None:
    record = make()
    record.event(DeviceEvent("GPU-0", "XidError", 999, "XID 999", fault=False, warning="XidWithoutAction"), at(1))
    health = record.snapshot(at(1)).devices[0].health
    assert (health.state, [one.code for one in health.warnings]) == (HealthState.HEALTHY, ["XidWithoutAction"])
    saved = record.saved_state(at(2))
    assert saved is not None
    assert saved.devices["GPU-0"].health == HealthSnapshot(HealthState.HEALTHY)
    assert saved.devices["GPU-0"].last_seen == {}
