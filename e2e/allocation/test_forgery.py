"""A pod that claims devices by annotation does not get them."""

import json
from typing import Any

import pytest

from gpufleet_e2e.faults.fault_injection import BLOCKED_LABELS, release_blocked
from gpufleet_e2e.proof import Holding
from gpufleet_e2e.proof.contract import ANNOTATION, REPLICA_LABEL, VISIBLE_DEVICES, WORKLOAD_LABEL
from gpufleet_e2e.support.api import Api, JsonObject, events, pods
from gpufleet_e2e.support.claims import claim_by_hand, claiming_spec, claims, own_class
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import GATE, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

USER = "mallory"
HOLD = "example.com/hold"


def test_policy_rejects_a_forged_annotation(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    """Mechanism: the admission policy. A user who may create pods cannot create one with the annotation."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace.name}/rolebindings"
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
    eventually(lambda: _allowed(mallory, namespace, honest), within=30)
    forged = plain_pod("forged", count=1, **_forgery(fleet.gpus[fleet.nodes[0]].uuids[0], fleet.nodes[0]))
    if transport == "DRA":
        forged["spec"] = claiming_spec("forged")
    response = mallory.try_create(pods(namespace.name), forged, dry_run=True)
    mallory.close()
    assert not response.allowed
    assert ANNOTATION in response.message, response.message


def test_agent_ignores_a_forged_annotation(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    """Mechanism: the agent follows only `spec.assignments`.

    The administrator, whom the policy exempts, creates pods that name a reserved device. One asks for a device, and
    gets the only one that is not reserved. The next one is rejected by the device plugin; with a claim of the reserved
    device it waits.
    """
    node = fleet.nodes[1]
    with own_class(fleet), release_blocked(fleet.api, namespace.name):
        namespace.apply(gpuworkload("owner", count=7, node=node, labels=BLOCKED_LABELS))
        reserved = set(eventually(lambda: namespace.reservation("owner"), within=15)["devices"])
        (spare,) = set(fleet.gpus[node].uuids) - reserved
        named = min(reserved)
        forgery = _forgery(named, node)
        if transport == "DRA":
            claim_by_hand(fleet, namespace.name, "thief", spare, **forgery)
        else:
            fleet.api.create(pods(namespace.name), plain_pod("thief", count=1, **forgery))
        assert eventually(lambda: _holding(namespace, "thief"), within=20).devices == (spare,)
        namespace.wait_running("thief", within=20)
        shown = fleet.cluster.kubectl("exec", f"--namespace={namespace.name}", "thief", "--", "env").stdout.split()
        assert f"{VISIBLE_DEVICES}={spare}" in shown
        if transport == "DRA":
            claim_by_hand(fleet, namespace.name, "greedy", named, **forgery)
            eventually(lambda: _bound(namespace, "greedy"), within=20)
            never(lambda: namespace.check_pending("greedy"), for_seconds=3)
        else:
            fleet.api.create(pods(namespace.name), plain_pod("greedy", count=1, **forgery))
            words = eventually(lambda: _failed(namespace, "greedy"), within=20)
            print(words)
            assert "InsufficientUnreservedDevices" in words
    fleet.api.delete(f"{pods(namespace.name)}/greedy")
    # The owner of the reservation gets all of it.
    assert set(namespace.devices("owner")) == reserved


def test_pod_of_another_namespace_is_not_a_replica(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    """Mechanism: a workload's pods are those of its own namespace that it controls.

    Two pods in another namespace name its UID as their controller, one gated, one running, while its own pod still has
    a gate of the user. Neither gets devices, and the operator deletes neither of them; garbage collection does, because
    their owner is not in their namespace. The workload's own pod gets its devices.
    """
    gated = pod_spec(schedulingGates=[{"name": HOLD}])
    namespace.apply(gpuworkload("train", template=gated))
    real = eventually(lambda: namespace.pod("train"), within=15)
    other = TestNamespace(fleet, f"{namespace.name}-x")
    gate = claiming_spec("train") if transport == "DRA" else {"schedulingGates": [{"name": GATE}]}
    for name, spec in (("gated", gate), ("running", {})):
        fleet.api.create(pods(other.name), _foreign_pod(name, namespace.workload("train"), spec))
    eventually(lambda: _collected(other), within=60)
    assert namespace.pod("train")["metadata"]["uid"] == real["metadata"]["uid"], "its own pod was replaced"
    reasons = {
        one["reason"] for one in fleet.api.list(events(namespace.name)) if one["involvedObject"]["name"] == "train"
    }
    assert "SurplusPod" not in reasons, reasons
    ungated = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
    fleet.api.patch(f"{pods(namespace.name)}/{real['metadata']['name']}", ungated, "json")
    (replica,) = namespace.verify("train")["train"].replicas
    assert replica.pod_uid == real["metadata"]["uid"]
    other.clear()


def _foreign_pod(name: str, workload: JsonObject, spec: JsonObject) -> JsonObject:
    owner = {key: workload[key] for key in ("apiVersion", "kind")} | {"controller": True}
    owner |= {key: workload["metadata"][key] for key in ("name", "uid")}
    body = plain_pod(name, labels={WORKLOAD_LABEL: workload["metadata"]["name"], REPLICA_LABEL: "0"}, **spec)
    body["metadata"]["ownerReferences"] = [owner]
    return body


def _collected(namespace: TestNamespace) -> None:
    """Asserts that the pods are gone; until then they have no annotation and no reservation, and keep the gate.

    They get no claim either.
    """
    left = namespace.fleet.api.list(pods(namespace.name))
    for pod in left:
        gates = pod["spec"].get("schedulingGates", [])
        if ANNOTATION in pod["metadata"].get("annotations", {}) or (pod["metadata"]["name"] == "gated" and not gates):
            pytest.fail(f"{pod['metadata']['name']} was released")
    if reserved := namespace.fleet.assignments(namespace.name):
        pytest.fail(f"reserved for foreign pods: {reserved}")
    if claimed := namespace.fleet.api.list(claims(namespace.name)):
        pytest.fail(f"claimed for foreign pods: {[claim['metadata']['name'] for claim in claimed]}")
    assert not left, f"not collected yet: {[pod['metadata']['name'] for pod in left]}"


def _forgery(device: str, node: str) -> dict[str, Any]:
    """Returns fields of a pod that claims a device by annotation."""
    claim = json.dumps({"node": node, "container": "main", "devices": [device]})
    return {"annotations": {ANNOTATION: claim}, "nodeSelector": {"kubernetes.io/hostname": node}}


def _allowed(user: Api, namespace: TestNamespace, pod: JsonObject) -> None:
    response = user.try_create(pods(namespace.name), pod, dry_run=True)
    assert response.allowed, f"rejected even without the annotation: {response.message}"


def _holding(namespace: TestNamespace, pod: str) -> Holding:
    found = [one for one in namespace.fleet.collector.holdings() if (one.namespace, one.pod) == (namespace.name, pod)]
    assert found, f"{pod} holds no devices"
    return found[0]


def _bound(namespace: TestNamespace, pod: str) -> None:
    assert "nodeName" in namespace.fleet.api.get(f"{pods(namespace.name)}/{pod}")["spec"], f"{pod} is not bound"


def _failed(namespace: TestNamespace, pod: str) -> str:
    status = namespace.fleet.api.get(f"{pods(namespace.name)}/{pod}")["status"]
    assert status["phase"] == "Failed", f"{pod} is {status['phase']}"
    return f"{status.get('reason')}: {status.get('message')}"
