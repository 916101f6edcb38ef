"""The agent as a DRA driver: claims with an exact device, written by hand, on one node of the cluster."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import Unpack

import pytest

from gpufleet_e2e.kubernetes_features import DEVICE_HEALTH, DEVICE_TAINTS, SHARED_CLAIMS
from gpufleet_e2e.support.api import TELEMETRY, Api, JsonObject, pods
from gpufleet_e2e.support.claims import (
    DRIVER,
    SLICES,
    PodSpecFields,
    claiming_pod,
    claims,
    publishes,
    resource_claim,
    slice_of,
)
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE, RELEASE
from gpufleet_e2e.support.manifests import SLEEP
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_e2e.support.watchdog import Watchdog, holders_by_processes

pytestmark = pytest.mark.installs("node")

READY_SECONDS = 60
RUNNING_SECONDS = 30
SECOND_SECONDS = 2
"""From the end of a pod until the one runs that waits for its device."""
GRACE_SECONDS = 10
STUBBORN = ("sh", "-c", "trap '' TERM; while true; do sleep 1; done")


def test_pod_gets_exactly_the_claimed_device(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """The environment and the telemetry name it."""
    uuid = fleet.gpus[node].uuids[5]
    _create(namespace, "dra-one", uuid)
    namespace.wait_running("dra-one", within=RUNNING_SECONDS)
    environment = _environment(namespace, "dra-one")
    assert environment["NVIDIA_VISIBLE_DEVICES"] == uuid
    assert environment["GPUFLEET_DEVICES"] == uuid
    eventually(partial(_holds, fleet, node, {uuid: [("dra-one", False)]}), within=15)


@pytest.mark.kubernetes(DEVICE_HEALTH, DEVICE_TAINTS)
def test_health_of_a_claimed_device_is_in_the_pods_status(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    uuid = fleet.gpus[node].uuids[5]
    _create(namespace, "dra-one", uuid)
    namespace.wait_running("dra-one", within=RUNNING_SECONDS)
    health = eventually(partial(_claimed_health, namespace, "dra-one"), within=15)
    assert (uuid in health["resourceID"], health["health"]) == (True, "Healthy")
    fleet.gpus[node].report(uuid, recovery_action=1)
    try:
        eventually(lambda: _is_unhealthy(namespace, "dra-one"), within=20)
        eventually(lambda: _has_taints(fleet, node, uuid, "RecoveryReset"), within=20)
    finally:
        fleet.gpus[node].report(uuid, recovery_action=0)
    eventually(partial(fleet.check_healthy, node, uuid), within=20)


@pytest.mark.kubernetes(SHARED_CLAIMS)
def test_shares_run_beside_each_other_while_their_memory_fits(
    namespace: TestNamespace, fleet: Fleet, node: str
) -> None:
    uuid = fleet.gpus[node].uuids[1]
    for name in ("dra-left", "dra-right"):
        _create(namespace, name, uuid, memory="30Gi")
        namespace.wait_running(name, within=RUNNING_SECONDS)
    assert _environment(namespace, "dra-left")["GPUFLEET_MEMORY_MIB"] == str(30 * 1024)
    eventually(partial(_holds, fleet, node, {uuid: [("dra-left", True), ("dra-right", True)]}), within=15)
    _create(namespace, "dra-third", uuid, memory="30Gi")
    message = eventually(partial(_unschedulable, namespace, "dra-third"), within=15)
    print(message)
    fleet.api.delete(f"{pods(namespace.name)}/dra-left")
    namespace.wait_running("dra-third", within=RUNNING_SECONDS)


def test_second_pod_released_for_a_device_runs_after_the_first(
    namespace: TestNamespace, fleet: Fleet, node: str
) -> None:
    """Mechanism: kube-scheduler allocates a device once, whichever of the two pods comes first."""
    uuid = fleet.gpus[node].uuids[7]
    names = ("dra-left", "dra-right")
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: _create(namespace, name, uuid), names))
    first, second = eventually(partial(_winner, namespace, names), within=RUNNING_SECONDS)
    with Watchdog(partial(holders_by_processes, "dra-"), every_seconds=0.2) as processes:
        never(lambda: _not_running(namespace, second), for_seconds=2)
        fleet.api.delete(f"{pods(namespace.name)}/{first}")
        eventually(partial(_gone, namespace, first), within=RUNNING_SECONDS, every=0.05)
        began = monotonic()
        eventually(partial(_is_running, namespace, second), within=RUNNING_SECONDS, every=0.05)
        took = monotonic() - began
        processes.check()
    assert took <= SECOND_SECONDS, f"the second pod ran {took:.1f} s after the end of the first"
    assert _environment(namespace, second)["NVIDIA_VISIBLE_DEVICES"] == uuid


@pytest.mark.kubernetes(DEVICE_TAINTS)
def test_claim_without_the_toleration_gets_no_device(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Mechanism: the taint of managed devices, so that claims of users do not take devices past the operator."""
    _create(namespace, "dra-intruder", fleet.gpus[node].uuids[2], tolerates=False)
    eventually(partial(_unschedulable, namespace, "dra-intruder"), within=15)


