import pytest

from gpufleet_agent.devices.base import DeviceEvent, Recovery, RecoveryAction
from gpufleet_agent.sampling.conditions.recovery_actions import ALL_THRESHOLDS
from gpufleet_agent.sampling.conditions.thresholds import ECC_UNCORRECTED, ROW_REMAP_PENDING, Threshold
from gpufleet_agent.sampling.health import DeviceHealth, HealthPolicy, ReadFault
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState

POLICY = HealthPolicy(recover_reads=3, fail_reads=3, quiet_seconds=600)
WALL = 1_000_000.0
XID = "XidError"


class Story:
    """A device's health over seconds from 0."""

    def __init__(self) -> None:
        self.health = DeviceHealth(POLICY)

    def good(self, *seconds: float) -> bool:
        return [self.health.good_read(second, WALL + second) for second in seconds][-1]

    def fails(self, fault: ReadFault, second: float) -> bool:
        return self.health.failed_read(fault, "broken", WALL + second)

    def xid(self, second: float, message: str = "Xid 63", recovery: Recovery = Recovery.AUTOMATIC) -> bool:
        event = DeviceEvent("GPU-0", XID, 0, message, fault=True, recovery=recovery)
        return self.health.event(event, second, WALL + second)

    def shows(self, level: Threshold, *counts: int) -> list[bool]:
        """Whether each of such readings in a row changed anything."""
        return [self.health.observe([(level, count)], WALL + second) for second, count in enumerate(counts)]

    @property
    def codes(self) -> list[str]:
        return [reason.code for reason in self.health.snapshot().reasons]

    @property
    def warned(self) -> list[str]:
        return [reason.code for reason in self.health.snapshot().warnings]


def test_a_new_device_is_healthy() -> None:
    assert Story().health.snapshot() == HealthSnapshot(HealthState.HEALTHY)


@pytest.mark.parametrize("fault", [fault for fault in ReadFault if fault is not ReadFault.READ_FAILED])
def test_one_clear_error_is_a_fault_until_three_good_reads(fault: ReadFault) -> None:
    story = Story()
    recovery = Recovery.RESET if fault in {ReadFault.DEVICE_LOST, ReadFault.RESET_REQUIRED} else Recovery.AUTOMATIC
    assert story.fails(fault, 5)
    assert story.health.snapshot() == HealthSnapshot(
        HealthState.UNHEALTHY, (HealthReason(fault.value, "broken", WALL + 5, recovery),), WALL + 5
    )
    assert not story.good(6, 7)
    assert story.codes == [fault.value]
    assert story.good(8)
    assert story.health.snapshot() == HealthSnapshot(HealthState.HEALTHY, (), WALL + 8)


def test_good_reads_must_come_in_a_row() -> None:
    story = Story()
    story.fails(ReadFault.DEVICE_LOST, 0)
    story.good(1, 2)
    assert not story.fails(ReadFault.DEVICE_LOST, 3), "it is active already"
    story.good(4, 5)
    assert story.codes == ["DeviceLost"]
    story.good(6)
    assert story.codes == []


def test_a_failure_of_no_special_meaning_counts_from_the_third_in_a_row() -> None:
    story = Story()
    assert not story.fails(ReadFault.READ_FAILED, 0)
    assert not story.fails(ReadFault.READ_FAILED, 1)
    story.good(2)
    assert not story.fails(ReadFault.READ_FAILED, 3)
    assert not story.fails(ReadFault.READ_FAILED, 4)
    assert story.fails(ReadFault.READ_FAILED, 5)
    assert story.codes == ["ReadFailed"]


def test_event_fault_lasts_until_quiet_time_is_over() -> None:
    story = Story()
    story.good(0)
    assert story.xid(10)
    story.good(11, 12, 13, 14, 609.9)
    assert story.codes == [XID]
    assert story.good(610)
    assert story.codes == []


def test_event_fault_ends_when_the_driver_needs_nothing() -> None:
    story = Story()
    story.xid(10, "Xid 109", Recovery.RESET)
    for second, action in ((11, RecoveryAction.NONE), (12, RecoveryAction.NONE), (13, RecoveryAction.RESET)):
        story.health.good_read(second, WALL + second, action)
    assert story.codes == [XID], "three in a row"
    for second in (14, 15):
        story.health.good_read(second, WALL + second, RecoveryAction.NONE)
    story.xid(15.5, "Xid 109", Recovery.RESET)
    story.health.good_read(16, WALL + 16, RecoveryAction.NONE)
    assert story.codes == [XID], "after the last event"
    for second in (17, 18):
        story.health.good_read(second, WALL + second, RecoveryAction.NONE)
    assert story.codes == []


