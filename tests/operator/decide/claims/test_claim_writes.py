"""Claims are created for reserved devices, before the pod is released, and replaced with the reservation."""

from dataclasses import replace

import pytest

from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.state import record_results
from gpufleet_operator.kube.patches import as_json
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.claims.claim_actions import claim_key
from gpufleet_operator.model.objects import Pod, PodPhase
from gpufleet_testing.operator import make, owned
from gpufleet_testing.operator.dra import claims

QUOTA = "exceeded quota: q, requested: gpu.gpufleet.dev.deviceclass.resource.k8s.io/devices=1"


def gated() -> Pod:
    return claims.claiming(make.pod(suffix="a"))


def test_reserved_pod_gets_its_claim_and_is_released_after_it() -> None:
    pod = gated()
    reserved = claims.assignment(pod)
    actions = decide(make.snapshot(make.workload(), pod, claims.dra_telemetry("node-1", reserved)))
    (create,) = actions.claims
    assert (create.name, create.pod_uid, create.after) == (pod.name, pod.uid, frozenset({"node-1"}))
    (release,) = actions.releases
    assert release.after_claims == {pod.uid}


def test_pod_whose_claim_exists_is_released() -> None:
    pod = gated()
    reserved = claims.assignment(pod)
    snapshot = make.snapshot(
        make.workload(),
        pod,
        claims.dra_telemetry("node-1", reserved),
        claims=claims.by_pod(claims.claim(pod, reserved)),
    )
    actions = decide(snapshot)
    assert not actions.claims
    assert [release.after_claims for release in actions.releases] == [frozenset()]


def test_claim_of_other_devices_is_deleted_before_the_release() -> None:
    """The operator died after it created the claim, and the reservation was made again."""
    pod = gated()
    old = claims.claim(pod, claims.assignment(pod, "GPU-1-1"))
    snapshot = make.snapshot(
        make.workload(),
        pod,
        claims.dra_telemetry("node-1", claims.assignment(pod, "GPU-1-0")),
        claims=claims.by_pod(old),
    )
    actions = decide(snapshot)
    assert [delete.uid for delete in actions.deleted_claims] == [old.uid]
    assert not actions.claims
    assert not actions.releases


def test_claim_that_is_being_deleted_is_waited_for() -> None:
    pod = gated()
    reserved = claims.assignment(pod)
    deleting = claims.claim(pod, reserved, deleting=True)
    telemetry = claims.dra_telemetry("node-1", reserved)
    actions = decide(make.snapshot(make.workload(), pod, telemetry, claims=claims.by_pod(deleting)))
    assert not actions.claims
    assert not actions.deleted_claims
    assert not actions.releases


@pytest.mark.parametrize("deleting", [False, True])
def test_claim_in_another_namespace_that_names_the_pod_is_ignored(deleting: bool) -> None:
    """Users know the uids of others' pods, and a finalizer keeps their claim from the garbage collector."""
    pod = gated()
    reserved = claims.assignment(pod)
    found = replace(claims.claim(pod, reserved, deleting=deleting), namespace="other", requests=())
    telemetry = claims.dra_telemetry("node-1", reserved)
    actions = decide(make.snapshot(make.workload(), pod, telemetry, claims=claims.by_pod(found)))
    assert [create.name for create in actions.claims] == [pod.name]
    assert not actions.deleted_claims
    assert [release.after_claims for release in actions.releases] == [{pod.uid}]


def test_claim_of_a_dropped_reservation_is_deleted() -> None:
    pod = gated()
    left = claims.claim(pod, claims.assignment(pod))
    workload = make.workload(requirements={"models": ["none"]})
    actions = decide(make.snapshot(workload, pod, claims.dra_telemetry(), claims=claims.by_pod(left)))
    assert [delete.uid for delete in actions.deleted_claims] == [left.uid]


def test_lost_claim_of_a_released_pod_is_created_again() -> None:
    pod = claims.claiming(make.released_pod())
    reserved = claims.assignment(pod)
    actions = decide(make.snapshot(make.workload(), pod, claims.dra_telemetry("node-1", reserved)))
    assert [create.name for create in actions.claims] == [pod.name]
    (status,) = actions.statuses
    assert f"ResourceClaim {pod.name} was deleted: it is created again" in str(as_json(status.status))


