from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet_agent.publish.deadband import Significance
from gpufleet_agent.publish.rate_limit import WriteCause, WritePolicy, due_cause, first_write, next_write

POLICY = WritePolicy()
NONE, CHANGE, PICKABLE, URGENT = Significance


def writes(changes: list[Significance], *, step: float = 1.0, jitter: float = 0.0) -> list[tuple[float, WriteCause]]:
    """Feeds one significance per step. Returns the time and cause of each write. The first is at 0."""
    last, written = first_write(POLICY, 0.0, jitter), []
    for number, change in enumerate(changes, start=1):
        now = number * step
        cause = due_cause(POLICY, last, change, now)
        if cause is not None:
            written.append((now, cause))
            last = next_write(POLICY, last, now, jitter, cause=cause)
    return written


def test_at_rest_there_is_a_heartbeat_and_nothing_else() -> None:
    assert writes([NONE] * 95) == [
        (30.0, WriteCause.HEARTBEAT),
        (60.0, WriteCause.HEARTBEAT),
        (90.0, WriteCause.HEARTBEAT),
    ]


def test_jitter_only_ever_makes_the_heartbeat_later() -> None:
    assert writes([NONE] * 34, jitter=1.0) == [(33.0, WriteCause.HEARTBEAT)]


def test_one_change_is_written_at_once_and_puts_the_heartbeat_off() -> None:
    assert writes([NONE] * 9 + [CHANGE] + [NONE] * 30) == [(10.0, WriteCause.CHANGE), (40.0, WriteCause.HEARTBEAT)]


def test_continuous_changes_are_written_every_10_s_after_burst() -> None:
    times = [now for now, _ in writes([CHANGE] * 60)]
    assert times[:6] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert len(times) == 11
    assert all(later - earlier >= 9 for earlier, later in pairwise(times[6:]))


def test_continuous_changes_of_pickable_device_are_written_every_3_s() -> None:
    times = [now for now, _ in writes([PICKABLE] * 60)]
    assert times[:6] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert {later - earlier for earlier, later in pairwise(times[10:])} == {3.0}


@pytest.mark.parametrize("noise", [CHANGE, PICKABLE])
@given(st.integers(20, 60))
def test_cooling_device_is_written_in_time_next_to_noisy_ones(noise: Significance, cooled: int) -> None:
    # One second to the sample and one to the look at it are the agent's own; the rest of the five is this.
    written = writes([noise] * cooled + [PICKABLE] * 5)
    assert min(now for now, _ in written if now > cooled) <= cooled + POLICY.patience


def test_a_slow_answer_does_not_put_the_heartbeat_off() -> None:
    last = next_write(POLICY, first_write(POLICY, 0.0, 0.0), 58.0, 0.0, cause=WriteCause.HEARTBEAT, built=40.0)
    assert due_cause(POLICY, last, NONE, 69.0) is None
    assert due_cause(POLICY, last, NONE, 70.0) is WriteCause.HEARTBEAT


def test_what_is_urgent_does_not_wait_for_the_supply() -> None:
    times = [now for now, _ in writes([CHANGE] * 20 + [URGENT] * 3)]
    assert times[-3:] == [21.0, 22.0, 23.0]


@pytest.mark.parametrize("cause", [WriteCause.URGENT, WriteCause.HEARTBEAT])
def test_only_changes_of_readings_take_from_their_supply(cause: WriteCause) -> None:
    last = first_write(POLICY, 0.0, 0.0)
    for second in range(1, 60):
        last = next_write(POLICY, last, float(second), 0.0, cause=cause)
    assert last.tokens == POLICY.burst


def test_nothing_follows_a_write_within_the_shortest_interval() -> None:
    assert writes([URGENT] * 4, step=0.5) == [(1.0, WriteCause.URGENT), (2.0, WriteCause.URGENT)]


@settings(deadline=None)
@given(st.lists(st.sampled_from(Significance), min_size=130, max_size=130), st.floats(0, 1))
def test_writes_for_readings_use_tokens_and_heartbeats_continue(changes: list[Significance], jitter: float) -> None:
    written = writes(changes, jitter=jitter)
    for start in range(0, 120, 10):
        in_minute = [cause for now, cause in written if start < now <= start + 60]
        tokens = 60 / POLICY.patience if PICKABLE in changes else 60 / POLICY.refill
        assert in_minute.count(WriteCause.CHANGE) <= POLICY.burst + tokens
        assert in_minute.count(WriteCause.HEARTBEAT) <= 2
    times = [0.0, *(now for now, _ in written)]
    assert all(later - earlier <= 34 for earlier, later in pairwise(times))
