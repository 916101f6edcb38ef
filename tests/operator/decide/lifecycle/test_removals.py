"""Pods that the operator removes itself: their end is neither a loss nor a failure, whatever happens in between."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from gpufleet_api.telemetry.spec import CordonedDevice
from gpufleet_api.workload_status import ReplicaPlacement, WorkloadStatus
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.objects import Pod, PodPhase, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_testing.operator import make, results

RUNS = make.running_pod(replica=0)
"""Replica 0, with GPU-1-0."""


def gang(*placements: ReplicaPlacement, policy: str = "Fail", **spec: object) -> Workload:
    """Two replicas that cannot go on without each other."""
    placement = {"gang": True, **spec}
    status = WorkloadStatus(placements=list(placements))
    return make.workload(replicas=2, placement=placement, status=status, runPolicy={"onReplicaFailure": policy})


def stored(pod: Pod, state: str, **fields: object) -> ReplicaPlacement:
    named = {"replica": pod.replica, "pod": pod.name, "podUID": pod.uid}
    return ReplicaPlacement.model_validate({**named, "state": state, **fields})


def again(snapshot: Snapshot, actions: Actions, *pods: Pod, state: PassState | None = None) -> Snapshot:
    """The cluster after the status is written, with these pods; without `state`, of an operator that was restarted."""
    spec = make.spec(next(iter(snapshot.workloads.values())))
    workload = make.workload(status=results.status(actions), **spec.model_dump(by_alias=True, exclude_none=True))
    telemetry, nodes = snapshot.telemetry.values(), snapshot.nodes.values()
    return make.snapshot(workload, *pods, *telemetry, *nodes, state=state, now=snapshot.now + timedelta(seconds=1))


def outcome(actions: Actions) -> tuple[str, list[tuple[int, int]]]:
    """Status of the condition Failed, and attempt and failures of the replicas."""
    status = results.status(actions)
    counts = [(p.attempt or 0, p.failures or 0) for p in status.placements]
    return results.condition(actions.statuses[0], "Failed")[0], counts


def rejected_by_scheduler() -> tuple[Snapshot, Pod]:
    pod = make.released_pod(replica=1, to="node-2", unschedulable="0/2 nodes are available")
    state = PassState(unschedulable_since={pod.uid: make.NOW - timedelta(seconds=60)})
    return placed(pod, "Reserved", state=state), pod


def rejected_by_kubelet() -> tuple[Snapshot, Pod]:
    pod = make.released_pod(replica=1, to="node-2", node="node-2", phase=PodPhase.FAILED, reason="OutOfcpu")
    return placed(pod, "Bound"), pod


def without_scheduler() -> tuple[Snapshot, Pod]:
    pod = make.released_pod(replica=1, to="node-2", scheduler="volcano")
    state = PassState(unanswered_since={pod.uid: make.NOW - timedelta(seconds=60)})
    return placed(pod, "Reserved", state=state), pod


def placed(pod: Pod, state_in_status: str, state: PassState | None = None) -> Snapshot:
    workload = gang(stored(RUNS, "Allocated"), stored(pod, state_in_status))
    first = make.telemetry(assignments=[make.assignment(RUNS)])
    second = make.telemetry("node-2", assignments=[make.assignment(pod, "GPU-2-0")])
    return make.snapshot(workload, RUNS, pod, first, second, state=state)


REJECTIONS = [rejected_by_scheduler, rejected_by_kubelet]


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_reason_is_recorded_before_the_pod_is_deleted(rejection: Callable[[], tuple[Snapshot, Pod]]) -> None:
    snapshot, pod = rejection()

    first = decide(snapshot)

    assert not first.deletes
    assert results.status(first).placements[1].removal
    second = decide(again(snapshot, first, RUNS, pod, state=first.state))
    assert [d.uid for d in second.deletes] == [pod.uid]
    assert second.state.rejections.pauses["uid-train", -1].count == 1, "counted once"


@pytest.mark.parametrize("rejection", REJECTIONS)
@pytest.mark.parametrize("policy", ["Fail", "RestartAll"])
def test_rejected_member_is_replaced_alone_after_a_restart(
    rejection: Callable[[], tuple[Snapshot, Pod]], policy: str
) -> None:
    """The operator was restarted after the deletion and before the next status."""
    snapshot, _ = rejection()
    first = decide(snapshot)

    second = decide(again(snapshot, first, RUNS))

    assert outcome(second) == ("False", [(0, 0), (0, 0)])
    assert [c.replica for c in second.creates] == [1]


@pytest.mark.parametrize("restarted", [True, False])
def test_gang_without_a_scheduler_waits_as_a_whole_without_a_failure(restarted: bool) -> None:
    snapshot, pod = without_scheduler()
    first = decide(snapshot)

    second = decide(again(snapshot, first, RUNS, pod, state=None if restarted else first.state))

    assert outcome(second) == ("False", [(1, 0), (1, 0)])
    assert not second.deletes
    third = decide(again(snapshot, second, RUNS, pod))
    assert {d.uid for d in third.deletes} == {RUNS.uid, pod.uid}
    assert not third.creates


def test_kubelet_that_rejects_a_pod_that_ran_loses_a_member() -> None:
    """After its own restart a kubelet may reject a running pod, and reports no containers for it."""
    pod = make.released_pod(replica=1, to="node-2", node="node-2", phase=PodPhase.FAILED, reason="NodeAffinity")
    workload = gang(stored(RUNS, "Allocated"), stored(pod, "Allocated"), policy="RestartAll")

    actions = decide(make.snapshot(workload, RUNS, pod, make.telemetry(assignments=[make.assignment(RUNS)])))

    assert outcome(actions) == ("False", [(1, 0), (1, 0)])


def mismatch() -> Snapshot:
    other = make.running_pod(replica=1, on="node-2", devices=["GPU-2-1"])
    return placed(other, "Bound")


def degraded() -> Snapshot:
    pod = make.running_pod(replica=1, on="node-2", devices=["GPU-2-0"])
    workload = gang(stored(RUNS, "Allocated"), stored(pod, "Allocated"), onDegraded="Replace")
    first = make.telemetry(assignments=[make.assignment(RUNS)])
    health = {"state": "Unhealthy", "reason": "XID"}
    second = make.telemetry("node-2", assignments=[make.assignment(pod, "GPU-2-0")], health=health)
    state = PassState(unhealthy_since={pod.uid: make.NOW - timedelta(seconds=60)})
    return make.snapshot(workload, RUNS, pod, first, second, state=state)


@pytest.mark.parametrize("removed", [mismatch, degraded])
def test_bound_member_that_is_removed_starts_all_again_without_a_failure(removed: Callable[[], Snapshot]) -> None:
    """Also with `onReplicaFailure: Fail`: the application did nothing wrong, and the others cannot go on."""
    snapshot = removed()
    pods = list(snapshot.pods.values())

    first = decide(snapshot)

    assert not first.deletes
    assert outcome(first) == ("False", [(1, 0), (1, 0)])
    second = decide(again(snapshot, first, *pods))
    assert {d.uid for d in second.deletes} == {p.uid for p in pods}
    deleting = [make.running_pod(replica=p.replica or 0, on=p.node or "", deleting=True) for p in pods]
    assert outcome_or_none(decide(again(snapshot, first, *deleting))) in (None, ("False", [(1, 0), (1, 0)]))


def outcome_or_none(actions: Actions) -> tuple[str, list[tuple[int, int]]] | None:
    return outcome(actions) if actions.statuses else None


@pytest.mark.parametrize("policy", ["Fail", "RestartAll"])
def test_drained_member_starts_all_again_without_a_failure(policy: str) -> None:
    pod = make.running_pod(replica=1, on="node-2", devices=["GPU-2-0"])
    workload = gang(stored(RUNS, "Allocated"), stored(pod, "Allocated"), policy=policy)
    first_node = make.telemetry(assignments=[make.assignment(RUNS)])
    cordoned = [CordonedDevice(uuid="GPU-2-0", reason="fan", drain=True)]
    second_node = make.telemetry("node-2", assignments=[make.assignment(pod, "GPU-2-0")], cordoned=cordoned)
    snapshot = make.snapshot(workload, RUNS, pod, first_node, second_node)

    first = decide(snapshot)

    assert not first.evictions, "the reason is recorded first"
    assert results.status(first).placements[1].removal == "PodEvicted"
    assert [e.uid for e in decide(again(snapshot, first, RUNS, pod)).evictions] == [pod.uid]
    leaving = make.running_pod(replica=1, on="node-2", devices=["GPU-2-0"], deleting=True, disrupted=True)
    for pods in ([RUNS, leaving], [RUNS]):
        assert outcome(decide(again(snapshot, first, *pods))) == ("False", [(1, 0), (1, 0)])


def test_eviction_by_others_fails_a_gang_with_policy_fail() -> None:
    pod = make.running_pod(replica=1, on="node-2", devices=["GPU-2-0"], deleting=True, disrupted=True)

    assert outcome(decide(placed(pod, "Allocated")))[0] == "True"


def test_record_is_dropped_when_the_pod_stays() -> None:
    snapshot, pod = rejected_by_scheduler()
    first = decide(snapshot)
    bound = make.running_pod(replica=1, on="node-2", devices=["GPU-2-0"])
    assert bound.uid == pod.uid

    second = decide(again(snapshot, first, RUNS, bound, state=first.state))

    assert not second.deletes
    assert results.status(second).placements[1].removal is None
