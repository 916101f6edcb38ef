"""A device with a fault is neither offered nor picked, the fault survives a killed agent, and can be acknowledged."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic

import pytest

from gpufleet_e2e.faults.network_partition import without_apiserver
from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import NODES, TELEMETRY, JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

SOON_SECONDS = 5
SLOW_SECONDS = 25
"""Memory facts are read every five seconds, and a fault ends after three readings without it."""
ALLOCATABLE_SECONDS = 15
"""The kubelet publishes what a node offers every ten seconds."""
STARTED_SECONDS = 40
REJECTED_SECONDS = 30
"""A restarted agent may be stale first, so that staleness is the reason until its next report."""

FILE = "/var/lib/gpufleet/faults.json"
ACKNOWLEDGED = "gpufleet.dev/acknowledged-faults"


@pytest.fixture
def node(fleet: Fleet) -> Iterator[str]:
    """The smaller node; at the end every fault reported on it is acknowledged."""
    name = fleet.nodes[1]
    yield name
    _acknowledge(fleet, name)


def test_xid(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Mechanism: the driver reports an XID once. A killed agent restores it from its own last status.

    The kubelet never offers the device meanwhile. Only an acknowledgment brings it back, because no reset was seen.
    """
    faulty, *healthy = fleet.gpus[node].uuids
    began = monotonic()
    fleet.gpus[node].xid(faulty, 79)
    before = eventually(lambda: _fault(fleet, node, faulty, "XidError"), within=SOON_SECONDS)
    print(f"in the status {monotonic() - began:.1f} s after the XID: {before}")
    assert before["recovery"] == "Reboot", before
    message = eventually(lambda: _node_health(fleet, node, "False", "XidError"), within=SOON_SECONDS)
    assert faulty in message, message
    boot_id = fleet.node(node).run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()
    assert fleet.telemetry(node)["status"]["bootId"] == boot_id
    eventually(lambda: _offers(fleet, node, len(healthy)), within=ALLOCATABLE_SECONDS)
    namespace.apply(gpuworkload("on-it", uuids=(faulty,)), gpuworkload("beside-it", count=len(healthy), node=node))
    _wait_rejected(namespace, "on-it")
    assert set(namespace.devices("beside-it")) == set(healthy)

    killed = datetime.now(UTC)
    old = fleet.agent_pod(node)["metadata"]
    fleet.api.delete(f"{pods(NAMESPACE)}/{old['name']}", grace=0)
    most = 0

    def back() -> None:
        nonlocal most
        most = max(most, fleet.allocatable(node))
        assert fleet.agent_pod(node)["metadata"]["uid"] != old["uid"], "the old pod still exists"
        _observed_after(fleet, node, killed)
        assert fleet.agent_metric(node, "gpufleet_agent_registered", resource="gpufleet.dev/gpu") == 1

    eventually(back, within=STARTED_SECONDS)
    print(f"back {datetime.now(UTC) - killed} after the kill; offered meanwhile: at most {most}")
    assert _fault(fleet, node, faulty, "XidError") == before, "another fault, or another time"
    eventually(lambda: _offers(fleet, node, len(healthy)), within=ALLOCATABLE_SECONDS)
    assert most <= len(healthy), "the device was offered"
    _wait_rejected(namespace, "on-it")

    _acknowledge(fleet, node)
    eventually(lambda: _healthy(fleet, node, faulty), within=SOON_SECONDS)
    eventually(lambda: _node_health(fleet, node, "True", "DevicesHealthy"), within=SOON_SECONDS)
    assert namespace.devices("on-it") == (faulty,)
    namespace.verify("beside-it")
    eventually(lambda: _offers(fleet, node, len(healthy) + 1), within=ALLOCATABLE_SECONDS)


