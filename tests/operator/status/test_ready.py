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


def decided(
    pod: Pod, *, held: bool, status: WorkloadStatus | None = None, age: float = 1.0, covered: int | None = None
) -> Actions:
    """The decision on a bound pod, with or without the agent listing its device."""
    assignment = make.assignment(pod)
    held_devices = {"GPU-1-0": assignment} if held else {}
    telemetry = make.telemetry(assignments=[assignment], held=held_devices, age=age, covered=covered)
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


@pytest.mark.parametrize("held", [("GPU-1-1",), ()], ids=["kubelet reports devices", "older kubelet"])
def test_ready_waits_for_a_kubelet_that_reports_devices(held: tuple[str, ...]) -> None:
    """Another pod of the node shows whether its kubelet has `allocatedResourcesStatus`."""
    pod, other = make.running_pod(devices=()), make.running_pod("other", devices=held)
    both = [make.assignment(pod), make.assignment(other, "GPU-1-1", workload="other")]
    telemetry = make.telemetry(assignments=both, held=dict(zip(("GPU-1-0", "GPU-1-1"), both, strict=True)))

    write, _ = decide(make.snapshot(make.workload(), make.workload("other"), pod, other, telemetry)).statuses

    assert results.condition(write, "Allocated") == ("True", "Allocated")
    assert results.condition(write, "Ready") == (("False", "Confirming") if held else ("True", "AllReplicasReady"))


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


UNRESPONSIVE = make.node(not_ready="Kubelet stopped posting node status.")


def test_replica_on_a_node_that_does_not_respond_is_not_ready() -> None:
    """Its pod is Ready until the node controller changes that, and nothing else would contradict it."""
    pod = make.running_pod()
    assignment = make.assignment(pod)
    telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment})
    workload = make.workload(status=stored(pod, ready=True))

    actions = decide(make.snapshot(workload, pod, telemetry, UNRESPONSIVE))

    status = results.status(actions)
    assert (status.ready, status.ready_replicas, status.allocated_replicas, status.state) == ("0/1", 0, 1, "Running")
    assert status.placements[0].ready is None
    for kind in ("Ready", "Reconciling"):
        assert results.condition(actions.statuses[0], kind)[1] == "NodeNotReady"
        words = "replica 0: node node-1 is not ready: Kubelet stopped posting node status."
        assert results.message(actions.statuses[0], kind) == words


def test_roll_counts_a_replica_on_a_node_that_does_not_respond() -> None:
    """The other replica is the last one that works, and maxUnavailable is 1."""
    old = make.running_pod(template_hash="old")
    new = make.running_pod(replica=1, on="node-2", devices=("GPU-2-0",))
    kept, used = make.assignment(old, keep_for_successor=True), make.assignment(new, "GPU-2-0")
    telemetries = (
        make.telemetry("node-1", assignments=[kept], held={"GPU-1-0": kept}),
        make.telemetry("node-2", assignments=[used], held={"GPU-2-0": used}),
    )
    objects = (make.workload(replicas=2), old, new, *telemetries)
    hung = make.node("node-2", not_ready="hung")

    assert decide(make.snapshot(*objects, hung)).deletes == ()
    assert [d.name for d in decide(make.snapshot(*objects)).deletes] == [old.name]
