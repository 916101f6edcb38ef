"""Which runs are listed and count, and when a status is written."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.demand.gpu_demand import DemandRun, DemandStatus, RunState
from gpufleet_api.names import MAX_DEMAND_RUNS
from gpufleet_common import timestamps
from gpufleet_operator.demand.observe import ObservedRun
from gpufleet_operator.demand.runs import WRITE_INTERVAL, PodEnds, next_status
from gpufleet_testing.operator.make import NOW

MINIMUM = timedelta(minutes=10)
ASKED = 10_000


def seen(most: int, minutes: float = 20, *, started: float = 20) -> ObservedRun:
    """A run that started some minutes ago and was observed for some."""
    since = NOW - timedelta(minutes=started)
    return ObservedRun(since, since + timedelta(minutes=minutes), ASKED, most)


def run(uid: str, most: int, state: RunState = RunState.ENDED, *, started: float = 60) -> DemandRun:
    since = timestamps.micros(NOW - timedelta(minutes=started))
    return DemandRun(pod_uid=uid, since=since, state=state, promised_mib=ASKED, max_mib=most)


def stored(*runs: DemandRun, ago: timedelta = timedelta(hours=1), total: int = 0) -> DemandStatus:
    return DemandStatus(observed_at=timestamps.seconds(NOW - ago), total_runs=total, runs=list(runs))


def ends(*running: str, succeeded: tuple[str, ...] = ()) -> PodEnds:
    return PodEnds(frozenset(running), frozenset(succeeded))


def after(before: DemandStatus | None, observed: dict[str, ObservedRun], pods: PodEnds) -> DemandStatus | None:
    return next_status(before, observed, pods, now=NOW, minimum=MINIMUM)


def states(status: DemandStatus | None) -> dict[str, RunState]:
    assert status is not None
    return {one.pod_uid: one.state for one in status.runs}


def test_run_is_listed_immediately_and_counts_once_observed() -> None:
    young = after(None, {"a": seen(500, 2)}, ends("a"))
    assert states(young) == {"a": RunState.OBSERVING}
    assert young is not None
    assert (young.counted_runs, young.total_runs, young.max_mib, young.recommended_mib) == (0, 0, None, None)

    old = after(young, {"a": seen(500, 10)}, ends("a"))
    assert states(old) == {"a": RunState.RUNNING}
    assert old is not None
    assert (old.counted_runs, old.total_runs, old.promised_mib, old.max_mib) == (1, 1, ASKED, 500)
    assert (old.median_mib, old.p80_mib, old.recommended_mib) == (500, 500, 550)


@pytest.mark.parametrize(
    ("before", "succeeded", "others", "counts"),
    [
        pytest.param(RunState.RUNNING, False, 900, True, id="observed for long enough"),
        pytest.param(RunState.OBSERVING, True, 900, True, id="short, and its pod succeeded"),
        pytest.param(RunState.OBSERVING, False, 900, False, id="short, and it may have failed"),
        pytest.param(RunState.OBSERVING, False, 300, True, id="short, and it used more than all others"),
    ],
)
def test_end_of_a_run_counts_if_it_shows_what_is_needed(
    before: RunState, succeeded: bool, others: int, counts: bool
) -> None:
    status = stored(run("o", others), run("a", 500, before), total=2)
    found = after(status, {}, ends(succeeded=("a",) if succeeded else ()))
    assert states(found) == ({"o": RunState.ENDED, "a": RunState.ENDED} if counts else {"o": RunState.ENDED})


def test_run_that_used_nothing_never_counts() -> None:
    assert states(after(None, {"a": seen(0)}, ends("a"))) == {"a": RunState.OBSERVING}
    assert states(after(stored(run("a", 0, RunState.OBSERVING)), {}, ends(succeeded=("a",)))) == {}


def test_maximum_that_was_not_written_is_stored_at_the_end() -> None:
    found = after(stored(run("a", 500, RunState.RUNNING)), {"a": seen(560)}, ends())
    assert found is not None
    assert [one.max_mib for one in found.runs] == [560]


def test_pod_without_telemetry_keeps_its_run() -> None:
    assert after(stored(run("a", 500, RunState.RUNNING)), {}, ends("a")) is None


@pytest.mark.parametrize(
    ("most", "ago", "written"),
    [
        pytest.param(5064, timedelta(hours=1), False, id="within 64 MiB"),
        pytest.param(5101, timedelta(hours=1), True, id="more than two percent"),
        pytest.param(9000, WRITE_INTERVAL - timedelta(seconds=1), False, id="written a moment ago"),
        pytest.param(9000, WRITE_INTERVAL, True, id="later"),
        pytest.param(100, timedelta(hours=1), False, id="it uses less now"),
    ],
)
def test_larger_maximum_is_written_outside_of_the_dead_band(most: int, ago: timedelta, written: bool) -> None:
    found = after(stored(run("a", 5000, RunState.RUNNING), ago=ago), {"a": seen(most)}, ends("a"))
    assert (found is not None) is written


def test_oldest_ended_runs_are_dropped_and_totals_continue() -> None:
    full = stored(*(run(f"r{n}", 100 + n, started=100 - n) for n in range(MAX_DEMAND_RUNS)), total=40)
    found = after(full, {"new": seen(7000)}, ends("new"))
    assert found is not None
    assert len(found.runs) == MAX_DEMAND_RUNS
    assert "r0" not in states(found)
    assert (found.total_runs, found.counted_runs, found.max_mib) == (41, MAX_DEMAND_RUNS, 7000)


@given(
    st.dictionaries(st.sampled_from([f"p{n}" for n in range(60)]), st.integers(0, 5000), max_size=60),
    st.lists(st.integers(0, 5000), max_size=MAX_DEMAND_RUNS),
    st.sets(st.sampled_from([f"p{n}" for n in range(60)])),
)
def test_status_is_bounded_and_nothing_is_written_at_rest(
    running: dict[str, int], ended: list[int], gone: set[str]
) -> None:
    before = stored(*(run(f"e{n}", most + 1) for n, most in enumerate(ended)), total=len(ended))
    observed = {uid: seen(most) for uid, most in running.items()}
    pods = ends(*running)
    first = after(before, observed, pods) or before
    assert len(first.runs) <= MAX_DEMAND_RUNS
    assert first.total_runs >= len(ended)
    assert after(first, observed, pods) is None, "the same state again"

    left = ends(*(running.keys() - gone))
    second = after(first, observed, left) or first
    assert len(second.runs) <= MAX_DEMAND_RUNS
    assert second.total_runs >= first.total_runs
    assert after(second, observed, left) is None
