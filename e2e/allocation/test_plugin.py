"""What the device plugin does for pods that nobody reserved anything for, and how it tells why it refuses."""

from datetime import UTC, datetime
from functools import partial

from gpufleet_e2e.support.api import JsonObject, events, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import IMAGE, container, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room

AGENT = "gpufleet-agent"
SHARED = "gpufleet.dev/gpu-shared"


def test_a_container_gets_what_its_init_container_had(room: Room, fleet: Fleet) -> None:
    """Mechanism: the kubelet reuses them without asking which devices are preferred; Allocate agrees all the same."""
    node = fleet.nodes[1]
    pod = plain_pod("init", count=1, nodeSelector={"kubernetes.io/hostname": node})
    limits = {"resources": {"limits": {"gpufleet.dev/gpu": "2"}}}
    pod["spec"]["initContainers"] = [{"name": "first", "image": IMAGE, "command": ["true"], **limits}]
    fleet.api.create(pods(room.namespace), pod)
    eventually(lambda: _running(room, "init"), within=30)
    assert _visible(room, "init")[0] in fleet.gpus[node].uuids[:2]


def test_unmanaged_sharers_share_and_leave_whole_devices_alone(room: Room, fleet: Fleet) -> None:
    """Mechanism: slots of a second resource. Two pods share one device; a third that wants a whole one gets another."""
    node = fleet.nodes[1]
    for name in ("left", "right"):
        pod = plain_pod(name, nodeSelector={"kubernetes.io/hostname": node})
        pod["spec"]["containers"] = [container(resources={"limits": {SHARED: "1"}})]
        fleet.api.create(pods(room.namespace), pod)
    whole = plain_pod("whole", count=7, nodeSelector={"kubernetes.io/hostname": node})
    eventually(lambda: _running(room, "left"), within=30)
    eventually(lambda: _running(room, "right"), within=30)
    fleet.api.create(pods(room.namespace), whole)
    eventually(lambda: _running(room, "whole"), within=30)
    assert _visible(room, "left") == _visible(room, "right")
    assert len(_visible(room, "left")) == 1
    assert sorted(_visible(room, "left") + _visible(room, "whole")) == sorted(fleet.gpus[node].uuids)
    told = eventually(partial(_holders, fleet, node, 3), within=15)
    shared = [holder for uuid, holders in told.items() for holder in holders if uuid == _visible(room, "left")[0]]
    assert [(holder["pod"], holder.get("shared")) for holder in shared] == [("left", True), ("right", True)]


def test_a_refusal_is_told_on_the_pod(room: Room, fleet: Fleet) -> None:
    """Mechanism: the agent knows by its own object whose request it refuses, and writes an event; the kubelet another.

    No scheduler binds the pod but the test, so the device falls ill exactly between release and admission.
    """
    node = fleet.nodes[0]
    ill = fleet.gpus[node].uuids[3]
    room.apply(gpuworkload("ill", uuids=(ill,), template=pod_spec(schedulerName="by-hand")))
    pod = eventually(lambda: _released(room, "ill"), within=15)
    fleet.gpus[node].lose(ill)
    eventually(lambda: _offers(fleet, node, 15), within=20)
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}, "target": target}
    fleet.api.create(f"{pods(room.namespace)}/{pod['metadata']['name']}/binding", binding)
    event = eventually(lambda: _told(room, pod), within=20)
    print(f"{event['reason']}: {event['message']}")
    assert event["reason"] == "DeviceUnhealthy"
    assert event["type"] == "Warning"
    assert ill in event["message"]
    assert event["source"]["host"] == node
    assert datetime.fromisoformat(event["firstTimestamp"]) <= datetime.now(UTC)
    assert (
        fleet.agent_metric(node, "gpufleet_agent_allocations_total", outcome="Rejected", reason="DeviceUnhealthy") >= 1
    )


def _told(room: Room, pod: JsonObject) -> JsonObject:
    found = [
        event
        for event in room.fleet.api.list(events(room.namespace))
        if event["involvedObject"].get("uid") == pod["metadata"]["uid"]
        and event.get("source", {}).get("component") == AGENT
    ]
    assert found, "no event of the agent"
    (event,) = found
    return event


def _released(room: Room, name: str) -> JsonObject:
    pod = room.pod(name)
    assert not pod["spec"].get("schedulingGates"), f"still gated; {room.words(name)}"
    return pod


def _offers(fleet: Fleet, node: str, count: int) -> None:
    assert fleet.allocatable(node) == count, f"{node} offers {fleet.allocatable(node)}"


def _holders(fleet: Fleet, node: str, pods_: int) -> dict[str, list[JsonObject]]:
    devices = fleet.telemetry(node)["status"]["devices"]
    found = {device["uuid"]: device["allocatedTo"] for device in devices if device.get("allocatedTo")}
    names = {holder["pod"] for holders in found.values() for holder in holders}
    assert len(names) == pods_, f"the status names {sorted(names)}"
    return found


def _running(room: Room, pod: str) -> None:
    status = room.fleet.api.get(f"{pods(room.namespace)}/{pod}")["status"]
    assert status["phase"] == "Running", f"{pod} is {status['phase']}: {status.get('message')}"


def _visible(room: Room, pod: str) -> list[str]:
    shown = room.fleet.cluster.kubectl("exec", f"--namespace={room.namespace}", pod, "--", "env").stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("NVIDIA_VISIBLE_DEVICES=")]
    return line.partition("=")[2].split(",")
