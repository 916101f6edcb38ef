"""Answers to the AdmissionChecks of Kueue."""

from datetime import timedelta
from typing import Any, Unpack

import pytest

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.workload_status import Explanation, WorkloadStatus
from gpufleet_operator.decide.kueue.answers import answers
from gpufleet_operator.model.kueue.names import SCHEDULING_GATE as KUEUE_GATE
from gpufleet_operator.model.kueue.objects import CheckAnswer, CheckState, CheckStatus, KueueWorkload
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_testing.operator import make
from gpufleet_testing.operator.fields import WorkloadSpecFields

UP = {"scaleUp": True}
EXPLANATION = "0/2 GPUs are available: 2 in use."
FIRST = make.pod(gates=(KUEUE_GATE, "gpufleet.dev/assignment"))
SECOND = make.pod(replica=1, gates=(KUEUE_GATE, "gpufleet.dev/assignment"))


def kueue(*pods: Pod, seconds: float = 5, retries: int = 0, state: CheckState = CheckState.PENDING) -> KueueWorkload:
    """A Workload whose quota was reserved some seconds ago."""
    since = make.NOW - timedelta(seconds=seconds)
    checks = {"devices": CheckStatus(state, retries), "other": CheckStatus(CheckState.PENDING)}
    return KueueWorkload("uid-k", "ml", "k", "1", tuple(pod.uid for pod in pods), since, checks)


def waiting(reason: str = "NoDevicesAvailable", **spec: Unpack[WorkloadSpecFields]) -> Workload:
    placed = Condition(
        type="Placed",
        status=ConditionStatus.FALSE,
        reason=reason,
        message=EXPLANATION,
        observed_generation=1,
        last_transition_time="2026-01-02T03:04:00Z",
    )
    explained = Explanation(message=EXPLANATION, devices_considered=0, devices_eligible=0)
    return make.workload(status=WorkloadStatus(conditions=[placed], explanation=explained), **spec)


def answered(
    one: KueueWorkload,
    *pods: Pod,
    reserved: tuple[Pod, ...] = (),
    workload: Workload | None = None,
    scale_up: bool = False,
) -> list[CheckAnswer]:
    workload = workload or make.workload()
    found = answers(
        [one],
        {"devices"},
        {pod.uid: pod for pod in pods},
        {workload.uid: workload},
        {pod.uid: {"node-1"} for pod in reserved},
        now=make.NOW,
        scale_up=scale_up,
    )
    return list(found)


def test_check_is_ready_when_every_pod_has_a_reservation() -> None:
    (answer,) = answered(kueue(FIRST, SECOND), FIRST, SECOND, reserved=(FIRST, SECOND))

    assert (answer.checks, answer.state) == (("devices",), CheckState.READY)
    assert answer.message == "Devices of 2 pods are reserved on node-1."


def test_group_with_a_pod_without_reservation_is_not_ready() -> None:
    assert not answered(kueue(FIRST, SECOND), FIRST, SECOND, reserved=(FIRST,))


def test_group_with_a_pod_that_is_not_listed_yet_waits() -> None:
    assert not answered(kueue(FIRST, seconds=1), workload=waiting())


def test_retry_has_the_explanation_of_the_workload() -> None:
    (answer,) = answered(kueue(FIRST), FIRST, workload=waiting())

    assert (answer.state, answer.message, answer.requeue_after_seconds) == (CheckState.RETRY, EXPLANATION, 10)
    assert answer.retries == 1


@pytest.mark.parametrize(("retries", "seconds"), [(1, 20), (4, 160), (5, 300), (9, 300)])
def test_pause_doubles_with_each_retry_up_to_five_minutes(retries: int, seconds: int) -> None:
    (answer,) = answered(kueue(FIRST, retries=retries), FIRST, workload=waiting())

    assert (answer.requeue_after_seconds, answer.retries) == (seconds, retries + 1)


def paused(state: CheckState) -> KueueWorkload:
    """A Workload that gave its quota back."""
    checks = {"devices": CheckStatus(state, 3, EXPLANATION), "other": CheckStatus(CheckState.RETRY)}
    return KueueWorkload("uid-k", "ml", "k", "1", (FIRST.uid,), None, paused=True, checks=checks)


def test_check_of_a_paused_workload_is_pending_again() -> None:
    """Kueue reserves no quota for a Workload with a check that is Retry."""
    (answer,) = answered(paused(CheckState.RETRY), FIRST, workload=waiting())

    assert (answer.checks, answer.state, answer.message) == (("devices",), CheckState.PENDING, EXPLANATION)
    assert (answer.retries, answer.requeue_after_seconds, answer.waiting) == (3, None, None)


def test_pending_check_of_a_paused_workload_gets_no_answer() -> None:
    assert not answered(paused(CheckState.PENDING), FIRST, workload=waiting())


def test_retry_stays_until_the_quota_is_free() -> None:
    one = kueue(FIRST, state=CheckState.RETRY)

    assert not answered(one, FIRST, workload=waiting())
    evicted = KueueWorkload("uid-k", "ml", "k", "1", (FIRST.uid,), None, checks=one.checks)
    assert not answered(evicted, FIRST, workload=waiting())


def test_explanation_from_before_the_reservation_of_quota_does_not_count() -> None:
    assert not answered(kueue(FIRST, seconds=1), FIRST, workload=waiting())


@pytest.mark.parametrize(("seconds", "states"), [(29, []), (30, [CheckState.RETRY])])
def test_quota_is_held_for_half_a_minute_for_other_reasons(seconds: float, states: list[CheckState]) -> None:
    found = answered(kueue(FIRST, seconds=seconds), FIRST, workload=waiting("Waiting"))

    assert [answer.state for answer in found] == states


def test_workload_of_kueue_that_is_no_pod_is_ready() -> None:
    """Of a suspended Job, the pods that get devices do not exist yet."""
    (answer,) = answered(kueue())

    assert answer.state is CheckState.READY


def test_pods_that_run_are_ready_for_a_check_that_their_queue_gets_later() -> None:
    """Retry would evict them."""
    running = make.pod(gates=())
    (answer,) = answered(kueue(running, seconds=600), running)

    assert (answer.state, answer.message) == (CheckState.READY, "The pods are released.")


def test_check_that_has_an_answer_gets_no_other_one() -> None:
    assert not answered(kueue(FIRST, state=CheckState.READY), FIRST, workload=waiting())


def test_workload_without_quota_gets_no_answer() -> None:
    one = KueueWorkload("uid-k", "ml", "k", "1", (FIRST.uid,), None, {"devices": CheckStatus(CheckState.PENDING)})

    assert not answered(one, FIRST, reserved=(FIRST,))


@pytest.mark.parametrize(
    ("seconds", "placement", "enabled", "retries"),
    [(599, UP, True, 0), (600, UP, True, 1), (5, {}, True, 1), (5, UP, False, 1)],
    ids=["nodes may come", "no nodes came", "asks for no nodes", "no placeholders are created"],
)
def test_quota_is_held_while_nodes_may_be_added(
    seconds: float, placement: dict[str, Any], enabled: bool, retries: int
) -> None:
    workload = waiting(placement=placement)

    found = answered(kueue(FIRST, seconds=seconds), FIRST, workload=workload, scale_up=enabled)

    assert [answer.retries for answer in found] == [1] * retries
