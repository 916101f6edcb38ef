"""Backoffs, and what is carried from pass to pass."""

from datetime import timedelta

from gpufleet_operator.decide.retries.rejections import add_rejection
from gpufleet_operator.decide.state import advance, record_results
from gpufleet_operator.model.state_types import PassState, Rejections
from gpufleet_testing.operator import make


def reject(rejections: Rejections, workload: str, replica: int, pod: str) -> Rejections:
    return add_rejection(rejections, (workload, replica, "n"), pod, make.NOW, message="no", by="kubelet")


def test_failed_write_backs_off_until_it_succeeds() -> None:
    state = record_results(PassState(), [("reserve/n", "away", "network")], make.NOW)

    assert state.is_backing_off("reserve/n", make.NOW)
    assert not state.is_backing_off("reserve/n", make.NOW + timedelta(seconds=0.5))
    succeeded = record_results(state, [("reserve/n", None, "")], make.NOW)
    assert not succeeded.is_backing_off("reserve/n", make.NOW)


def test_writes_with_one_key_fail_together_and_count_once() -> None:
    results = [("create/w", None, ""), ("create/w", "quota", "apiserver"), ("create/w", "quota", "apiserver")]

    assert record_results(PassState(), results, make.NOW).write_backoffs["create/w"].count == 1


def test_entries_of_deleted_objects_are_dropped() -> None:
    state = PassState(rejections=reject(Rejections(), "uid-gone", 0, "p"))

    advanced = advance(make.snapshot(make.workload(), state=state))

    assert not advanced.rejections.backoffs
    assert not advanced.rejections.counted_pods


def test_generation_of_a_reservation_is_that_of_its_present_node() -> None:
    """A pod that gets devices of another node would never be confirmed by the generation of the first one."""
    pod = make.pod()
    first = advance(make.snapshot(pod, make.telemetry("node-1", generation=50, assignments=[make.assignment(pod)])))
    there = make.assignment(pod, "GPU-2-0")
    moved = make.snapshot(pod, make.telemetry("node-2", generation=7, assignments=[there]), state=first)
    assert advance(moved).first_generation == {pod.uid: ("node-2", 7)}
    later = make.snapshot(pod, make.telemetry("node-2", generation=9, assignments=[there]), state=advance(moved))
    assert advance(later).first_generation == {pod.uid: ("node-2", 7)}
