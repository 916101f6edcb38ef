"""A container outlives its pod that was deleted by force: its device is not free before it has ended."""

from functools import partial

from gpufleet_e2e.support.api import JsonObject, events, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_e2e.support.watchdog import Watchdog, holders_by_processes

GRACE_SECONDS = 14
"""Longer than the 5 s plus one report after which the operator once took the device for free."""

STUBBORN = container(command=("sh", "-c", "trap '' TERM; while true; do sleep 1; done"))


def test_device_is_held_until_the_container_ends(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the agent looks for processes of the pod in the cgroups of the node.

    The kubelet grants a container that it is ending the rest of its grace period, although neither the API nor the
    kubelet's list has the pod any more. A workload waits for the device of a managed pod, and a pod without a workload
    asks for the node's next device.
    """
    node = fleet.nodes[0]
    uuid = fleet.gpus[node].uuids[3]
    slow = pod_spec(STUBBORN, terminationGracePeriodSeconds=GRACE_SECONDS)
    namespace.apply(gpuworkload("held-old", uuids=(uuid,), template=slow))
    namespace.verify("held-old")
    bare = plain_pod("held-bare", count=1, nodeName=node, **slow)
    bare["spec"]["containers"][0]["resources"] = {"limits": {"gpufleet.dev/gpu": "1"}}
    fleet.api.create(pods(namespace.name), bare)
    (bare_uuid,) = eventually(partial(_held_by, fleet, node, "held-bare"), within=20)
    old = namespace.pod("held-old")["metadata"]["name"]
    namespace.apply(gpuworkload("held-new", uuids=(uuid,)))
    with Watchdog(partial(holders_by_processes, "held-"), every_seconds=0.2) as processes:
        namespace.delete("held-old")
        fleet.api.delete(f"{pods(namespace.name)}/held-bare")
        eventually(partial(_are_being_killed, namespace, {old, "held-bare"}), within=30)
        for name in (old, "held-bare"):
            fleet.api.delete(f"{pods(namespace.name)}/{name}", grace=0)
        eventually(partial(_are_terminating, fleet, node, {uuid: old, bare_uuid: "held-bare"}), within=30)
        fleet.api.create(pods(namespace.name), plain_pod("held-next", count=1, nodeName=node))
        (next_uuid,) = eventually(partial(_held_by, fleet, node, "held-next"), within=30)
        assert next_uuid not in (uuid, bare_uuid)
        assert _holders(fleet, node)[uuid]["pod"] == old, "the container has ended too early for this test"
        namespace.verify("held-new", within=GRACE_SECONDS + 30)
        processes.check()
    assert not _holders(fleet, node)[uuid].get("terminating")
    assert bare_uuid not in _holders(fleet, node)


def _holders(fleet: Fleet, node: str) -> dict[str, JsonObject]:
    devices = fleet.telemetry(node)["status"]["devices"]
    return {device["uuid"]: device["allocatedTo"][0] for device in devices if device.get("allocatedTo")}


def _held_by(fleet: Fleet, node: str, pod: str) -> list[str]:
    found = [uuid for uuid, holder in _holders(fleet, node).items() if holder["pod"] == pod]
    assert found, f"{pod} holds no device yet"
    return found


def _are_being_killed(namespace: TestNamespace, expected: set[str]) -> None:
    recorded = namespace.fleet.api.list(events(namespace.name))
    assert {one["involvedObject"]["name"] for one in recorded if one["reason"] == "Killing"} >= expected


def _are_terminating(fleet: Fleet, node: str, expected: dict[str, str]) -> None:
    found = {uuid: one["pod"] for uuid, one in _holders(fleet, node).items() if one.get("terminating")}
    assert found == expected, f"processes: {holders_by_processes('held-')}"