def test_device_of_a_force_deleted_pod_is_given_on_after_its_process(
    namespace: TestNamespace, fleet: Fleet, node: str
) -> None:
    """Mechanism: the driver waits. The API and kube-scheduler take the device for free at once."""
    uuid = fleet.gpus[node].uuids[3]
    _create(namespace, "dra-old", uuid, command=STUBBORN, terminationGracePeriodSeconds=GRACE_SECONDS)
    namespace.wait_running("dra-old", within=RUNNING_SECONDS)
    with Watchdog(partial(holders_by_processes, "dra-"), every_seconds=0.2) as processes:
        fleet.api.delete(f"{pods(namespace.name)}/dra-old")
        fleet.api.delete(f"{pods(namespace.name)}/dra-old", grace=0)
        _create(namespace, "dra-new", uuid)
        eventually(partial(_bound, namespace, "dra-new", node), within=30)
        assert uuid in holders_by_processes("dra-old"), "the old container has ended too early for this test"
        never(lambda: _not_running(namespace, "dra-new"), for_seconds=1)
        namespace.wait_running("dra-new", within=GRACE_SECONDS + RUNNING_SECONDS)
        processes.check()


def test_running_pod_and_slice_survive_restarts(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """The kubelet deletes the slice when it starts, an administrator may, and the driver is replaced: all come back."""
    uuid = fleet.gpus[node].uuids[6]
    _create(namespace, "dra-stays", uuid)
    namespace.wait_running("dra-stays", within=RUNNING_SECONDS)
    before = _container_id(namespace, "dra-stays")
    old = slice_of(fleet, node)["metadata"]
    fleet.node(node).restart_kubelet()
    eventually(partial(publishes, fleet, node, old["uid"]), within=READY_SECONDS)
    fleet.api.delete(f"{SLICES}/{old['name']}")
    eventually(partial(publishes, fleet, node), within=15)
    agent = fleet.agent_pod(node)["metadata"]
    fleet.api.delete(f"{pods(NAMESPACE)}/{agent['name']}", grace=0)
    eventually(lambda: _agent_is_ready(fleet, node, agent["uid"]), within=READY_SECONDS)
    assert _container_id(namespace, "dra-stays") == before
    # The next claim of the device waits for this pod's end, which the new driver handles.
    fleet.api.delete(f"{pods(namespace.name)}/dra-stays")
    eventually(partial(_gone, namespace, "dra-stays"), within=RUNNING_SECONDS)
    _create(namespace, "dra-next", uuid)
    namespace.wait_running("dra-next", within=RUNNING_SECONDS)
    files = fleet.node(node).run(["sh", "-c", f"ls /var/run/cdi | grep '^{DRIVER}-claim-.*json$'"]).stdout.split()
    assert len(files) == 1, files


def test_agent_may_not_write_slices_of_other_nodes(fleet: Fleet, node: str) -> None:
    agent = Api(fleet.cluster.kubeconfig, user=f"system:serviceaccount:{NAMESPACE}:{RELEASE}-agent")
    found = slice_of(fleet, node)
    path = f"{SLICES}/{found['metadata']['name']}"
    response = agent.call("PATCH", path, {"spec": {"devices": []}}, "application/merge-patch+json")
    assert not response.allowed
    assert "agent on an unknown node may not write ResourceSlice" in response.message


def _create(
    namespace: TestNamespace,
    name: str,
    uuid: str,
    *,
    memory: str = "",
    tolerates: bool = True,
    command: tuple[str, ...] = SLEEP,
    **pod: Unpack[PodSpecFields],
) -> None:
    """Creates a claim and a pod of the same name."""
    claim = resource_claim(name, uuid, memory=memory, tolerates=tolerates)
    namespace.fleet.api.create(claims(namespace.name), claim)
    namespace.fleet.api.create(pods(namespace.name), claiming_pod(name, name, command=command, **pod))


def _pod(namespace: TestNamespace, name: str) -> JsonObject:
    return namespace.fleet.api.get(f"{pods(namespace.name)}/{name}")


def _not_running(namespace: TestNamespace, name: str) -> None:
    assert _pod(namespace, name)["status"]["phase"] == "Pending"


def _is_running(namespace: TestNamespace, name: str) -> None:
    assert _pod(namespace, name)["status"]["phase"] == "Running"


def _bound(namespace: TestNamespace, name: str, node: str) -> None:
    assert _pod(namespace, name)["spec"].get("nodeName") == node


def _winner(namespace: TestNamespace, names: tuple[str, str]) -> tuple[str, str]:
    """Returns the pod that runs, and the one that kube-scheduler has no device for."""
    running = [name for name in names if _pod(namespace, name)["status"]["phase"] == "Running"]
    assert len(running) == 1, f"running: {running}"
    (other,) = set(names) - set(running)
    assert "cannot allocate all claims" in _unschedulable(namespace, other)
    return running[0], other


def _gone(namespace: TestNamespace, name: str) -> None:
    assert namespace.fleet.api.find(f"{pods(namespace.name)}/{name}") is None


def _unschedulable(namespace: TestNamespace, name: str) -> str:
    conditions = {one["type"]: one for one in _pod(namespace, name)["status"].get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    assert scheduled.get("reason") == "Unschedulable", scheduled
    return str(scheduled["message"])


def _environment(namespace: TestNamespace, pod: str) -> dict[str, str]:
    shown = namespace.fleet.cluster.kubectl("exec", f"--namespace={namespace.name}", pod, "--", "env").stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def _container_id(namespace: TestNamespace, name: str) -> str:
    return str(_pod(namespace, name)["status"]["containerStatuses"][0]["containerID"])


def _claimed_health(namespace: TestNamespace, name: str) -> JsonObject:
    status = _pod(namespace, name)["status"]["containerStatuses"][0]
    found = [each for each in status.get("allocatedResourcesStatus", []) if each["name"].startswith("claim:")]
    assert found, status
    health: JsonObject = found[0]["resources"][0]
    assert health["health"] != "Unknown", health
    return health


def _is_unhealthy(namespace: TestNamespace, name: str) -> None:
    health = _claimed_health(namespace, name)
    assert health["health"] == "Unhealthy", health


def _has_taints(fleet: Fleet, node: str, uuid: str, *values: str) -> None:
    """The first taint is that of every device."""
    assert [taint["value"] for taint in _device(fleet, node, uuid)["taints"][1:]] == list(values)


def _device(fleet: Fleet, node: str, uuid: str) -> JsonObject:
    devices = slice_of(fleet, node)["spec"]["devices"]
    return next(one for one in devices if one["attributes"]["uuid"]["string"] == uuid)


def _holds(fleet: Fleet, node: str, expected: dict[str, list[tuple[str, bool]]]) -> None:
    devices = fleet.api.get(f"{TELEMETRY}/{node}")["status"]["devices"]
    found = {
        device["uuid"]: [(one["pod"], one.get("shared", False)) for one in device["allocatedTo"]]
        for device in devices
        if device.get("allocatedTo")
    }
    assert found == expected


def _agent_is_ready(fleet: Fleet, node: str, not_uid: str) -> None:
    pod = fleet.agent_pod(node)
    assert pod["metadata"]["uid"] != not_uid
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    assert conditions.get("Ready") == "True"