def test_lost_claim_that_the_apiserver_rejects_is_said_on_its_pod() -> None:
    pod = claims.claiming(make.released_pod())
    snapshot = make.snapshot(make.workload(), pod, claims.dra_telemetry("node-1", claims.assignment(pod)))
    first = decide(snapshot)
    assert not first.reports.pods
    state = record_results(first.state, [(claim_key(pod.uid), QUOTA, "apiserver")], make.NOW)
    actions = decide(replace(snapshot, previous_state=state))
    (event,) = actions.reports.pods
    assert (event.reason, event.note) == (
        "WaitingForResourceClaim",
        f"cannot create ResourceClaim {pod.claim_name}: {QUOTA}",
    )
    (status,) = actions.statuses
    assert QUOTA in str(as_json(status.status))


def test_claim_of_a_bound_pod_is_not_created_again() -> None:
    pod = claims.claiming(make.released_pod(node="node-1", phase=PodPhase.PENDING))
    actions = decide(make.snapshot(make.workload(), pod, claims.dra_telemetry("node-1", claims.assignment(pod))))
    assert not actions.claims


def rejected(message: str) -> Actions:
    """The pass after the apiserver rejected the claim of a reserved pod."""
    pod = gated()
    snapshot = make.snapshot(make.workload(), pod, claims.dra_telemetry("node-1", claims.assignment(pod)))
    state = record_results(decide(snapshot).state, [(claim_key(pod.uid), message, "apiserver")], make.NOW)
    return decide(replace(snapshot, previous_state=state))


def test_rejected_claim_gives_the_devices_back_and_is_a_condition() -> None:
    actions = rejected(QUOTA)
    assert [reserve.removed for reserve in actions.reserves] == [(gated().uid,)]
    assert not actions.claims
    (status,) = actions.statuses
    conditions = {one.type: one for one in status.status.conditions}
    assert conditions["Reconciling"].reason == "QuotaExceeded"
    assert QUOTA in conditions["Reconciling"].message
    assert conditions["Stalled"].status == "False"


def test_claim_that_a_policy_rejects_stalls_the_workload() -> None:
    (status,) = rejected("claims are forbidden here").statuses
    conditions = {one.type: one for one in status.status.conditions}
    assert (conditions["Stalled"].status, conditions["Stalled"].reason) == ("True", "ClaimCreateFailed")


def test_gang_is_released_when_all_of_its_claims_can_be_created() -> None:
    workload = make.workload(replicas=2, placement={"gang": True})
    pods = [claims.claiming(make.pod(replica=index)) for index in range(2)]
    reserved = [claims.assignment(pod, f"GPU-1-{index}") for index, pod in enumerate(pods)]
    telemetry = claims.dra_telemetry("node-1", *reserved)
    actions = decide(make.snapshot(workload, *pods, telemetry))
    assert [release.after_claims for release in actions.releases] == [{pod.uid for pod in pods}] * 2

    other = claims.claim(pods[0], claims.assignment(pods[0], "GPU-1-1"))
    actions = decide(make.snapshot(workload, *pods, telemetry, claims=claims.by_pod(other)))
    assert not actions.releases


def test_pod_of_another_owner_gets_a_claim_of_its_own_name_and_uid() -> None:
    pod = owned.claiming()
    actions = decide(make.snapshot(owned.workload(), pod, claims.dra_telemetry()))
    assert [reserve.added for reserve in actions.reserves] == [(pod.uid,)]
    (create,) = actions.claims
    assert create.name == "gpufleet-web-01234567"
    assert create.body["metadata"]["annotations"] == {"resource.kubernetes.io/pod-claim-name": "gpufleet"}
    assert [release.after_claims for release in actions.releases] == [{pod.uid}]


def test_pod_of_another_owner_waits_for_a_node_of_its_transport() -> None:
    actions = decide(make.snapshot(owned.workload(), owned.claiming(), make.telemetry()))
    assert not actions.reserves
    assert not actions.deletes
    (diagnosis,) = actions.unplaced.values()
    assert "1 node has transport DevicePlugin, and the pod requests devices by DRA" in diagnosis.message
