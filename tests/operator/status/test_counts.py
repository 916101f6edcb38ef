"""The counts in status and the one-word summary."""

import pytest

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement
from gpufleet_operator.model.objects import PodPhase, Reservation
from gpufleet_operator.model.outcome import Outcome
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.status import counts
from gpufleet_operator.status.context import StatusContext
from gpufleet_testing.operator import make

SUCCESS = Outcome.success("Succeeded", "all replicas succeeded")
FAILURE = Outcome.failure("BackoffLimitExceeded", "exit code 3")


def context(
    *phases: PodPhase,
    state: PlacementState = PlacementState.ALLOCATED,
    suspend: bool = False,
    reserved: tuple[int, ...] = (),
    outcome: Outcome | None = None,
) -> StatusContext:
    """A workload with one replica per phase of its pod; those in `reserved` have two devices."""
    workload = make.workload(replicas=len(phases), suspend=suspend)
    pods = [make.pod(workload, index, phase=phase) for index, phase in enumerate(phases)]
    replicas = tuple(Replica(index, state, pod=pod, ready=index == 0) for index, pod in enumerate(pods))
    reservations = {
        pods[index].uid: Reservation("node-1", make.assignment(pods[index], f"GPU-{index}-a", f"GPU-{index}-b"))
        for index in reserved
    }
    assessed = WorkloadReplicas(workload, make.spec(workload), replicas, outcome=outcome)
    return StatusContext(workload, assessed, reservations=reservations)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (context(PodPhase.PENDING, PodPhase.PENDING), "Pending"),
        (context(PodPhase.RUNNING, PodPhase.PENDING), "Running"),
        (context(PodPhase.SUCCEEDED, PodPhase.RUNNING), "Running"),
        (context(PodPhase.SUCCEEDED, outcome=SUCCESS), "Complete"),
        (context(PodPhase.RUNNING, outcome=FAILURE), "Failed"),
        (context(PodPhase.PENDING, suspend=True), "Suspended"),
        (context(), "ScaledToZero"),
    ],
)
def test_state_is_one_word(found: StatusContext, expected: str) -> None:
    assert counts.state(found) == expected


def test_ready_counts_ready_replicas_of_all() -> None:
    assert counts.ready(context(PodPhase.RUNNING, PodPhase.RUNNING)) == "1/2"


def test_gpus_are_those_reserved_now_not_those_of_ended_replicas() -> None:
    found = context(PodPhase.RUNNING, PodPhase.SUCCEEDED, reserved=(0,))
    placements = [
        ReplicaPlacement(replica=index, state=replica.state, devices=["GPU-a", "GPU-b"])
        for index, replica in enumerate(found.replicas)
    ]

    assert counts.gpus(placements, found) == 2


def test_selector_is_the_label_of_the_workload() -> None:
    assert counts.selector(context(PodPhase.PENDING)) == "gpufleet.dev/workload=train"
