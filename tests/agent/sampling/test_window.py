import statistics
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.devices.base import Sample
from gpufleet_agent.sampling.snapshot import Statistics
from gpufleet_agent.sampling.window import MAX_SAMPLES, SampleWindow

UUID = "GPU-1"

values = st.none() | st.integers(-273, 2**40)
steps = st.lists(st.tuples(st.floats(0, 7), values, values), max_size=80)


def sample(utilization: int | None = None, temperature: int | None = None) -> Sample:
    return Sample(uuid=UUID, taken_at=0.0, utilization_percent=utilization, temperature_celsius=temperature)


def brute_force(numbers: Sequence[int | None]) -> Statistics | None:
    present = sorted(number for number in numbers if number is not None)
    if not present:
        return None
    rank = next(n for n in range(1, len(present) + 1) if n * 100 >= len(present) * 95)
    return Statistics(statistics.fmean(present), present[-1], present[rank - 1])


@given(steps=steps, seconds=st.floats(0.5, 30), capacity=st.integers(1, 40), later=st.floats(0, 40))
def test_window_statistics_equal_those_of_a_sorted_list(
    steps: list[tuple[float, int | None, int | None]], seconds: float, capacity: int, later: float
) -> None:
    window = SampleWindow(seconds=seconds, capacity=capacity)
    now = 1000.0
    taken: list[tuple[float, int | None, int | None]] = []
    for step, utilization, temperature in steps:
        now += step
        window.append(sample(utilization, temperature), now)
        taken.append((now, utilization, temperature))
    now += later

    stats = window.stats(now)

    expected = [entry for entry in taken if entry[0] >= now - seconds][-capacity:]
    assert len(window) == len(expected)
    if not expected:
        assert stats is None
        return
    assert stats is not None
    assert stats.samples == len(expected)
    assert stats.seconds == expected[-1][0] - expected[0][0]
    for got, want in (
        (stats.utilization_percent, brute_force([entry[1] for entry in expected])),
        (stats.temperature_celsius, brute_force([entry[2] for entry in expected])),
    ):
        if want is None:
            assert got is None
        else:
            assert got is not None
            assert (got.max, got.p95) == (want.max, want.p95)
            assert got.mean == pytest.approx(want.mean, rel=1e-9, abs=1e-6)


def test_an_empty_window_has_no_mean() -> None:
    assert SampleWindow(seconds=60, capacity=10).stats(0.0) is None


def test_a_quantity_that_no_sample_carried_is_absent_not_zero() -> None:
    window = SampleWindow(seconds=60, capacity=10)
    window.append(sample(utilization=0), 1.0)
    stats = window.stats(1.0)
    assert stats is not None
    assert stats.utilization_percent == Statistics(0.0, 0, 0)
    assert stats.temperature_celsius is None
    assert stats.power_milliwatts is None
    assert stats.memory_used_mib is None


def test_window_without_samples_becomes_empty() -> None:
    window = SampleWindow(seconds=60, capacity=10)
    window.append(sample(50), 0.0)
    assert window.stats(60.0) is not None
    assert window.stats(60.5) is None
    assert len(window) == 0


def test_asking_again_computes_nothing_until_something_changes() -> None:
    window = SampleWindow(seconds=60, capacity=10)
    window.append(sample(50), 0.0)
    first = window.stats(1.0)
    assert window.stats(2.0) is first
    window.append(sample(60), 3.0)
    assert window.stats(3.0) is not first


@pytest.mark.parametrize(("seconds", "capacity"), [(0, 1), (-1, 1), (1, 0), (1, MAX_SAMPLES + 1)])
def test_a_window_that_can_hold_nothing_is_rejected(seconds: float, capacity: int) -> None:
    with pytest.raises(ValueError, match=r"(window|capacity): .*must be"):
        SampleWindow(seconds=seconds, capacity=capacity)


def test_a_window_takes_its_memory_once() -> None:
    window = SampleWindow(seconds=60, capacity=64)

    def buffers() -> list[tuple[int, int]]:
        rings = [series._ring.buffer_info() for series in window._series]
        return rings + [(series._ordered.buffer_info()[0], 0) for series in window._series]

    for second in range(100):
        window.append(sample(second % 100, second % 7), float(second))
    before = buffers()
    for second in range(100, 1000):
        window.append(sample(second % 100, second % 7), float(second))
    assert buffers() == before
    assert len(window) == 61


def test_aggregates_of_an_hour_are_made_without_copying_it() -> None:
    window = SampleWindow(seconds=3600, capacity=3602)
    for second in range(4000):
        window.append(sample(second % 101, second % 50), float(second))
    tracemalloc.start()
    try:
        stats = window.stats(3999.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stats is not None
    assert stats.samples == 3601
    assert peak < 3601, "bytes: less than one for each sample"


def test_a_gap_as_long_as_the_window_leaves_the_sample_after_it_alone() -> None:
    window = SampleWindow(seconds=60, capacity=10)
    for second in range(20):
        window.append(sample(90), float(second))
    window.append(sample(10), 100.0)
    stats = window.stats(100.0)
    assert stats is not None
    assert (stats.samples, stats.seconds) == (1, 0.0)
    assert stats.utilization_percent == Statistics(10.0, 10, 10)
