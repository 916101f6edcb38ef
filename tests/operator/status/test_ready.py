"""Ready waits for Ready pods and for every source of the devices."""

from dataclasses import replace
from typing import Any

import pytest

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadStatus
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.pod_state.containers import Waiting
from gpufleet_testing.operator import make, results

PULL = Waiting("ImagePullBackOff", "no such host")


def decided(pod: Pod, *, held: bool, status: WorkloadStatus | None = None, **report: Any) -> Actions:
    """The decision on a bound pod, with or without the agent listing its device."""
    assignment = make.assignment(pod)
    telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment} if held else {}, **report)
    return decide(make.snapshot(make.workload(status=status), pod, telemetry))


def stored(pod: Pod, *, ready: bool) -> WorkloadStatus:
    placement = ReplicaPlacement(
        replica=0,
        state=PlacementState.ALLOCATED,
        pod=pod.name,
        pod_uid=pod.uid,
        node="node-1",
        devices=["GPU-1-0"],
        ready=ready or None,
    )
    return WorkloadStatus(placements=[placement])


SOURCES: dict[str, tuple[tuple[str, ...], bool, dict[str, Any], tuple[str, str]]] = {
    "kubelet and agent": (("GPU-1-0",), True, {}, ("True", "AllReplicasReady")),
    "kubelet, the agent not yet": (("GPU-1-0",), False, {}, ("False", "Confirming")),
    "kubelet, the agent's report is older": (("GPU-1-0",), False, {"covered": 4}, ("False", "Confirming")),
    "kubelet, the agent is down": (("GPU-1-0",), False, {"age": 500}, ("True", "AllReplicasReady")),
    "agent, an older kubelet": ((), True, {}, ("True", "AllReplicasReady")),
    "none": ((), False, {"covered": 4}, ("False", "Confirming")),
}


@pytest.mark.parametrize(("kubelet", "held", "report", "expected"), SOURCES.values(), ids=SOURCES.keys())
def test_ready_waits_for_every_source_that_exists(
    kubelet: tuple[str, ...], held: bool, report: dict[str, Any], expected: tuple[str, str]
) -> None:
    actions = decided(make.running_pod(devices=kubelet), held=held, **report)

    assert results.condition(actions.statuses[0], "Ready") == expected
    assert results.message(actions.statuses[0], "Ready")


def test_ready_replica_stays_ready_while_the_agent_reads_a_new_reservation() -> None:
    """As after a restart of the operator, which forgets which generation has the reservation."""
    pod = make.running_pod()

    actions = decided(pod, held=False, status=stored(pod, ready=True), covered=4)

    assert results.condition(actions.statuses[0], "Ready") == ("True", "AllReplicasReady")


def test_pod_that_is_not_ready_has_allocated_devices() -> None:
    pod = make.running_pod(ready=False)
    main = replace(pod.containers[0], running=False, ready=False, waiting=PULL, image="example/none:1")

    actions = decided(replace(pod, containers=(main,)), held=True)

    assert results.condition(actions.statuses[0], "Allocated") == ("True", "Allocated")
    assert results.condition(actions.statuses[0], "Ready") == ("False", "ImagePullBackOff")
    assert results.condition(actions.statuses[0], "Reconciling") == ("True", "ImagePullBackOff")
    expected = "replica 0: container main: ImagePullBackOff: example/none:1: no such host"
    assert results.message(actions.statuses[0], "Ready") == expected
    status = results.status(actions)
    assert (status.ready, status.ready_replicas, status.allocated_replicas, status.state) == ("0/1", 0, 1, "Running")


def test_error_of_a_container_precedes_devices_that_are_not_reported() -> None:
    pod = make.running_pod(ready=False, devices=())
    main = replace(pod.containers[0], running=False, ready=False, waiting=PULL)

    actions = decided(replace(pod, containers=(main,)), held=False)

    assert results.condition(actions.statuses[0], "Ready") == ("False", "ImagePullBackOff")
