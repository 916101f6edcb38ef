import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from gpufleet_agent.sampling.read_schedule import ReadSchedule, next_due
from gpufleet_agent.sampling.timing import Timing

TIMING = Timing(sample=0.02, slow=0.05)


class Calls:
    """What the thread did, and when; `until` blocks the test until it did so much."""

    def __init__(self) -> None:
        self.made: list[tuple[str, float]] = []
        self._made = threading.Condition()

    def of(self, kind: str) -> Callable[[], None]:
        def call() -> None:
            with self._made:
                self.made.append((kind, time.monotonic()))
                self._made.notify_all()

        return call

    def until(self, count: int) -> None:
        with self._made:
            assert self._made.wait_for(lambda: len(self.made) >= count, timeout=10)


def test_a_slow_read_comes_first_and_then_as_often_as_it_should() -> None:
    calls = Calls()
    rounds = ReadSchedule(calls.of("read"), calls.of("slow"), TIMING)
    thread = threading.Thread(target=rounds.run)
    thread.start()
    calls.until(20)
    rounds.stop()
    thread.join(10)
    assert not thread.is_alive()
    kinds = [kind for kind, _ in calls.made]
    assert kinds[:2] == ["slow", "read"]
    slow = [at for kind, at in calls.made if kind == "slow"]
    assert len(slow) > 2
    assert all(later - earlier >= TIMING.slow for earlier, later in pairwise(slow))
    assert rounds.in_call_since is None


def test_devices_are_read_at_the_same_moments() -> None:
    calls = Calls()
    timing = Timing(sample=0.2, slow=60)
    both = [ReadSchedule(calls.of(name), lambda: None, timing) for name in ("a", "b")]
    threads = [threading.Thread(target=rounds.run) for rounds in both]
    for thread in threads:
        thread.start()
    calls.until(12)
    for rounds, thread in zip(both, threads, strict=True):
        rounds.stop()
        thread.join(10)
    for name in ("a", "b"):
        later = [at for kind, at in calls.made if kind == name][1:]
        # The first is at once. Others may come late, on a busy machine, but not all of them.
        assert min(at % timing.sample for at in later) < timing.sample / 10


def test_call_counts_from_due_time_and_none_begins_after_stop() -> None:
    gate, calls = threading.Event(), Calls()

    def stuck() -> None:
        calls.of("slow")()
        assert gate.wait(10)

    before = time.monotonic()
    rounds = ReadSchedule(calls.of("read"), stuck, TIMING)
    since = rounds.in_call_since
    assert since is not None
    assert since >= before, "the thread may be stuck in an earlier call"
    thread = threading.Thread(target=rounds.run)
    thread.start()
    calls.until(1)
    began = rounds.in_call_since
    assert began is not None
    assert began >= since
    rounds.stop()
    assert rounds.stopped
    gate.set()
    thread.join(10)
    assert [kind for kind, _ in calls.made] == ["slow"]


def test_what_a_read_raises_ends_the_rounds() -> None:
    def fail() -> None:
        raise ZeroDivisionError("a defect")

    rounds = ReadSchedule(fail, lambda: None, TIMING)
    with pytest.raises(ZeroDivisionError):
        rounds.run()
    assert rounds.in_call_since is None


@pytest.mark.parametrize(
    ("due", "now", "want"),
    [(10.0, 10.2, 11.0), (10.0, 11.0, 12.0), (10.0, 13.7, 14.0), (9.5, 10.0, 10.5)],
)
def test_missed_turns_are_skipped(due: float, now: float, want: float) -> None:
    assert next_due(due, now, 1.0) == pytest.approx(want)
