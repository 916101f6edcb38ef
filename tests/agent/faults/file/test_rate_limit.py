"""How often the file may be written."""

from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.faults.file.rate_limit import INTERVAL_SECONDS, MAX_URGENT, SPACING_SECONDS, SlidingWindowLimiter
from gpufleet_testing.hypothesis_profiles import examples


def played(demands: list[tuple[float, bool]]) -> list[tuple[float, bool]]:
    """When it is written, given that at these times something came up: seconds since the one before, and urgent."""
    pace, now, writes = SlidingWindowLimiter(), 1000.0, []
    for wait, urgent in demands:
        now = max(now + wait, pace.due(urgent=urgent))
        pace.started(now, urgent=urgent)
        writes.append((now, urgent))
    return writes


def test_first_faults_are_immediate_and_repeated_ones_delayed() -> None:
    urgent = [at - 1000 for at, _ in played([(0, True)] * (MAX_URGENT + 2))]
    assert urgent == [index * SPACING_SECONDS for index in range(MAX_URGENT)] + [11.25, 21.25]
    lazy = [at - 1000 for at, _ in played([(0, True), *[(0.06, False)] * 3])]
    assert lazy == [0, 10, 20, 30]


@examples(30)
@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=60))
def test_at_most_twelve_writes_in_any_minute(demands: list[tuple[float, bool]]) -> None:
    times = [at for at, _ in played(demands)]
    for index, at in enumerate(times):
        assert sum(at <= other < at + 60 - 1e-6 for other in times[index:]) <= 2 * MAX_URGENT


@examples(30)
@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=60))
def test_nothing_waits_longer_than_for_a_lazy_write(demands: list[tuple[float, bool]]) -> None:
    pace, now = SlidingWindowLimiter(), 0.0
    for wait, urgent in demands:
        now += wait
        due = max(now, pace.due(urgent=urgent))
        assert due - now <= INTERVAL_SECONDS + 1e-6
        now = due
        pace.started(now, urgent=urgent)


def test_after_a_failure_it_is_tried_again_in_ten_seconds() -> None:
    pace = SlidingWindowLimiter()
    pace.started(0, urgent=True)
    pace.failed(3)
    assert pace.due(urgent=True) == pace.due(urgent=False) == 13
