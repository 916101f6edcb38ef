"""Pods with other owners that cannot start: replaced without a cost for the owner."""

from dataclasses import replace

import pytest

from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.objects import Pod, PodPhase
from gpufleet_operator.model.pod_state.owner import JOB_TRACKING_FINALIZER, PodOwner
from gpufleet_operator.model.report_actions import explain_key
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, Reported
from gpufleet_testing.operator import make, owned, results

REJECTED = "0/2 nodes are available"


def rejected(owner: PodOwner | None) -> Pod:
    """A pod that was released to node-1 and that kube-scheduler does not bind."""
    return owned.released("web-a", owner, unschedulable=REJECTED)


def after_grace(pod: Pod) -> tuple[Snapshot, Actions]:
    """Two passes: kube-scheduler rejects the pod for longer than the grace period."""
    telemetry = make.telemetry(assignments=[make.assignment(pod)])
    first = make.snapshot(owned.workload(), pod, telemetry, make.telemetry("node-2"))
    first = replace(first, previous_state=PassState(reported={explain_key(pod.uid): Reported(make.NOW, "of its gate")}))
    later = make.later(first, decide(first), 6)
    return later, decide(later)


def test_pod_of_a_job_is_deleted_without_being_counted() -> None:
    _, actions = after_grace(rejected(owned.job()))

    (delete,) = actions.deletes
    tests = {op["path"]: op["value"] for op in delete.patch if op["op"] == "test"}
    assert tests == {
        "/metadata/uid": "uid-web-a",
        "/metadata/resourceVersion": "20",
        "/metadata/finalizers": [JOB_TRACKING_FINALIZER],
    }
    assert {"op": "replace", "path": "/metadata/finalizers", "value": []} in delete.patch
    assert any("gpufleet.dev~1replaced" in op["path"] for op in delete.patch)


@pytest.mark.parametrize("owner", [owned.replica_set(), owned.stateful_set()], ids=lambda owner: owner.kind)
def test_pod_of_other_controllers_is_deleted(owner: PodOwner) -> None:
    _, actions = after_grace(rejected(owner))

    assert [(d.name, d.patch) for d in actions.deletes] == [("web-a", ())]


def test_pod_without_owner_is_kept_and_reported() -> None:
    later, actions = after_grace(rejected(None))

    assert not actions.deletes
    assert results.condition(actions.statuses[0], "Degraded") == ("True", "Unschedulable")
    assert "pod web-a has no owner that replaces it" in results.message(actions.statuses[0], "Degraded")
    (event,) = actions.reports.pods
    assert (event.reason, event.note.startswith(REJECTED)) == ("CannotStart", True)
    again = decide(make.later(later, actions, 60))
    assert not again.reports.pods


def test_rejection_excludes_the_node_for_the_next_pod() -> None:
    snapshot, actions = after_grace(rejected(owned.job()))
    again = owned.pod("web-b", owned.job())

    state = replace(snapshot, previous_state=actions.state, pods={again.uid: again})
    moved = decide(replace(state, telemetry={**state.telemetry, "node-1": make.telemetry()}))

    assert [r.node for r in moved.releases] == ["node-2"]


def test_bound_pod_of_a_job_keeps_its_finalizer() -> None:
    pod = owned.running("web-a", owned.job(), devices=("GPU-1-1",))
    telemetry = make.telemetry(assignments=[make.assignment(pod, "GPU-1-0")], held={"GPU-1-1": pod})

    actions = decide(make.snapshot(owned.workload(), pod, telemetry))

    assert [(d.reason, d.patch) for d in actions.deletes] == [("DeviceMismatch", ())]


def test_pod_rejected_by_the_kubelet_is_left_to_its_job() -> None:
    failed = owned.released(
        "web-a", owned.job(), node="node-1", phase=PodPhase.FAILED, reason="UnexpectedAdmissionError"
    )
    again = owned.pod("web-b", owned.job())

    actions = decide(make.snapshot(owned.workload(), failed, again, make.telemetry(), make.telemetry("node-2")))
    moved = decide(make.later(make.snapshot(owned.workload(), failed, again, make.telemetry()), actions, 1))

    assert not actions.deletes
    assert not moved.deletes
    assert [key[2] for key in actions.state.rejections.backoffs] == ["node-1"]


def test_pod_without_finalizer_that_is_not_deleted_is_counted_again() -> None:
    pod = owned.running("web-a", owned.job(), finalizers=(), replaced="Unschedulable")
    assignment = make.assignment(pod)
    telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment})

    actions = decide(make.snapshot(owned.workload(), pod, telemetry))

    (restore,) = actions.restores
    assert {"op": "add", "path": "/metadata/finalizers", "value": [JOB_TRACKING_FINALIZER]} in restore.patch
    assert not actions.deletes


def test_crash_between_patch_and_deletion_deletes_without_a_patch() -> None:
    pod = replace(rejected(owned.job()), finalizers=(), replaced="Unschedulable")

    _, actions = after_grace(pod)

    assert [(d.name, d.patch) for d in actions.deletes] == [("web-a", ())]
    assert not actions.restores


@pytest.mark.parametrize("owner", [owned.job(), None], ids=["Job", "no owner"])
def test_costly_pod_waits_for_a_kubelet_without_devices(owner: PodOwner | None) -> None:
    restarting = make.node(allocatable={"cpu": 16_000, "memory": 2**36, "pods": 110, RESOURCE: 0, SHARED_RESOURCE: 0})
    snapshot = make.snapshot(owned.workload(), owned.pod("a", owner), make.telemetry(), restarting)

    waiting = decide(snapshot)
    elsewhere = decide(
        make.snapshot(
            *snapshot.workloads.values(), owned.pod("a", owner), make.telemetry(), make.telemetry("node-2"), restarting
        )
    )

    assert not waiting.releases
    assert "the kubelet on node-1 offers 0 gpufleet.dev/gpu, the agent 2" in waiting.reports.pods[0].note
    assert [r.node for r in elsewhere.releases] == ["node-2"]


def test_reserved_pod_of_a_job_moves_when_its_kubelet_restarts() -> None:
    pod = owned.pod("a", owned.job())
    restarting = make.node(allocatable={"cpu": 16_000, "memory": 2**36, "pods": 110, RESOURCE: 0, SHARED_RESOURCE: 0})
    telemetry = make.telemetry(assignments=[make.assignment(pod)])

    actions = decide(make.snapshot(owned.workload(), pod, telemetry, restarting, make.telemetry("node-2")))

    assert [r.node for r in actions.releases] == ["node-2"]
    assert {r.node: len(r.assignments) for r in actions.reserves} == {"node-1": 0, "node-2": 1}


def test_pod_of_a_job_waits_for_a_withheld_device() -> None:
    pod = owned.pod("a", owned.job())
    telemetry = make.telemetry(devices=1, withheld="no device node")

    actions = decide(make.snapshot(owned.workload(), pod, telemetry))

    assert not actions.releases


@pytest.mark.parametrize(("owner", "deleted"), [(owned.job(), 0), (owned.replica_set(), 1)], ids=["Job", "ReplicaSet"])
def test_bound_pod_on_a_lost_node_is_left_to_a_job(owner: PodOwner, deleted: int) -> None:
    pod = owned.released("web-a", owner, node="node-1")
    lost = make.node(not_ready="Kubelet stopped posting node status.")
    telemetry = make.telemetry(assignments=[make.assignment(pod)])

    actions = decide(make.snapshot(owned.workload(), pod, telemetry, lost))

    assert len(actions.deletes) == deleted
