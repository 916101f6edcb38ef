"""A pod that claims an assignment by annotation gets nothing by it."""

import json
from typing import Any

import pytest

from gpufleet_e2e.proof import Holding
from gpufleet_e2e.proof.contract import ANNOTATION, REPLICA_LABEL, WORKLOAD_LABEL
from gpufleet_e2e.support.api import Api, JsonObject, events, pods
from gpufleet_e2e.support.fault_injection import HELD, held
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import GATE, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room

USER = "mallory"
HOLD = "example.com/hold"


def test_the_policy_refuses_the_annotation(room: Room, fleet: Fleet) -> None:
    """Mechanism: the admission policy. A user who may create pods may not create one with the annotation."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{room.namespace}/rolebindings"
    fleet.api.create(
        rbac,
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": USER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "User", "name": USER, "apiGroup": "rbac.authorization.k8s.io"}],
        },
    )
    mallory = Api(fleet.cluster.kubeconfig, user=USER)
    honest = plain_pod("honest", count=1)
    eventually(lambda: _allowed(mallory, room, honest), within=10)
    forged = _forged("forged", fleet.gpus[fleet.nodes[0]].uuids[0], fleet.nodes[0])
    answer = mallory.try_create(pods(room.namespace), forged, dry_run=True)
    mallory.close()
    assert not answer.allowed
    assert ANNOTATION in answer.message, answer.message


def test_the_plugin_does_not_believe_the_annotation(room: Room, fleet: Fleet) -> None:
    """Mechanism: the plugin obeys `spec.assignments` alone.

    The administrator, whom the policy lets pass, creates pods that claim reserved devices: one gets the only device
    that nobody has reserved, the next one is refused.
    """
    node = fleet.nodes[1]
    with held(fleet.api, room.namespace):
        room.apply(gpuworkload("owner", count=7, node=node, labels=HELD))
        reserved = set(eventually(lambda: room.reserved("owner"), within=15)["devices"])
        (spare,) = set(fleet.gpus[node].uuids) - reserved
        claimed = min(reserved)
        fleet.api.create(pods(room.namespace), _forged("thief", claimed, node))
        assert eventually(lambda: _holding(room, "thief"), within=20).devices == (spare,)
        fleet.api.create(pods(room.namespace), _forged("greedy", claimed, node))
        words = eventually(lambda: _failed(room, "greedy"), within=20)
        print(words)
        assert "InsufficientUnreservedDevices" in words
    # The owner of the reservation gets all of it, whatever others claimed.
    assert set(room.devices("owner")) == reserved


def test_a_pod_of_another_namespace_is_no_replica(room: Room, fleet: Fleet) -> None:
    """Mechanism: a workload's pods are those of its own namespace that it controls.

    Two pods elsewhere name its uid as their controller, one gated, one running, while its own pod is still gated by a
    gate of the user's. Neither gets devices, and the operator deletes neither for it (garbage collection does: their
    owner isn't in their namespace). The workload's own pod gets its devices as if nothing had been.
    """
    gated = pod_spec(schedulingGates=[{"name": HOLD}])
    room.apply(gpuworkload("train", template=gated))
    real = eventually(lambda: room.pod("train"), within=15)
    other = Room(fleet, f"{room.namespace}-x")
    for name, spec in (("gated", {"schedulingGates": [{"name": GATE}]}), ("running", {})):
        fleet.api.create(pods(other.namespace), _stranger(name, room.workload("train"), **spec))
    eventually(lambda: _collected(other), within=60)
    assert room.pod("train")["metadata"]["uid"] == real["metadata"]["uid"], "its own pod was replaced"
    told = {one["reason"] for one in fleet.api.list(events(room.namespace)) if one["involvedObject"]["name"] == "train"}
    assert "SurplusPod" not in told, told
    ungated = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
    fleet.api.patch(f"{pods(room.namespace)}/{real['metadata']['name']}", ungated, "json")
    (replica,) = room.proven("train")["train"].replicas
    assert replica.pod_uid == real["metadata"]["uid"]
    other.clear()


def _stranger(name: str, workload: JsonObject, **spec: Any) -> JsonObject:
    owner = {key: workload[key] for key in ("apiVersion", "kind")} | {"controller": True}
    owner |= {key: workload["metadata"][key] for key in ("name", "uid")}
    body = plain_pod(name, labels={WORKLOAD_LABEL: workload["metadata"]["name"], REPLICA_LABEL: "0"}, **spec)
    body["metadata"]["ownerReferences"] = [owner]
    return body


def _collected(room: Room) -> None:
    """Until they are gone they have nothing of ours: no annotation, no reservation, and the gate stays on."""
    left = room.fleet.api.list(pods(room.namespace))
    for pod in left:
        gates = pod["spec"].get("schedulingGates", [])
        if ANNOTATION in pod["metadata"].get("annotations", {}) or (pod["metadata"]["name"] == "gated" and not gates):
            pytest.fail(f"{pod['metadata']['name']} was released")
    if reserved := room.fleet.assignments(room.namespace):
        pytest.fail(f"reserved for strangers: {reserved}")
    assert not left, f"not collected yet: {[pod['metadata']['name'] for pod in left]}"


def _forged(name: str, device: str, node: str) -> JsonObject:
    claim = json.dumps({"node": node, "container": "main", "devices": [device]})
    return plain_pod(name, count=1, annotations={ANNOTATION: claim}, nodeSelector={"kubernetes.io/hostname": node})


def _allowed(user: Api, room: Room, pod: JsonObject) -> None:
    answer = user.try_create(pods(room.namespace), pod, dry_run=True)
    assert answer.allowed, f"without the annotation it is refused, too: {answer.message}"


def _holding(room: Room, pod: str) -> Holding:
    found = [one for one in room.fleet.witness.holdings() if (one.namespace, one.pod) == (room.namespace, pod)]
    assert found, f"{pod} holds nothing"
    return found[0]


def _failed(room: Room, pod: str) -> str:
    status = room.fleet.api.get(f"{pods(room.namespace)}/{pod}")["status"]
    assert status["phase"] == "Failed", f"{pod} is {status['phase']}"
    return f"{status.get('reason')}: {status.get('message')}"
