"""When objects are looked at again although nothing changed."""

from datetime import timedelta

from gpufleet_operator.decide.incremental.kept import Moments, Refresh
from gpufleet_operator.model.cluster.changes import SubjectKind
from gpufleet_testing.operator import make

ONE, TWO = (SubjectKind.POD, "one"), (SubjectKind.NODE, "two")


def after(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def test_moment_that_was_replaced_does_not_come() -> None:
    moments = Moments()
    moments.set(ONE, make.NOW + after(1))
    moments.set(TWO, make.NOW + after(2))
    moments.set(ONE, make.NOW + after(5))

    assert list(moments.take(make.NOW + after(3))) == [TWO]
    assert moments.next() == make.NOW + after(5)


def test_moment_that_was_removed_does_not_come() -> None:
    moments = Moments()
    moments.set(ONE, make.NOW)
    moments.set(ONE, None)

    assert moments.next() is None
    assert list(moments.take(make.NOW)) == []


def test_all_gated_workloads_are_seen_within_an_interval_in_small_parts() -> None:
    refresh, uids = Refresh(), [f"w{number}" for number in range(100)]
    refresh.look_at(uids, set(uids), make.NOW)
    refresh.due(make.NOW + after(9.9))
    now, seen, most = make.NOW + after(10), set[str](), 0
    for _ in range(100):
        found = refresh.due(now)
        refresh.look_at(found, found, now)
        seen |= found
        most = max(most, len(found))
        now += after(0.2)

    assert seen == set(uids)
    assert most <= 1 + 100 * 0.2 / 10


def test_workload_without_a_gated_pod_is_not_refreshed() -> None:
    refresh = Refresh()
    refresh.look_at(["w"], {"w"}, make.NOW)
    refresh.look_at(["w"], set(), make.NOW + after(1))

    assert refresh.next() is None
    assert refresh.due(make.NOW + after(60)) == set()
