"""Times at which a decision may change although the cluster does not."""

from datetime import timedelta

import pytest

from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.moments import due_moments, earliest
from gpufleet_operator.decide.state import record_results
from gpufleet_operator.model.cluster.changes import SubjectKind
from gpufleet_operator.model.replica import GroupRestart, WorkloadReplicas
from gpufleet_operator.model.report_actions import explain_key
from gpufleet_operator.model.state_types import Backoff, PassState, Rejections, Reported, RetryPause
from gpufleet_testing.operator import make


def test_failed_write_is_due_when_its_backoff_ends() -> None:
    state = record_results(PassState(), [("reserve/n", "away", "network")], make.NOW)

    moments = due_moments(make.snapshot(), state, (), guard=WorkloadGuard())

    assert moments == {(SubjectKind.KEY, "reserve/n"): make.NOW + timedelta(seconds=0.5)}


def test_message_of_a_failed_write_is_due_when_it_is_dropped() -> None:
    state = record_results(PassState(), [("create/w", "quota", "apiserver")], make.NOW)

    moments = due_moments(make.snapshot(now=make.NOW + timedelta(seconds=1)), state, (), guard=WorkloadGuard())

    assert moments == {(SubjectKind.KEY, "create/w"): make.NOW + timedelta(minutes=10, seconds=0.5)}


def test_rejections_are_due_when_the_status_forgets_them() -> None:
    workload, pod, ended = make.workload(), make.running_pod(), make.NOW - timedelta(minutes=9)
    pause = RetryPause(1, ended, ended, ended, "no")
    rejections = Rejections(
        backoffs={(workload.uid, 0, "node-1"): Backoff(1, ended, ended - timedelta(seconds=30), "no")},
        pauses={(workload.uid, 1): pause},
        allocated_since={pod.uid: make.NOW - timedelta(seconds=20)},
    )

    moments = due_moments(make.snapshot(workload, pod), PassState(rejections=rejections), (), guard=WorkloadGuard())

    assert moments == {
        (SubjectKind.POD, pod.uid): make.NOW + timedelta(seconds=40),
        (SubjectKind.WORKLOAD, workload.uid): make.NOW + timedelta(seconds=30),
    }


def test_restart_of_all_replicas_is_due_when_it_is_forgotten() -> None:
    workload, restart = make.workload(), GroupRestart(1, make.NOW - timedelta(minutes=4))
    assessed = WorkloadReplicas(workload, make.spec(workload), (), group_restart=restart)

    moments = due_moments(make.snapshot(workload), PassState(), [assessed], guard=WorkloadGuard())

    assert moments == {(SubjectKind.WORKLOAD, workload.uid): make.NOW + timedelta(minutes=6)}


@pytest.mark.parametrize(("minutes", "next_minutes"), [(1, 2), (2, 30), (29, 30)])
def test_gated_pod_is_due_when_it_may_be_explained_again(minutes: int, next_minutes: int) -> None:
    """Nothing else looks at a gated pod without a GPUWorkload."""
    pod = make.pod(created=make.NOW - timedelta(hours=1))
    at = make.NOW - timedelta(minutes=minutes)
    state = PassState(reported={explain_key(pod.uid): Reported(at)})

    moments = due_moments(make.snapshot(pod), state, (), guard=WorkloadGuard())

    assert moments == {(SubjectKind.POD, pod.uid): at + timedelta(minutes=next_minutes)}


def test_earliest_of_several_times_of_an_object_counts() -> None:
    pod = make.pod(created=make.NOW)
    state = PassState(unanswered_since={pod.uid: make.NOW})

    moments = due_moments(make.snapshot(pod), state, (), guard=WorkloadGuard())

    assert moments == {(SubjectKind.POD, pod.uid): make.NOW + timedelta(seconds=2)}
    assert earliest(moments) == make.NOW + timedelta(seconds=2)
    assert earliest({}) is None
