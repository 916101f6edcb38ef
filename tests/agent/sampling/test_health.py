import pytest

from gpufleet_agent.sampling.health import Fault, Health, HealthPolicy
from gpufleet_agent.sampling.view import HealthReason, HealthState, HealthView

POLICY = HealthPolicy(recover_reads=3, fail_reads=3, quiet_seconds=600)
WALL = 1_000_000.0
XID = "XidError"


class Story:
    """A device's life, told in seconds from 0."""

    def __init__(self) -> None:
        self.health = Health(POLICY)

    def good(self, *seconds: float) -> bool:
        return [self.health.good_read(second, WALL + second) for second in seconds][-1]

    def fails(self, fault: Fault, second: float) -> bool:
        return self.health.failed_read(fault, "broken", WALL + second)

    def xid(self, second: float, message: str = "Xid 79") -> bool:
        return self.health.event(XID, message, second, WALL + second)

    @property
    def codes(self) -> list[str]:
        return [reason.code for reason in self.health.view().reasons]


def test_a_new_device_is_healthy() -> None:
    assert Story().health.view() == HealthView(HealthState.HEALTHY)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.READ_FAILED])
def test_one_clear_word_is_enough_to_fall_and_three_good_reads_to_rise(fault: Fault) -> None:
    story = Story()
    assert story.fails(fault, 5)
    assert story.health.view() == HealthView(
        HealthState.UNHEALTHY, (HealthReason(fault.value, "broken", WALL + 5),), WALL + 5
    )
    assert not story.good(6, 7)
    assert story.codes == [fault.value]
    assert story.good(8)
    assert story.health.view() == HealthView(HealthState.HEALTHY, (), WALL + 8)


def test_good_reads_must_come_in_a_row() -> None:
    story = Story()
    story.fails(Fault.DEVICE_LOST, 0)
    story.good(1, 2)
    assert not story.fails(Fault.DEVICE_LOST, 3), "it stands already"
    story.good(4, 5)
    assert story.codes == ["DeviceLost"]
    story.good(6)
    assert story.codes == []


def test_a_failure_of_no_special_meaning_counts_from_the_third_in_a_row() -> None:
    story = Story()
    assert not story.fails(Fault.READ_FAILED, 0)
    assert not story.fails(Fault.READ_FAILED, 1)
    story.good(2)
    assert not story.fails(Fault.READ_FAILED, 3)
    assert not story.fails(Fault.READ_FAILED, 4)
    assert story.fails(Fault.READ_FAILED, 5)
    assert story.codes == ["ReadFailed"]


def test_an_event_stands_through_good_reads_until_it_has_been_quiet_long_enough() -> None:
    story = Story()
    story.good(0)
    assert story.xid(10)
    story.good(11, 12, 13, 14, 609.9)
    assert story.codes == [XID]
    assert story.good(610)
    assert story.codes == []


def test_another_event_starts_the_quiet_time_anew_and_keeps_the_time_of_the_first() -> None:
    story = Story()
    story.xid(10)
    assert story.xid(300, "Xid 48")
    story.good(301, 302, 303, 610)
    assert story.health.view().reasons == (HealthReason(XID, "Xid 48", WALL + 10),)
    story.good(900)
    assert story.codes == []


def test_a_device_that_comes_back_from_loss_has_been_reset_and_its_events_are_forgiven() -> None:
    story = Story()
    story.fails(Fault.DEVICE_LOST, 1)
    story.xid(2)
    assert story.codes == ["DeviceLost", XID]
    story.good(10, 11, 12)
    assert story.health.view() == HealthView(HealthState.HEALTHY, (), WALL + 12)


def test_an_event_after_the_device_came_back_is_not_forgiven() -> None:
    story = Story()
    story.fails(Fault.DEVICE_LOST, 1)
    story.good(10)
    story.xid(10.5)
    story.good(11, 12, 13)
    assert story.codes == [XID]


def test_a_slow_call_is_no_reset() -> None:
    story = Story()
    story.xid(1)
    story.fails(Fault.UNRESPONSIVE, 2)
    story.good(10, 11, 12)
    assert story.codes == [XID]


def test_the_same_fault_again_is_no_change() -> None:
    story = Story()
    assert story.fails(Fault.UNRESPONSIVE, 1)
    assert not story.fails(Fault.UNRESPONSIVE, 2)
    assert story.xid(3)
    assert not story.xid(4)
    assert story.health.view().since == WALL + 1


@pytest.mark.parametrize("change", [{"recover_reads": 0}, {"fail_reads": 0}, {"quiet_seconds": 0}])
def test_a_policy_that_makes_no_sense_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="health"):
        HealthPolicy(**change)
