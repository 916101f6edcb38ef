"""A released pod of another owner that cannot start gets other devices by another claim."""

import json
from dataclasses import replace
from datetime import timedelta

from gpufleet_api.names import ASSIGNMENT_ANNOTATION, Transport
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.claims.resource_claim import ResourceClaim
from gpufleet_operator.model.objects import Pod, PodPhase, Telemetry
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_testing.operator import make, owned
from gpufleet_testing.operator.dra import claims

BUSY = "0/2 nodes are available: 2 cannot allocate all claims"
UNHEALTHY = {"health": {"state": "Unhealthy", "reason": "XidError"}}
GRACE = timedelta(seconds=6)


def released(**fields: object) -> Pod:
    """A pod that was released to node-1, with the annotation instead of a pin."""
    pod = owned.claiming(gates=(), pinned="node-1", assigned=True, has_annotations=True)
    return replace(pod, **fields)  # type: ignore[arg-type]  # fields of Pod


def telemetry(name: str, *assignments: Assignment, **device: object) -> Telemetry:
    return make.telemetry(name, devices=1, assignments=assignments, transport=Transport.DRA, **device)  # type: ignore[arg-type]  # values of a device


def claim_of(pod: Pod, reserved: Assignment, **fields: object) -> ResourceClaim:
    found = claims.claim(pod, reserved)
    return replace(found, name=pod.claim_name, **fields)  # type: ignore[arg-type]  # fields of ResourceClaim


def cluster(pod: Pod, *objects: Telemetry, claim: ResourceClaim | None = None) -> Snapshot:
    found = claims.by_pod(claim) if claim is not None else {}
    return make.snapshot(owned.workload(), pod, *objects, claims=found)


def later(snapshot: Snapshot, first: Actions, passed: timedelta = GRACE) -> Actions:
    return decide(replace(snapshot, now=snapshot.now + passed, previous_state=first.state))


def rejected_twice(pod: Pod, *objects: Telemetry, claim: ResourceClaim | None) -> Actions:
    """The pass in which kube-scheduler has rejected the pod for longer than the grace period."""
    snapshot = cluster(pod, *objects, claim=claim)
    first = decide(snapshot)
    assert not first.deleted_claims
    assert not first.reserves
    return later(snapshot, first)


def test_claim_that_cannot_be_allocated_is_deleted_before_anything_else() -> None:
    pod = released(unschedulable=BUSY)
    reserved = claims.assignment(pod, "GPU-1-0")
    claim = claim_of(pod, reserved)
    actions = rejected_twice(pod, telemetry("node-1", reserved), telemetry("node-2"), claim=claim)
    (delete,) = actions.deleted_claims
    assert (delete.name, delete.uid, delete.resource_version) == (pod.claim_name, claim.uid, claim.resource_version)
    assert delete.reason == f"kube-scheduler cannot bind the pod to node-1: {BUSY}"
    assert not actions.reserves
    assert not actions.deletes


def test_pod_without_a_claim_gets_devices_of_another_node_and_an_annotation() -> None:
    pod = released(unschedulable=BUSY)
    reserved = claims.assignment(pod, "GPU-1-0")
    snapshot = cluster(pod, telemetry("node-1", reserved), telemetry("node-2"), claim=claim_of(pod, reserved))
    second = later(snapshot, decide(snapshot))
    actions = later(replace(snapshot, claims={}, now=snapshot.now + GRACE), second, timedelta(seconds=0.1))
    assert {r.node: (r.added, r.removed) for r in actions.reserves} == {
        "node-1": ((), (pod.uid,)),
        "node-2": ((pod.uid,), ()),
    }
    (release,) = actions.releases
    assert (release.node, sorted(release.after), sorted(release.after_claims)) == ("node-2", ["node-2"], [])
    (annotation,) = [op for op in release.patch if op["op"] == "add"]
    assert annotation["path"].endswith(ASSIGNMENT_ANNOTATION.replace("/", "~1"))
    assert json.loads(annotation["value"])["node"] == "node-2"
    assert not any("schedulingGates" in op["path"] or "affinity" in op["path"] for op in release.patch)
    assert not actions.claims
    assert not actions.deletes


def test_pod_with_old_and_new_reservation_does_not_get_the_old_claim_again() -> None:
    """The new reservation is stored, while the old one is still being removed and the annotation names it."""
    pod = released(unschedulable=BUSY)
    reserved = claims.assignment(pod, "GPU-1-0")
    snapshot = cluster(pod, telemetry("node-1", reserved), telemetry("node-2"), claim=claim_of(pod, reserved))
    second = later(snapshot, decide(snapshot))
    now = snapshot.now + GRACE + timedelta(seconds=0.5)
    new = claims.assignment(pod, "GPU-2-0").model_copy(update={"decided_at": now.isoformat()})
    both = cluster(pod, telemetry("node-1", reserved), telemetry("node-2", new))
    actions = decide(replace(both, now=now, previous_state=second.state))
    assert not actions.claims
    assert [release.node for release in actions.releases] == ["node-2"]


def test_reassigned_pod_gets_its_claim_once_its_annotation_names_the_devices() -> None:
    """What kube-scheduler said about the devices of before does not count."""
    pod = released(unschedulable=BUSY, pinned="node-2")
    now = make.NOW + GRACE
    reserved = claims.assignment(pod, "GPU-2-0").model_copy(update={"decided_at": make.NOW.isoformat()})
    before = decide(cluster(pod, telemetry("node-1"), telemetry("node-2", claims.assignment(pod, "GPU-2-0"))))
    fresh = make.snapshot(owned.workload(), pod, telemetry("node-1"), telemetry("node-2", reserved), now=make.NOW)
    state = replace(before.state, unschedulable_since={pod.uid: make.NOW - GRACE})
    actions = decide(replace(fresh, previous_state=state))
    assert [(create.name, create.requests[0].expression) for create in actions.claims] == [
        (
            pod.claim_name,
            'device.driver == "gpu.gpufleet.dev" && device.attributes["gpu.gpufleet.dev"].uuid == "GPU-2-0"',
        )
    ]
    assert not actions.reserves
    assert decide(replace(fresh, previous_state=state, now=now)).deleted_claims == ()


