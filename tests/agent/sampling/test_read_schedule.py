import math
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from gpufleet_agent.sampling import read_schedule
from gpufleet_agent.sampling.read_schedule import ReadSchedule, ScheduleGroup, next_due
from gpufleet_agent.sampling.timing import Timing
from gpufleet_testing.agent.sampling import until

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
        lead = read_schedule._LEAD * timing.sample
        assert min((at + lead) % timing.sample for at in later) < timing.sample / 10


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


def test_one_thread_reads_all_devices_that_are_due() -> None:
    calls, peers = Calls(), ScheduleGroup()
    first, *others = (ReadSchedule(calls.of(name), calls.of("slow"), Timing(sample=60), peers) for name in "abc")
    first.read_if_due()
    peers.read_others(first)
    peers.read_others(others[0])
    assert [kind for kind, _ in calls.made] == ["slow", "a", "slow", "b", "slow", "c"], "each once"
    assert [schedule.in_call_since for schedule in (first, *others)] == [None] * 3


def test_device_in_a_call_is_skipped_and_its_call_stays_overdue() -> None:
    """The call may be of an earlier schedule of the device, in the thread of another device."""
    calls, peers, stuck = Calls(), ScheduleGroup(), threading.Lock()
    first = ReadSchedule(calls.of("a"), lambda: None, TIMING, peers)
    again = ReadSchedule(calls.of("b"), lambda: None, TIMING, peers, stuck)
    with stuck:
        peers.read_others(first)
        again.read_if_due()
        assert again.in_call_since is not None
    assert calls.made == []
    peers.read_others(first)
    assert [kind for kind, _ in calls.made] == ["b"]


def test_threads_read_the_rest_while_the_first_is_stuck_in_another_device() -> None:
    gate, calls, peers = threading.Event(), Calls(), ScheduleGroup()

    def stuck() -> None:
        calls.of("stuck")()
        assert gate.wait(10)

    reads = {"a": calls.of("a"), "stuck": stuck, "c": calls.of("c")}
    schedules = [ReadSchedule(read, lambda: None, TIMING, peers) for read in reads.values()]
    threads = [threading.Thread(target=schedule.run) for schedule in schedules]
    # The first thread begins alone, so it is the one that gets stuck.
    threads[0].start()
    calls.until(2)
    assert [kind for kind, _ in calls.made] == ["a", "stuck"]
    for thread in threads[1:]:
        thread.start()
    calls.until(20)
    later = [kind for kind, _ in calls.made][2:]
    assert set(later) == {"a", "c"}
    assert min(later.count("a"), later.count("c")) >= 5
    for schedule in schedules:
        schedule.stop()
    threads[1].join(10)
    assert threads[0].is_alive(), "it is in a call, so the driver must not be closed"
    gate.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_only_two_threads_wake_up_in_each_interval() -> None:
    peers = ScheduleGroup()
    timing = Timing(sample=1)
    schedules = [ReadSchedule(lambda: None, lambda: None, timing, peers) for _ in range(4)]
    for schedule in schedules:
        schedule.read_if_due()

    def waits() -> list[int]:
        """Returns the intervals after which each thread wakes up, rounded up."""
        now = time.monotonic()
        return [math.ceil(schedule._seconds_to_wait(now)) for schedule in schedules]

    first, second, *spare = waits()
    assert first == 1
    assert second in {1, 2}, "a little later"
    assert all(intervals > 5 for intervals in spare)
    schedules[0].reading = True
    assert waits()[2] in {1, 2}, "the second is the first now, because the first may be stuck"
    schedules[0].stop()
    assert waits()[1] == 1


def test_all_threads_but_the_stuck_ones_help_when_several_are_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_schedule, "_SPARE", 10**6)  # a thread that is not woken never reads again
    calls, peers, gate, sticks = Calls(), ScheduleGroup(), threading.Event(), threading.Event()

    def sticky(name: str) -> Callable[[], None]:
        def read() -> None:
            calls.of(name)()
            if sticks.is_set():
                assert gate.wait(20)

        return read

    reads = [sticky("a"), sticky("b"), calls.of("c"), calls.of("d")]
    schedules = [ReadSchedule(read, lambda: None, TIMING, peers) for read in reads]
    threads = [threading.Thread(target=schedule.run) for schedule in schedules]
    for thread in threads:
        thread.start()
    calls.until(40)
    sticks.set()
    calls.until(200)
    later = [kind for kind, _ in calls.made][100:]
    assert set(later) == {"c", "d"}
    assert sum(thread.is_alive() for thread in threads) == 4
    gate.set()
    for schedule in schedules:
        schedule.stop()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_error_is_raised_in_the_thread_of_its_device() -> None:
    def fail() -> None:
        raise ZeroDivisionError("a defect")

    calls, peers = Calls(), ScheduleGroup()
    failing = ReadSchedule(fail, lambda: None, TIMING, peers)
    first, last = (ReadSchedule(calls.of(name), lambda: None, TIMING, peers) for name in "ac")
    peers.read_others(first)
    assert [kind for kind, _ in calls.made] == ["c"]
    assert failing.stopped
    with pytest.raises(ZeroDivisionError):
        failing.run()
    assert not last.stopped


