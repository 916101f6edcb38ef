"""A workload that does not parse, as after a downgrade of the CRD: the counts are those of the pods."""

from dataclasses import replace

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadState, WorkloadStatus
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.objects import Pod
from gpufleet_testing.operator import make, results


def placement(pod: Pod) -> ReplicaPlacement:
    return ReplicaPlacement(
        replica=pod.replica or 0,
        state=PlacementState.ALLOCATED,
        pod=pod.name,
        pod_uid=pod.uid,
        node="node-1",
        devices=[f"GPU-1-{pod.replica}"],
        ready=True,
    )


def status(*present: Pod, not_ready: str = "") -> WorkloadStatus:
    """The status of two replicas that both ran, of which only some pods exist now."""
    all_pods = [make.running_pod(replica=index) for index in range(2)]
    before = WorkloadStatus(
        state=WorkloadState.RUNNING,
        ready="2/2",
        replicas=2,
        ready_replicas=2,
        placements=list(map(placement, all_pods)),
    )
    broken = replace(make.workload(status=before), model=None, invalid="spec.replicas: x")
    assigned = [make.assignment(pod, f"GPU-1-{pod.replica}") for pod in present]
    node = make.node(not_ready=not_ready)
    return results.status(decide(make.snapshot(broken, *present, make.telemetry(assignments=assigned), node)))


def test_lost_pod_is_not_counted() -> None:
    found = status(make.running_pod(replica=0))

    assert (found.ready, found.state, found.replicas, found.ready_replicas) == ("1/2", "Running", 1, 1)
    assert (found.allocated_replicas, found.gpus, found.nodes) == (1, 1, "node-1")
    assert [p.message for p in found.placements] == [None, "pod train-1-a is gone"]


def test_no_pod_is_left() -> None:
    found = status()

    assert (found.ready, found.state, found.replicas, found.gpus, found.nodes) == ("0/2", "Pending", 0, 0, None)


def test_pod_on_a_node_that_does_not_respond_is_not_ready() -> None:
    found = status(make.running_pod(replica=0), make.running_pod(replica=1), not_ready="Kubelet stopped posting")

    assert (found.ready, found.ready_replicas, found.allocated_replicas) == ("0/2", 0, 2)