def test_reservation_that_the_annotation_does_not_name_is_dropped() -> None:
    """The operator died after the reservation was written on the other node, before the annotation."""
    pod = released()
    actions = decide(cluster(pod, telemetry("node-1"), telemetry("node-2", claims.assignment(pod, "GPU-2-0"))))
    assert not actions.claims
    assert {r.node for r in actions.reserves if r.removed or r.added}
    (release,) = actions.releases
    assert release.after == {release.node}


def test_unhealthy_device_of_a_waiting_pod_is_replaced_immediately() -> None:
    pod = released()
    reserved = claims.assignment(pod, "GPU-1-0")
    broken = telemetry("node-1", reserved, **UNHEALTHY)
    first = decide(cluster(pod, broken, telemetry("node-2"), claim=claim_of(pod, reserved)))
    assert [delete.reason for delete in first.deleted_claims] == [
        "GPU-1-0 on node-1 became unhealthy before the pod started"
    ]
    second = decide(cluster(pod, broken, telemetry("node-2")))
    assert [release.node for release in second.releases] == ["node-2"]


def test_pod_waits_without_a_claim_while_there_are_no_other_devices() -> None:
    pod = released()
    reserved = claims.assignment(pod, "GPU-1-0")
    actions = decide(cluster(pod, telemetry("node-1", reserved, **UNHEALTHY)))
    assert [reserve.removed for reserve in actions.reserves] == [(pod.uid,)]
    assert not actions.claims
    (diagnosis,) = actions.unplaced.values()
    assert "1 unhealthy" in diagnosis.message

    waiting = decide(cluster(pod, telemetry("node-1", **UNHEALTHY)))
    assert (*waiting.claims, *waiting.deletes, *waiting.releases, *waiting.reserves) == ()
    healthy = decide(cluster(pod, telemetry("node-1")))
    assert [release.node for release in healthy.releases] == ["node-1"]


def test_released_pod_that_waits_for_another_claim_says_why() -> None:
    """Kubernetes writes no condition on it: its claim does not exist."""
    pod = released()
    broken = cluster(pod, telemetry("node-1", **UNHEALTHY))
    first = decide(broken)
    (event,) = first.reports.pods
    assert (event.reason, event.warning, event.patch) == ("WaitingForDevices", True, ())
    assert event.note.startswith("waiting for other devices: those that were reserved for the pod cannot be used; ")
    assert "1 unhealthy" in event.note
    assert not decide(make.later(broken, first, 1)).reports.pods
    assert not decide(cluster(pod, telemetry("node-1"))).reports.pods, "it gets devices in this pass"


def test_claim_without_a_reservation_is_deleted() -> None:
    pod = released()
    left = claim_of(pod, claims.assignment(pod, "GPU-1-0"))
    actions = decide(cluster(pod, telemetry("node-1", **UNHEALTHY), claim=left))
    assert [delete.uid for delete in actions.deleted_claims] == [left.uid]
    assert not actions.deletes


def test_allocated_claim_is_not_replaced() -> None:
    """kube-scheduler is about to bind the pod."""
    pod = released()
    reserved = claims.assignment(pod, "GPU-1-0")
    broken = telemetry("node-1", reserved, **UNHEALTHY)
    allocated = replace(claims.claim(pod, reserved, allocated_on="node-1"), name=pod.claim_name)
    actions = decide(cluster(pod, broken, telemetry("node-2"), claim=allocated))
    assert (*actions.deleted_claims, *actions.reserves, *actions.releases) == ()


def test_node_that_rejects_a_reassigned_pod_again_is_excluded_for_longer() -> None:
    pod = released(unschedulable=BUSY)
    reserved = claims.assignment(pod, "GPU-1-0")
    snapshot = cluster(pod, telemetry("node-1", reserved), claim=claim_of(pod, reserved))
    first = later(snapshot, decide(snapshot))
    (backoff,) = first.state.rejections.backoffs.values()
    moved = replace(pod, unschedulable=None)
    between = decide(
        replace(
            cluster(moved, telemetry("node-1", reserved), claim=claim_of(pod, reserved)), previous_state=first.state
        )
    )
    again = later(snapshot, decide(replace(snapshot, previous_state=between.state)))
    (doubled,) = again.state.rejections.backoffs.values()
    assert (backoff.count, doubled.count) == (1, 2)


def test_bound_pod_that_has_not_started_is_not_kept_with_an_unhealthy_device() -> None:
    """The driver does not prepare its claim, and Kubernetes does not move a bound pod."""
    pod = replace(claims.claiming(make.released_pod(node="node-1", phase=PodPhase.PENDING)), resource_version="7")
    reserved = claims.assignment(pod, "GPU-1-0")
    allocated = claims.claim(pod, reserved, allocated_on="node-1")
    snapshot = make.snapshot(
        make.workload(), pod, telemetry("node-1", reserved, **UNHEALTHY), claims=claims.by_pod(allocated)
    )
    first = decide(snapshot)
    assert not first.deletes
    (delete,) = later(snapshot, first, timedelta(seconds=11)).deletes
    assert delete.reason == "DeviceUnhealthy"
