"""When the driver is reopened for devices that are gone."""

from gpufleet_agent.sampling.reopen_timer import ReopenTimer


def times(absence: ReopenTimer, gone: range, until: int) -> list[int]:
    """The seconds at which it is over, looked at each second."""
    return [now for now in range(1, until) if absence.is_due(now, missing=now in gone)]


def test_the_time_counts_from_the_loss_and_not_from_the_opening() -> None:
    assert times(ReopenTimer(60, 60, 0), range(58, 500), 121) == [118, 119, 120]


def test_a_device_that_comes_back_by_itself_needs_no_opening() -> None:
    assert not times(ReopenTimer(60, 60, 0), range(58, 110), 500)


def test_what_was_gone_from_the_start_is_counted_from_there() -> None:
    assert times(ReopenTimer(60, 60, 0), range(1, 500), 62) == [60, 61]


def test_the_wait_stays_long_until_all_were_there_for_as_long() -> None:
    flapping = ReopenTimer(240, 60, 0)
    assert not times(flapping, range(100, 300), 301)
    assert flapping.wait == 240
    steady = ReopenTimer(240, 60, 0)
    assert times(steady, range(300, 500), 400) == list(range(360, 400))
    assert steady.wait == 60
