"""A device is of no use where the pod finds no CPU or memory: such a node isn't picked, and is once it has room."""

from time import monotonic

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import NODES, JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room

SOON_SECONDS = 5
MOST = 0.6
"""Of what a node offers: of two pods that ask for this much, only one has room there."""

RESOURCES = [
    pytest.param("cpu", "InsufficientCPU", "too little CPU left", id="cpu"),
    pytest.param("memory", "InsufficientMemory", "too little memory left", id="memory"),
]


@pytest.mark.parametrize(("resource", "reason", "words"), RESOURCES)
def test_a_node_without_room_is_not_picked(room: Room, fleet: Fleet, resource: str, reason: str, words: str) -> None:
    """Mechanism: the operator counts requests as kube-scheduler does, so that it never comes to the scheduler's no.

    The best device is on the full node. Who may go elsewhere goes there at once; who may not is told why, in numbers,
    and is placed in time once there is room.
    """
    first, second = fleet.nodes
    best, other = fleet.gpus[first].uuids[0], fleet.gpus[second].uuids[0]
    fleet.gpus[second].report(other, utilization_percent=60)
    eventually(lambda: _reports(fleet, second, other, 60), within=SOON_SECONDS)
    template = _asking(fleet, first, resource)
    _fill(room, first, template)
    room.apply(
        gpuworkload("anywhere", uuids=(best, other), template=template),
        gpuworkload("here-only", node=first, template=template),
    )
    assert room.devices("anywhere") == (other,), "the best device is where the pod has no room"
    message = room.wait_condition("here-only", "Placed", "False", "NoDevices")
    print(message)
    said = room.workload("here-only")["status"]["explanation"]
    assert {one["reason"]: one["devices"] for one in said["rejections"]}[reason] == 16, said
    assert words in message
    assert said["nearestMiss"]["node"] == first, said
    for name in ("anywhere", "here-only"):
        refusals = room.workload(name)["status"].get("explanation", {}).get("refusals", [])
        assert not refusals, f"the scheduler was asked in vain: {refusals}"
    fleet.api.delete(f"{pods(room.namespace)}/full")
    eventually(lambda: _gone(room, "full"), within=20)
    began = monotonic()
    room.wait_for("here-only", lambda found: objects.is_true(found, "Placed"), SOON_SECONDS)
    print(f"placed {monotonic() - began:.1f} s after there is room")
    room.proven("anywhere", "here-only")


def _asking(fleet: Fleet, node: str, resource: str) -> JsonObject:
    """A pod's spec that asks for most of what the node offers of this resource."""
    offered = str(fleet.api.get(f"{NODES}/{node}")["status"]["allocatable"][resource])
    # The kubelet says CPU in cores or millicores and memory in Ki.
    amount, unit = (offered[:-2], "Ki") if offered.endswith("Ki") else (offered.removesuffix("m"), "m")
    whole = int(amount) * (1000 if resource == "cpu" and not offered.endswith("m") else 1)
    return pod_spec(container(resources={"requests": {resource: f"{int(whole * MOST)}{unit}"}}))


def _fill(room: Room, node: str, template: JsonObject) -> None:
    """Let a pod without devices run on the node."""
    pod = plain_pod("full")
    pod["spec"] = {**template, "nodeSelector": {"kubernetes.io/hostname": node}}
    room.fleet.api.create(pods(room.namespace), pod)
    eventually(lambda: _running(room, "full"), within=20)


def _running(room: Room, name: str) -> None:
    phase = room.fleet.api.get(f"{pods(room.namespace)}/{name}")["status"]["phase"]
    assert phase == "Running", f"{name} is {phase}"


def _gone(room: Room, name: str) -> None:
    assert room.fleet.api.find(f"{pods(room.namespace)}/{name}") is None, f"{name} is still there"


def _reports(fleet: Fleet, node: str, uuid: str, percent: int) -> None:
    said = next(gpu.utilization_percent for gpu in objects.gpus(fleet.telemetry(node)) if gpu.uuid == uuid)
    assert said == percent, f"{uuid} is reported at {said}%"