def test_stopped_schedule_is_not_read_and_reads_no_others() -> None:
    calls, peers = Calls(), ScheduleGroup()
    first, second = (ReadSchedule(calls.of(name), lambda: None, TIMING, peers) for name in "ab")
    second.stop()
    peers.read_others(first)
    first.stop()
    third = ReadSchedule(calls.of("c"), lambda: None, TIMING, peers)
    peers.read_others(first)
    assert calls.made == []
    assert peers.rank(third) == 0


def test_thread_of_a_device_in_a_call_looks_once_per_interval() -> None:
    looks = 0

    class CountingGroup(ScheduleGroup):
        def read_others(self, schedule: ReadSchedule) -> None:
            nonlocal looks
            looks += schedule is waiting
            super().read_others(schedule)

    calls, peers, stuck = Calls(), CountingGroup(), threading.Lock()
    reading = ReadSchedule(calls.of("a"), lambda: None, TIMING, peers)
    waiting = ReadSchedule(calls.of("b"), lambda: None, TIMING, peers, stuck)
    threads = [threading.Thread(target=schedule.run) for schedule in (reading, waiting)]
    with stuck:
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        calls.until(20)
        seen, seconds = looks, time.monotonic() - begin
    for schedule, thread in zip((reading, waiting), threads, strict=True):
        schedule.stop()
        thread.join(10)
    assert 0 < seen <= seconds / TIMING.sample + 2


class LateRound:
    """Three devices whose threads wait for a whole day, unless they are woken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(read_schedule, "_SPARE", 10**6)
        self.calls, self.peers = Calls(), ScheduleGroup(watched=True)
        self.gate, self.sticks, self.stuck = (threading.Event() for _ in range(3))
        reads = {"a": self.calls.of("a"), "b": self._sticky, "c": self.calls.of("c")}
        self.schedules = [ReadSchedule(read, lambda: None, TIMING, self.peers) for read in reads.values()]
        self.threads = [threading.Thread(target=schedule.run) for schedule in self.schedules]

    def _sticky(self) -> None:
        self.calls.of("b")()
        if self.sticks.is_set():
            self.stuck.set()
            assert self.gate.wait(20)

    def end(self) -> None:
        self.gate.set()
        for schedule in self.schedules:
            schedule.stop()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()


async def test_rest_is_read_by_a_woken_thread_while_the_first_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    late = LateRound(monkeypatch)
    for thread in late.threads:
        thread.start()
    late.calls.until(30)
    late.sticks.set()
    assert late.stuck.wait(10)
    await until(lambda: late.schedules[2].is_due(time.monotonic()))
    seen = len(late.calls.made)
    late.peers.wake_if_late()
    late.calls.until(seen + 20)
    assert {kind for kind, _ in late.calls.made[seen:]} == {"a", "c"}
    late.end()


async def test_thread_that_has_not_begun_is_not_woken_for_late_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of an earlier schedule is stuck in it."""
    late = LateRound(monkeypatch)
    for thread in late.threads[1:]:
        thread.start()
    late.calls.until(3)
    for _ in range(10):
        await until(lambda: all(each.is_due(time.monotonic()) and not each.reading for each in late.schedules))
        seen = len(late.calls.made)
        late.peers.wake_if_late()
        late.calls.until(seen + 3)
    late.threads[0].start()
    late.end()


def test_no_thread_is_woken_if_no_device_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    late = LateRound(monkeypatch)
    for schedule in late.schedules[:2]:
        schedule.read_if_due()
    late.schedules[2].stop()
    woken: list[ReadSchedule] = []
    monkeypatch.setattr(ReadSchedule, "wake", lambda schedule: woken.append(schedule))  # noqa: PLW0108 - a method
    monkeypatch.setattr(ReadSchedule, "free", True)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    late.peers.wake_if_late()
    assert woken == []
    monkeypatch.setattr(time, "monotonic", lambda: math.inf)
    late.peers.wake_if_late()
    assert woken == late.schedules[:1]
