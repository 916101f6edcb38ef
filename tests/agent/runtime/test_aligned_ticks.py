import pytest

from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick


@pytest.mark.parametrize(
    ("now", "interval", "want"),
    [(100.25, 1.0, 0.75), (100.0, 1.0, 1.0), (103.0, 5.0, 2.0), (7.5, 0.5, 0.5), (0.0, 60.0, 60.0)],
)
def test_the_next_whole_multiple_and_never_now(now: float, interval: float, want: float) -> None:
    assert seconds_to_next_tick(now, interval) == want


def test_loops_that_wait_for_it_come_round_together() -> None:
    assert {now + seconds_to_next_tick(now, 1.0) for now in (3.0, 3.2, 3.97)} == {4.0}