def test_restored_event_fault_ends_when_the_driver_needs_nothing() -> None:
    story = Story()
    story.health.restore(past(HealthReason(XID, "Xid 79", WALL - 500, Recovery.REBOOT)), WALL - 1, 0, WALL)
    for second in (1, 2, 3):
        assert story.codes == [XID]
        story.health.good_read(second, WALL + second, RecoveryAction.NONE)
    assert story.codes == []


def test_second_event_restarts_quiet_time_and_keeps_since() -> None:
    story = Story()
    story.xid(10)
    assert story.xid(300, "Xid 48")
    story.good(301, 302, 303, 610)
    assert story.health.snapshot().reasons == (HealthReason(XID, "Xid 48", WALL + 10),)
    story.good(900)
    assert story.codes == []


def test_device_back_from_loss_was_reset_and_events_end() -> None:
    story = Story()
    story.fails(ReadFault.DEVICE_LOST, 1)
    story.xid(2)
    assert story.codes == ["DeviceLost", XID]
    story.good(10, 11, 12)
    assert story.health.snapshot() == HealthSnapshot(HealthState.HEALTHY, (), WALL + 12)


def test_an_event_after_the_device_came_back_is_not_forgiven() -> None:
    story = Story()
    story.fails(ReadFault.DEVICE_LOST, 1)
    story.good(10)
    story.xid(10.5)
    story.good(11, 12, 13)
    assert story.codes == [XID]


def test_a_slow_call_is_no_reset() -> None:
    story = Story()
    story.xid(1)
    story.fails(ReadFault.UNRESPONSIVE, 2)
    story.good(10, 11, 12)
    assert story.codes == [XID]


def test_the_same_fault_again_is_no_change() -> None:
    story = Story()
    assert story.fails(ReadFault.UNRESPONSIVE, 1)
    assert not story.fails(ReadFault.UNRESPONSIVE, 2)
    assert story.xid(3)
    assert not story.xid(4)
    assert story.health.snapshot().since == WALL + 1


@pytest.mark.parametrize("change", [{"recover_reads": 0}, {"fail_reads": 0}, {"quiet_seconds": 0}])
def test_a_policy_that_makes_no_sense_is_rejected(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="health"):
        HealthPolicy(**change)


def test_what_needs_a_reset_is_not_forgiven_for_being_quiet() -> None:
    story = Story()
    story.xid(10, "Xid 79", Recovery.RESET)
    story.good(11, 12, 13, 611, 100_000)
    assert story.codes == [XID]
    story.fails(ReadFault.RESET_REQUIRED, 100_001)
    story.good(100_002, 100_003, 100_004)
    assert story.codes == []


def test_what_needs_a_reset_is_not_talked_away_by_what_does_not() -> None:
    story = Story()
    story.xid(10, "Xid 63")
    assert story.xid(11, "Xid 79", Recovery.RESET)
    assert not story.xid(12, "Xid 63")
    assert story.health.snapshot().reasons == (HealthReason(XID, "Xid 79", WALL + 10, Recovery.RESET),)


def test_an_acknowledgment_forgives_what_came_before_it() -> None:
    story = Story()
    story.xid(10, "Xid 79", Recovery.RESET)
    story.xid(20, "Xid 79", Recovery.RESET)
    assert not story.health.acknowledge(WALL + 19, 30, WALL + 30), "it happened again since"
    assert story.health.acknowledge(WALL + 20, 31, WALL + 31)
    assert story.health.snapshot() == HealthSnapshot(HealthState.HEALTHY, (), WALL + 31)
    assert not story.health.acknowledge(WALL + 20, 32, WALL + 32)
    story.xid(40, "Xid 79", Recovery.RESET)
    assert not story.health.acknowledge(WALL + 20, 41, WALL + 41)


def test_an_acknowledgment_does_not_hide_what_is_still_seen() -> None:
    story = Story()
    story.shows(ECC_UNCORRECTED, 2)
    story.fails(ReadFault.DEVICE_LOST, 1)
    assert not story.health.acknowledge(WALL + 1000, 1000, WALL + 1000)
    assert story.codes == ["DeviceLost", "EccUncorrected"]


@pytest.mark.parametrize("level", ALL_THRESHOLDS.values(), ids=ALL_THRESHOLDS)
def test_threshold_begins_and_ends_after_consecutive_readings(level: Threshold) -> None:
    story = Story()

    def standing() -> list[str]:
        return story.codes if level.fault else story.warned

    assert not any(story.shows(level, *[1] * (level.rise - 1), 0, *[1] * (level.rise - 1)))
    assert standing() == []
    story.shows(level, 0)
    assert story.shows(level, *[1] * level.rise)[-1]
    assert standing() == [level.code]
    assert story.health.snapshot().state is (HealthState.UNHEALTHY if level.fault else HealthState.HEALTHY)
    assert not any(story.shows(level, *[0] * (level.fall - 1), 1, *[0] * (level.fall - 1)))
    assert standing() == [level.code]
    assert story.shows(level, 0) == [True]
    assert standing() == []
    assert story.health.snapshot().state is HealthState.HEALTHY


