"""Backoffs, and what is carried from pass to pass."""

from datetime import timedelta

from gpufleet_operator.decide import state
from gpufleet_operator.model.state_types import PassState
from gpufleet_testing.operator import make


def test_refusals_last_longer_each_time_up_to_two_minutes() -> None:
    memory, waits = PassState(), []
    for number in range(9):
        memory = state.refuse(memory, ("w", 0, "n"), f"pod-{number}", make.NOW, message="no", by="kubelet")
        waits.append((memory.refusals["w", 0, "n"].until - make.NOW).total_seconds())

    assert waits == [2, 4, 8, 16, 32, 64, 120, 120, 120]


def test_a_confirmed_replica_starts_afresh() -> None:
    memory = state.refuse(PassState(), ("w", 0, "n"), "p", make.NOW, message="no", by="kubelet")
    memory = state.refuse(memory, ("w", 1, "n"), "q", make.NOW, message="no", by="kubelet")

    assert set(state.forgive(memory, "w", 0).refusals) == {("w", 1, "n")}


def test_a_failed_write_waits_and_one_that_went_through_clears_it() -> None:
    memory = state.record(PassState(), [("reserve/n", "away", "network")], make.NOW)

    assert memory.blocked("reserve/n", make.NOW)
    assert not memory.blocked("reserve/n", make.NOW + timedelta(seconds=0.5))
    assert not state.record(memory, [("reserve/n", None, "")], make.NOW).blocked("reserve/n", make.NOW)


def test_several_writes_under_one_key_fail_together_and_count_once() -> None:
    results = [("create/w", None, ""), ("create/w", "quota", "apiserver"), ("create/w", "quota", "apiserver")]

    assert state.record(PassState(), results, make.NOW).setbacks["create/w"].count == 1


def test_what_belongs_to_objects_that_are_gone_is_forgotten() -> None:
    memory = state.refuse(PassState(), ("uid-gone", 0, "n"), "p", make.NOW, message="no", by="kubelet")
    memory = state.observe(make.snapshot(make.workload(), memory=memory))

    assert not memory.refusals
    assert not memory.refused


def test_the_next_moment_that_matters_is_the_earliest_end() -> None:
    memory = state.refuse(PassState(), ("w", 0, "n"), "p", make.NOW, message="no", by="kubelet")
    memory = state.record(memory, [("reserve/n", "away", "network")], make.NOW)

    assert state.due(memory, make.NOW) == make.NOW + timedelta(seconds=0.5)
    assert state.due(memory, make.NOW + timedelta(hours=1)) is None
