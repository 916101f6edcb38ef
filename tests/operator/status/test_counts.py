"""The counts in status and the one-word summary."""

import pytest

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadState, WorkloadStatus
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.status import counts
from gpufleet_operator.status.context import StatusContext
from gpufleet_testing.operator import make


def context(*states: PlacementState, suspend: bool = False, reserved: tuple[int, ...] = ()) -> StatusContext:
    """A workload with one replica per state; those in `reserved` have two devices."""
    workload = make.workload(replicas=len(states), suspend=suspend)
    pods = [make.pod(workload, index) for index in range(len(states))]
    replicas = tuple(Replica(index, state, pod=pods[index]) for index, state in enumerate(states))
    reservations = {
        pods[index].uid: Reservation("node-1", make.assignment(pods[index], f"GPU-{index}-a", f"GPU-{index}-b"))
        for index in reserved
    }
    return StatusContext(workload, WorkloadReplicas(workload, make.spec(workload), replicas), reservations=reservations)


STATES = PlacementState


@pytest.mark.parametrize(
    ("states", "suspend", "expected"),
    [
        ((STATES.PENDING, STATES.RESERVED), False, "Pending"),
        ((STATES.ALLOCATED, STATES.PENDING), False, "Running"),
        ((STATES.SUCCEEDED, STATES.SUCCEEDED), False, "Complete"),
        ((STATES.SUCCEEDED, STATES.ALLOCATED), False, "Running"),
        ((STATES.PENDING,), True, "Suspended"),
    ],
)
def test_state_is_one_word(states: tuple[PlacementState, ...], suspend: bool, expected: str) -> None:
    assert counts.state(context(*states, suspend=suspend)) == expected


def test_state_of_an_invalid_workload_is_the_stored_one() -> None:
    assert counts.state(StatusContext(make.workload())) is WorkloadState.PENDING
    running = make.workload(status=WorkloadStatus(state=WorkloadState.RUNNING))
    assert counts.state(StatusContext(running)) is WorkloadState.RUNNING


def test_gpus_are_those_reserved_now_not_those_of_ended_replicas() -> None:
    found = context(STATES.ALLOCATED, STATES.SUCCEEDED, reserved=(0,))
    placements = [
        ReplicaPlacement(replica=index, state=replica.state, devices=["GPU-a", "GPU-b"])
        for index, replica in enumerate(found.replicas)
    ]

    assert counts.gpus(placements, found) == 2


def test_selector_is_the_label_of_the_workload() -> None:
    assert counts.selector(context(STATES.PENDING)) == "gpufleet.dev/workload=train"