def test_rising_count_is_reported_and_keeps_its_time() -> None:
    story = Story()
    assert story.shows(ECC_UNCORRECTED, 1, 1, 3) == [True, False, True]
    (reason,) = story.health.snapshot().reasons
    assert (reason.message, reason.since) == ("uncorrected memory errors since the last reset: 3", WALL)


def test_good_reads_end_no_level() -> None:
    story = Story()
    story.shows(ECC_UNCORRECTED, 1)
    story.good(*range(1000))
    assert story.codes == ["EccUncorrected"]


def past(*reasons: HealthReason, since: float | None = None) -> HealthSnapshot:
    faults = tuple(reason for reason in reasons if reason.fault)
    warnings = tuple(reason for reason in reasons if not reason.fault)
    return HealthSnapshot(HealthState.UNHEALTHY if faults else HealthState.HEALTHY, faults, since, warnings)


def test_a_restart_keeps_an_event_with_its_time_and_what_ends_it() -> None:
    lasting = HealthReason(XID, "Xid 79", WALL - 500, Recovery.RESET)
    story = Story()
    story.good(1, 2, 3)
    assert story.health.restore(past(lasting, since=WALL - 600), WALL - 1, 4, WALL + 4)
    assert story.health.snapshot() == HealthSnapshot(HealthState.UNHEALTHY, (lasting,), WALL - 600)
    story.good(5, 6, 7, 10_000)
    assert story.codes == [XID]
    assert not story.health.acknowledge(WALL - 2, 10_000, WALL + 10_000), (
        "it may have come again before the last report"
    )
    assert story.health.acknowledge(WALL - 1, 10_000, WALL + 10_000)


def test_restart_begins_the_quiet_time_again() -> None:
    story = Story()
    story.health.restore(past(HealthReason(XID, "Xid 63", WALL - 500)), WALL - 1, 0, WALL)
    story.good(1, 2, 3, 599)
    assert story.codes == [XID]
    story.good(600)
    assert story.codes == []


def test_a_device_that_was_lost_before_the_restart_and_answers_now_was_reset() -> None:
    story = Story()
    lost = HealthReason("DeviceLost", "gone", WALL - 500, Recovery.RESET)
    story.health.restore(past(lost, HealthReason(XID, "Xid 79", WALL - 500, Recovery.RESET)), WALL - 1, 0, WALL)
    assert story.codes == ["DeviceLost", XID]
    story.good(1, 2)
    assert story.codes == ["DeviceLost", XID]
    story.good(3)
    assert story.codes == []


def test_a_device_that_may_only_have_been_slow_was_not_reset() -> None:
    story = Story()
    story.health.failed_read(ReadFault.DEVICE_LOST, "not listed", WALL, sure=False)
    story.health.restore(past(HealthReason(XID, "Xid 79", WALL - 500, Recovery.RESET)), WALL - 1, 0, WALL)
    story.good(1, 2, 3)
    assert story.codes == [XID]


def test_thresholds_after_restart_need_readings_and_keep_since() -> None:
    story = Story()
    ecc = HealthReason("EccUncorrected", "2", WALL - 500, Recovery.RESET)
    pending = HealthReason("RowRemapPending", "", WALL - 400, Recovery.RESET, fault=False)
    story.shows(ECC_UNCORRECTED, 2)
    assert story.health.restore(past(ecc, pending), WALL - 1, 0, WALL)
    assert story.warned == []
    story.shows(ROW_REMAP_PENDING, 1)
    assert [reason.since for reason in story.health.snapshot().reasons] == [WALL - 500]
    assert [reason.since for reason in story.health.snapshot().warnings] == [WALL - 400]
    denied = Story()
    denied.health.restore(past(ecc), WALL - 1, 0, WALL)
    denied.shows(ECC_UNCORRECTED, 0, 1)
    assert [reason.since for reason in denied.health.snapshot().reasons] == [WALL + 1], "another one"


def test_current_faults_are_not_replaced_by_restored_ones() -> None:
    story = Story()
    story.xid(5, "Xid 95", Recovery.RESET)
    assert not story.health.restore(past(HealthReason(XID, "Xid 63", WALL - 500)), WALL - 1, 6, WALL)
    assert [reason.message for reason in story.health.snapshot().reasons] == ["Xid 95"]
