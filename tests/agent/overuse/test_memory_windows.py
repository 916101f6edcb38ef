"""What holders use of shared memory: the last value, the maximum of ten minutes, and since when that is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.overuse.memory_usage import MemoryUsage
from gpufleet_agent.overuse.memory_windows import (
    BUCKET_SECONDS,
    GAP_SECONDS,
    WINDOW_SECONDS,
    MemoryWindows,
    ObservedMemory,
)
from gpufleet_agent.podresources.listing import ContainerKey

EPOCH = 1_800_000_000.0
A = ("GPU-0", "uid-a")


def use(used_mib: int | None, pod: str = "a") -> MemoryUsage:
    return MemoryUsage("GPU-0", 0, ContainerKey("ml", pod, "main"), f"uid-{pod}", 1000, used_mib)


def record(windows: MemoryWindows, now: float, *usages: MemoryUsage) -> None:
    windows.record(usages, now=now, wall=EPOCH + now)


def test_window_has_the_last_value_the_maximum_and_its_start() -> None:
    windows = MemoryWindows()
    for now, used_mib in ((0, 500), (5, 900), (10, 700)):
        record(windows, now, use(used_mib), use(1, "b"))

    assert windows.observed()[A] == ObservedMemory(700, 900, EPOCH)
    assert windows.observed()["GPU-0", "uid-b"] == ObservedMemory(1, 1, EPOCH)


@pytest.mark.parametrize(
    ("seconds", "maximum"),
    [(WINDOW_SECONDS, 900), (WINDOW_SECONDS + 2 * BUCKET_SECONDS, 100)],
    ids=["within the window", "after it"],
)
def test_maximum_lasts_for_the_window(seconds: float, maximum: int) -> None:
    windows = MemoryWindows()
    record(windows, 0, use(900))
    for now in range(5, int(seconds) + 1, 5):
        record(windows, now, use(100))

    assert windows.observed()[A] == ObservedMemory(100, maximum, EPOCH)


def test_holder_that_ends_is_observed_from_the_beginning_when_it_returns() -> None:
    windows = MemoryWindows()
    record(windows, 0, use(900))
    record(windows, 5)
    assert windows.observed() == {}
    record(windows, 10, use(100))
    assert windows.observed()[A] == ObservedMemory(100, 100, EPOCH + 10)


@pytest.mark.parametrize(
    ("seconds", "since"),
    [(GAP_SECONDS, 0.0), (GAP_SECONDS + 5, GAP_SECONDS + 5)],
    ids=["a short gap", "a long one"],
)
def test_long_gap_ends_the_observation(seconds: float, since: float) -> None:
    windows = MemoryWindows()
    record(windows, 0, use(900))
    for now in range(5, int(seconds), 5):
        record(windows, now, use(None))
    record(windows, seconds, use(100))

    assert windows.observed()[A].since == EPOCH + since
    assert windows.observed()[A].max_mib == (900 if since == 0 else 100)


def test_holder_of_unknown_use_is_missing() -> None:
    windows = MemoryWindows()
    record(windows, 0, use(None))
    assert windows.observed() == {}


@given(st.lists(st.tuples(st.sampled_from((5.0, 20.0, 60.0)), st.integers(0, 1000)), min_size=1, max_size=60))
def test_maximum_covers_the_window_and_one_interval_at_most(course: list[tuple[float, int]]) -> None:
    windows, now, past = MemoryWindows(), 0.0, []
    for step, used_mib in course:
        now += step
        past.append((now, used_mib))
        record(windows, now, use(used_mib))

    within = max(mib for at, mib in past if at > now - WINDOW_SECONDS)
    beyond = max(mib for at, mib in past if at > now - WINDOW_SECONDS - BUCKET_SECONDS)
    assert within <= windows.observed()[A].max_mib <= beyond
