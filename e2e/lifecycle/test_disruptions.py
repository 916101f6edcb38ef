"""What the cluster does to pods is no failure of the application, and a gang with policy Fail ends without a member."""

from collections.abc import Iterator
from functools import partial

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import NODES, JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import IDLE, container, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

SLOT = "example.com/slot"
"""An extended resource of which a node has one: two pods that request it cannot run there."""
END_SECONDS = 40


@pytest.fixture
def slot_node(fleet: Fleet) -> Iterator[str]:
    """The second node, with one slot."""
    node = fleet.nodes[1]
    _set_slots(fleet, node, "1")
    eventually(lambda: _offers_slot(fleet, node), within=20)
    yield node
    _set_slots(fleet, node, None)


def test_preemption_does_not_count_against_backoff_limit(
    namespace: TestNamespace, fleet: Fleet, slot_node: str
) -> None:
    """Mechanism: kube-scheduler marks the pod that it deletes; the operator waits until the node has a slot again.

    The container ends with exit code 137, because it ignores SIGTERM.
    """
    main = container(command=("sh", "-c", "exec sleep 1000000"), resources={"limits": {SLOT: "1"}})
    template, policy = pod_spec(main, restartPolicy="Never"), {"backoffLimit": 0}
    namespace.apply(gpuworkload("batch", node=slot_node, template=template, runPolicy=policy))
    namespace.verify("batch")
    before = namespace.pod("batch")["metadata"]["uid"]
    where = {"kubernetes.io/hostname": slot_node}
    urgent = plain_pod("urgent", priorityClassName="system-cluster-critical", nodeSelector=where, containers=[main])
    fleet.api.create(pods(namespace.name), urgent)
    namespace.wait_running("urgent", within=30)
    print(eventually(lambda: _lacks_slot(namespace), within=40))
    _check_no_failure(namespace, "batch")
    fleet.api.delete(f"{pods(namespace.name)}/urgent")
    namespace.verify("batch")
    assert namespace.pod("batch")["metadata"]["uid"] != before
    _check_no_failure(namespace, "batch")


def test_gang_with_policy_fail_fails_when_it_loses_a_member(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the outcome is stored first; then the other member is deleted and all devices are free.

    One gang loses a pod that is deleted, the other one a pod that fails.
    """
    shape: JsonObject = {"replicas": 2, "placement": {"gang": True}, "runPolicy": {"onReplicaFailure": "Fail"}}
    commands = {"deleted": IDLE, "exits": "test $GPUFLEET_REPLICA != 1 || { sleep 3; exit 7; }; " + IDLE}
    for name, command in commands.items():
        template = pod_spec(container(command=("sh", "-c", command)), restartPolicy="Never")
        namespace.apply(gpuworkload(name, template=template, **shape))
    namespace.wait_ready("deleted")
    lost = namespace.pods("deleted")[1]["metadata"]["name"]
    fleet.api.delete(f"{pods(namespace.name)}/{lost}")
    words = {"deleted": f"replica 1: pod {lost}", "exits": "replica 1: container main: exit code 7"}
    for name, expected in words.items():
        message = namespace.wait_condition(name, "Failed", "True", "ReplicaFailed", within=END_SECONDS)
        print(message)
        assert expected in message
        eventually(partial(_runs_nothing, namespace, fleet, name), within=30)
    never(lambda: _runs_nothing(namespace, fleet, *words), for_seconds=3)
    statuses = {name: namespace.workload(name)["status"] for name in words}
    assert {name: status["failed"] for name, status in statuses.items()} == {"deleted": 0, "exits": 1}
    assert {status["state"] for status in statuses.values()} == {"Failed"}


def _set_slots(fleet: Fleet, node: str, number: str | None) -> None:
    status = {"capacity": {SLOT: number}, "allocatable": {SLOT: number}}
    fleet.api.patch(f"{NODES}/{node}/status", {"status": status})


def _offers_slot(fleet: Fleet, node: str) -> None:
    assert fleet.allocatable(node, SLOT) == 1, f"{node} has no {SLOT}"


def _lacks_slot(namespace: TestNamespace) -> str:
    """Checks that the workload waits for a slot. The node seems to have one before the urgent pod is bound."""
    placed = objects.condition(namespace.workload("batch"), "Placed")
    assert placed["reason"] == "NoDevicesAvailable", namespace.describe("batch")
    assert f"insufficient {SLOT} on the node" in placed["message"], placed
    return str(placed["message"])


def _check_no_failure(namespace: TestNamespace, name: str) -> None:
    found = namespace.workload(name)
    assert found["status"]["failed"] == 0, namespace.describe(name)
    assert not objects.is_true(found, "Failed"), namespace.describe(name)


def _runs_nothing(namespace: TestNamespace, fleet: Fleet, *names: str) -> None:
    running = [
        pod["metadata"]["name"]
        for name in names
        for pod in namespace.all_pods(name)
        if pod["status"]["phase"] not in ("Succeeded", "Failed")
    ]
    assert not running, f"pods of a failed gang: {running}"
    held = [one for one in fleet.assignments(namespace.name).values() if one["workload"] in names]
    assert not held, f"devices of a failed gang are reserved: {held}"
