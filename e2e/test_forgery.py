"""A pod that claims an assignment by annotation gets nothing by it."""

import json

from proof import Holding
from proof.contract import ANNOTATION
from support.api import Api, JsonObject, pods
from support.awaiting import eventually
from support.fleet import Fleet
from support.manifests import gpuworkload, plain_pod
from support.obstacles import HELD, held
from support.room import Room

USER = "mallory"


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
        assert "TooFewUnreserved" in words
    # The owner of the reservation gets all of it, whatever others claimed.
    assert set(room.devices("owner")) == reserved


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
