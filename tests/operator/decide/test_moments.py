"""Times at which a decision may change although the cluster does not."""

from datetime import timedelta

from gpufleet_operator.decide.moments import due_moments, earliest
from gpufleet_operator.decide.state import record_results
from gpufleet_operator.model.cluster.changes import SubjectKind
from gpufleet_operator.model.state_types import PassState
from gpufleet_testing.operator import make


def test_failed_write_is_due_when_its_backoff_ends() -> None:
    state = record_results(PassState(), [("reserve/n", "away", "network")], make.NOW)

    moments = due_moments(make.snapshot(), state, ())

    assert moments == {(SubjectKind.KEY, "reserve/n"): make.NOW + timedelta(seconds=0.5)}


def test_message_of_a_failed_write_is_due_when_it_is_dropped() -> None:
    state = record_results(PassState(), [("create/w", "quota", "apiserver")], make.NOW)

    moments = due_moments(make.snapshot(now=make.NOW + timedelta(seconds=1)), state, ())

    assert moments == {(SubjectKind.KEY, "create/w"): make.NOW + timedelta(minutes=10, seconds=0.5)}


def test_earliest_of_several_times_of_an_object_counts() -> None:
    pod = make.pod(created=make.NOW)
    state = PassState(unanswered_since={pod.uid: make.NOW})

    moments = due_moments(make.snapshot(pod), state, ())

    assert moments == {(SubjectKind.POD, pod.uid): make.NOW + timedelta(seconds=2)}
    assert earliest(moments) == make.NOW + timedelta(seconds=2)
    assert earliest({}) is None
