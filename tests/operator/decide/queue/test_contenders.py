"""The workloads for which devices are earmarked and pods are evicted."""

from datetime import timedelta

import pytest

from gpufleet_operator.decide.queue.contenders import MAX_PREEMPTORS, Contenders, QueuedWorkload, choose
from gpufleet_operator.model.state_types import Limits
from gpufleet_testing.operator import make


def queued(
    name: str, *, age: float = 300, priority: int = 0, several: bool = True, may: bool = True, evicted: bool = False
) -> QueuedWorkload:
    created = make.NOW - timedelta(seconds=age)
    return QueuedWorkload(name, (-priority, created, name), priority, created, several, may, evicted)


def chosen(
    *waiting: QueuedWorkload, lowest: int | None = None, invalid: str = "", preemption: bool = True
) -> Contenders:
    return choose(
        waiting, Limits(preemption=preemption), make.NOW, lowest=lambda: lowest, is_valid=lambda uid: uid != invalid
    )


def test_head_has_the_highest_priority_and_is_the_oldest_of_these() -> None:
    assert chosen(queued("low", age=999), queued("b", priority=5), queued("a", priority=5, age=400)).heads[0] == "a"


@pytest.mark.parametrize(
    "first",
    [queued("first", age=119, priority=9), queued("first", several=False, priority=9)],
    ids=["has not waited long enough", "needs one device"],
)
def test_other_workload_is_head_meanwhile(first: QueuedWorkload) -> None:
    assert chosen(first, queued("second")).heads == ("second",)


def test_invalid_request_is_no_contender() -> None:
    assert chosen(queued("a", priority=5), queued("b"), invalid="a", lowest=0) == Contenders(("b",), frozenset())


def test_preemptors_have_a_higher_priority_than_a_pod_that_may_go() -> None:
    waiting = [queued("high", priority=5), queued("same"), queued("never", priority=5, may=False)]

    assert chosen(*waiting, lowest=0).preemptors == {"high"}
    assert chosen(*waiting, lowest=None).preemptors == set()
    assert chosen(*waiting, lowest=0, preemption=False).preemptors == set()


def test_workload_stays_a_preemptor_until_its_victims_are_gone() -> None:
    evicting = queued("low", priority=-5, evicted=True)

    assert chosen(evicting, queued("same", priority=-5), lowest=0).preemptors == {"low"}
    assert chosen(evicting, lowest=None).preemptors == set()


def test_number_of_preemptors_is_limited() -> None:
    waiting = [queued(f"w{n:02d}", priority=n + 1) for n in range(MAX_PREEMPTORS + 2)]

    assert chosen(*waiting, lowest=0).preemptors == {f"w{n:02d}" for n in range(2, MAX_PREEMPTORS + 2)}
