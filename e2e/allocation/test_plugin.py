"""Devices of pods without a reservation, and the reason of a rejected request."""

from datetime import UTC, datetime
from functools import partial

from gpufleet_e2e.support.api import JsonObject, events, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import BY_HAND
from gpufleet_e2e.support.manifests import IMAGE, container, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

AGENT = "gpufleet-agent"
SHARED = "gpufleet.dev/gpu-shared"


def test_container_reuses_the_devices_of_its_init_container(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the kubelet reuses them without GetPreferredAllocation; Allocate accepts that."""
    node = fleet.nodes[1]
    pod = plain_pod("init", count=1, nodeSelector={"kubernetes.io/hostname": node})
    limits = {"resources": {"limits": {"gpufleet.dev/gpu": "2"}}}
    pod["spec"]["initContainers"] = [{"name": "first", "image": IMAGE, "command": ["true"], **limits}]
    fleet.api.create(pods(namespace.name), pod)
    namespace.wait_running("init", within=30)
    assert _visible(namespace, "init")[0] in fleet.gpus[node].uuids[:2]


def test_unmanaged_pods_share_one_device(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: slots of a second resource. Two pods share one device; a third gets other devices as a whole."""
    node = fleet.nodes[1]
    for name in ("left", "right"):
        pod = plain_pod(name, nodeSelector={"kubernetes.io/hostname": node})
        pod["spec"]["containers"] = [container(resources={"limits": {SHARED: "1"}})]
        fleet.api.create(pods(namespace.name), pod)
    whole = plain_pod("whole", count=7, nodeSelector={"kubernetes.io/hostname": node})
    namespace.wait_running("left", within=30)
    namespace.wait_running("right", within=30)
    fleet.api.create(pods(namespace.name), whole)
    namespace.wait_running("whole", within=30)
    assert _visible(namespace, "left") == _visible(namespace, "right")
    assert len(_visible(namespace, "left")) == 1
    assert sorted(_visible(namespace, "left") + _visible(namespace, "whole")) == sorted(fleet.gpus[node].uuids)
    reported = eventually(partial(_holders, fleet, node, 3), within=15)
    shared = [
        holder for uuid, holders in reported.items() for holder in holders if uuid == _visible(namespace, "left")[0]
    ]
    assert [(holder["pod"], holder.get("shared")) for holder in shared] == [("left", True), ("right", True)]


def test_rejection_is_an_event_on_the_pod(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the agent knows from its own object which pod it rejects, and records an event; so does the kubelet.

    Only the test binds the pod, so the device becomes unhealthy exactly between release and admission.
    """
    node = fleet.nodes[0]
    lost = fleet.gpus[node].uuids[3]
    namespace.apply(gpuworkload("rejected", uuids=(lost,), template=pod_spec(schedulerName=BY_HAND)))
    pod = eventually(lambda: _released(namespace, "rejected"), within=15)
    fleet.gpus[node].lose(lost)
    eventually(lambda: _offers(fleet, node, 15), within=20)
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}, "target": target}
    fleet.api.create(f"{pods(namespace.name)}/{pod['metadata']['name']}/binding", binding)
    event = eventually(lambda: _agent_event(namespace, pod), within=20)
    print(f"{event['reason']}: {event['message']}")
    assert event["reason"] == "DeviceUnhealthy"
    assert event["type"] == "Warning"
    assert lost in event["message"]
    assert event["source"]["host"] == node
    assert datetime.fromisoformat(event["firstTimestamp"]) <= datetime.now(UTC)
    assert (
        fleet.agent_metric(node, "gpufleet_agent_allocations_total", outcome="Rejected", reason="DeviceUnhealthy") >= 1
    )


def _agent_event(namespace: TestNamespace, pod: JsonObject) -> JsonObject:
    found = [
        event
        for event in namespace.fleet.api.list(events(namespace.name))
        if event["involvedObject"].get("uid") == pod["metadata"]["uid"]
        and event.get("source", {}).get("component") == AGENT
    ]
    assert found, "the agent recorded no event"
    (event,) = found
    return event


def _released(namespace: TestNamespace, name: str) -> JsonObject:
    pod = namespace.pod(name)
    assert not pod["spec"].get("schedulingGates"), f"still gated; {namespace.describe(name)}"
    return pod


def _offers(fleet: Fleet, node: str, count: int) -> None:
    assert fleet.allocatable(node) == count, f"{node} offers {fleet.allocatable(node)}"


def _holders(fleet: Fleet, node: str, pods_: int) -> dict[str, list[JsonObject]]:
    devices = fleet.telemetry(node)["status"]["devices"]
    found = {device["uuid"]: device["allocatedTo"] for device in devices if device.get("allocatedTo")}
    names = {holder["pod"] for holders in found.values() for holder in holders}
    assert len(names) == pods_, f"the status lists {sorted(names)}"
    return found


def _visible(namespace: TestNamespace, pod: str) -> list[str]:
    shown = namespace.fleet.cluster.kubectl("exec", f"--namespace={namespace.name}", pod, "--", "env").stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("NVIDIA_VISIBLE_DEVICES=")]
    return line.partition("=")[2].split(",")