def test_xid_while_the_apiserver_is_unreachable(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Mechanism: no status contains the XID, so a killed agent restores it only from its file on the node.

    It is restored before the agent reaches the apiserver, and the kubelet is never offered the device. An
    acknowledgment afterwards survives another kill.
    """
    fleet.replace_agents()
    faulty, *healthy = fleet.gpus[node].uuids
    machine, process = fleet.node(node), fleet.agent_process(node)
    with without_apiserver(fleet.api, machine, fleet.agent_pod(node)):
        fleet.gpus[node].xid(faulty, 79)
        eventually(lambda: _stored(fleet, node, faulty), within=SOON_SECONDS)
        eventually(lambda: _offers(fleet, node, len(healthy)), within=ALLOCATABLE_SECONDS)
        written = fleet.telemetry(node)["status"]
        machine.run(["kill", "-KILL", str(process)])
        most = 0

        def back() -> None:
            nonlocal most
            most = max(most, fleet.allocatable(node))
            running = machine.run(["pgrep", "-x", "gpufleet-agent"], check=False).stdout.split()
            assert running, "no agent runs"
            assert running != [str(process)], "the old process still runs"
            assert fleet.agent_metric(node, "gpufleet_agent_registered", resource="gpufleet.dev/gpu") == 1

        eventually(back, within=STARTED_SECONDS)
        faults = fleet.agent_metric(node, "gpufleet_agent_device_fault", UUID=faulty, code="XidError")
        assert (faults, fleet.agent_metric(node, "gpufleet_agent_devices", state="Healthy")) == (1, len(healthy))
        eventually(lambda: _offers(fleet, node, len(healthy)), within=ALLOCATABLE_SECONDS)
        assert most <= len(healthy), "the device was offered"
        now = fleet.telemetry(node)["status"]
        assert now["observedAt"] == written["observedAt"], "the agent reached the apiserver"
        assert "XidError" not in str(written), "the status contains the XID"
    fault = eventually(lambda: _fault(fleet, node, faulty, "XidError"), within=STARTED_SECONDS)
    print(f"reported when the apiserver was reachable again: {fault}")
    assert fault["recovery"] == "Reboot", fault

    _acknowledge(fleet, node)
    eventually(lambda: _healthy(fleet, node, faulty), within=SOON_SECONDS)
    eventually(lambda: _nothing_stored(fleet, node), within=SOON_SECONDS)
    machine.run(["kill", "-KILL", str(fleet.agent_process(node))])
    killed = datetime.now(UTC)  # the old process observed nothing later
    eventually(lambda: _observed_after(fleet, node, killed), within=STARTED_SECONDS)
    _healthy(fleet, node, faulty)
    eventually(lambda: _offers(fleet, node, len(healthy) + 1), within=ALLOCATABLE_SECONDS)


def test_row_remap(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Mechanism: a fault lasts as long as readings show it; an acknowledgment does not clear it."""
    faulty, *healthy = fleet.gpus[node].uuids
    fleet.gpus[node].report(faulty, remap_failed=1)
    before = eventually(lambda: _fault(fleet, node, faulty, "RowRemapFailed"), within=SLOW_SECONDS)
    assert before["recovery"] == "Replacement", before
    eventually(lambda: _offers(fleet, node, len(healthy)), within=ALLOCATABLE_SECONDS)
    namespace.apply(gpuworkload("on-it", uuids=(faulty,)))
    _wait_rejected(namespace, "on-it")
    fleet.node(node).run(["kill", "-KILL", str(fleet.agent_process(node))])
    killed = datetime.now(UTC)  # the old process observed nothing later
    eventually(lambda: _observed_after(fleet, node, killed), within=STARTED_SECONDS)
    assert _fault(fleet, node, faulty, "RowRemapFailed") == before, "another fault, or another time"
    _acknowledge(fleet, node)
    _wait_rejected(namespace, "on-it")
    assert _fault(fleet, node, faulty, "RowRemapFailed") == before
    fleet.gpus[node].report(faulty, remap_failed=0)
    eventually(lambda: _healthy(fleet, node, faulty), within=SLOW_SECONDS)
    assert namespace.devices("on-it") == (faulty,)


def test_recovery_action_is_a_fault_while_reported(fleet: Fleet, node: str) -> None:
    """Mechanism: the driver's recovery action is a fault while it is reported; "none" ends the fault of an XID."""
    faulty = fleet.gpus[node].uuids[0]
    fleet.gpus[node].report(faulty, recovery_action=1)
    fleet.gpus[node].xid(faulty, 109)
    fault = eventually(lambda: _fault(fleet, node, faulty, "RecoveryReset"), within=SOON_SECONDS)
    assert fault["recovery"] == "Reset", fault
    eventually(lambda: _fault(fleet, node, faulty, "XidError"), within=SOON_SECONDS)
    fleet.gpus[node].report(faulty, recovery_action=0)
    eventually(lambda: _healthy(fleet, node, faulty), within=2 * SOON_SECONDS)


def test_warning(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Mechanism: a device whose clocks are throttled works. It is reported with a warning, offered and picked."""
    slow = fleet.gpus[node].uuids[0]
    fleet.gpus[node].report(slow, throttle_reasons=0x40)
    device = eventually(lambda: _warned(fleet, node, slow), within=2 * SOON_SECONDS)
    print(device)
    assert device["throttleReasons"] == ["HwThermalSlowdown"], device
    assert device["health"]["state"] == "Healthy", device
    namespace.apply(gpuworkload("on-it", uuids=(slow,)))
    assert namespace.devices("on-it") == (slow,)


def _device(fleet: Fleet, node: str, uuid: str) -> JsonObject:
    found: list[JsonObject] = [one for one in fleet.telemetry(node)["status"]["devices"] if one["uuid"] == uuid]
    assert len(found) == 1, f"{len(found)} devices {uuid}"
    return found[0]


def _fault(fleet: Fleet, node: str, uuid: str, code: str) -> JsonObject:
    health = _device(fleet, node, uuid)["health"]
    found: list[JsonObject] = [one for one in health.get("reasons", ()) if one["code"] == code]
    assert found, f"{uuid} has no {code}: {health}"
    assert health["state"] == "Unhealthy", health
    return found[0]


def _node_health(fleet: Fleet, node: str, status: str, reason: str) -> str:
    """Returns the message of the Node's condition, if it has this status and reason."""
    condition = objects.condition(fleet.api.get(f"{NODES}/{node}"), "GPUHealthy")
    assert (condition.get("status"), condition.get("reason")) == (status, reason), condition
    return str(condition["message"])


def _warned(fleet: Fleet, node: str, uuid: str) -> JsonObject:
    device = _device(fleet, node, uuid)
    assert [one["code"] for one in device["health"].get("warnings", ())] == ["HwThermalSlowdown"], device["health"]
    return device


def _healthy(fleet: Fleet, node: str, uuid: str) -> None:
    health = _device(fleet, node, uuid)["health"]
    assert health["state"] == "Healthy", health
    assert "reasons" not in health, health


def _offers(fleet: Fleet, node: str, devices: int) -> None:
    offered = fleet.allocatable(node)
    assert offered == devices, f"{node} offers {offered} devices, not {devices}"


def _stored_faults(fleet: Fleet, node: str) -> dict[str, list[str]]:
    """Reads the codes of the faults in the agent's file on the node, by UUID."""
    devices = json.loads(fleet.node(node).run(["cat", FILE]).stdout)["devices"]
    return {one["uuid"]: [fault["code"] for fault in one["faults"]] for one in devices if one["faults"]}


def _stored(fleet: Fleet, node: str, uuid: str) -> None:
    stored = _stored_faults(fleet, node)
    assert stored == {uuid: ["XidError"]}, stored


def _nothing_stored(fleet: Fleet, node: str) -> None:
    stored = _stored_faults(fleet, node)
    assert not stored, stored


def _observed_after(fleet: Fleet, node: str, moment: datetime) -> None:
    observed = datetime.fromisoformat(fleet.telemetry(node)["status"]["observedAt"])
    assert observed > moment, f"last observed {observed}"


def _wait_rejected(namespace: TestNamespace, name: str) -> None:
    namespace.wait_rejected(name, "DeviceUnhealthy", 1, within=REJECTED_SECONDS)


def _acknowledge(fleet: Fleet, node: str) -> None:
    """Acknowledges all faults, as docs/operations/faults.md describes."""
    path = f"{TELEMETRY}/{node}"
    observed = fleet.api.get(path)["status"]["observedAt"]
    fleet.api.patch(path, {"metadata": {"annotations": {ACKNOWLEDGED: observed}}})
