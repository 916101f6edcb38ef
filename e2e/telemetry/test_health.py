"""A device with a fault is neither offered nor picked, a killed agent remembers why, and there is a way back."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import TELEMETRY, JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.network_partition import without_apiserver
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room

SOON_SECONDS = 5
SLOW_SECONDS = 25
"""Facts of the memory are read every five seconds, and must be denied three times."""
ALLOCATABLE_SECONDS = 15
"""The kubelet publishes what a node offers every ten seconds."""
STARTED_SECONDS = 40

FILE = "/var/lib/gpufleet/faults.json"
ACKNOWLEDGED = "gpufleet.dev/acknowledged-faults"


@pytest.fixture
def node(fleet: Fleet) -> Iterator[str]:
    """The smaller node. At the end every fault that was reported on it is acknowledged."""
    name = fleet.nodes[1]
    yield name
    _acknowledge(fleet, name)


def test_xid(room: Room, fleet: Fleet, node: str) -> None:
    """Mechanism: the driver reports an XID once. After a kill the agent has it from its own last status.

    All the time the kubelet never offers the device. Only an acknowledgement brings it back: nobody saw a reset.
    """
    sick, *well = fleet.gpus[node].uuids
    began = monotonic()
    fleet.gpus[node].xid(sick, 79)
    before = eventually(lambda: _fault(fleet, node, sick, "XidError"), within=SOON_SECONDS)
    print(f"in the status {monotonic() - began:.1f} s after the XID: {before}")
    assert before["recovery"] == "Reset", before
    boot_id = fleet.node(node).run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()
    assert fleet.telemetry(node)["status"]["bootId"] == boot_id
    eventually(lambda: _offers(fleet, node, len(well)), within=ALLOCATABLE_SECONDS)
    room.apply(gpuworkload("on-it", uuids=(sick,)), gpuworkload("beside-it", count=len(well), node=node))
    _refused(room, "on-it")
    assert set(room.devices("beside-it")) == set(well)

    killed = datetime.now(UTC)
    old = fleet.agent_pod(node)["metadata"]
    fleet.api.delete(f"{pods(NAMESPACE)}/{old['name']}", grace=0)
    most = 0

    def back() -> None:
        nonlocal most
        most = max(most, fleet.allocatable(node))
        assert fleet.agent_pod(node)["metadata"]["uid"] != old["uid"], "the old pod stands"
        _observed_after(fleet, node, killed)
        assert fleet.agent_metric(node, "gpufleet_agent_registered", resource="gpufleet.dev/gpu") == 1

    eventually(back, within=STARTED_SECONDS)
    print(f"back {datetime.now(UTC) - killed} after the kill; offered meanwhile: at most {most}")
    assert _fault(fleet, node, sick, "XidError") == before, "another fault, or another time"
    eventually(lambda: _offers(fleet, node, len(well)), within=ALLOCATABLE_SECONDS)
    assert most <= len(well), "the device was offered"
    _refused(room, "on-it")

    _acknowledge(fleet, node)
    eventually(lambda: _healthy(fleet, node, sick), within=SOON_SECONDS)
    assert room.devices("on-it") == (sick,)
    room.proven("beside-it")
    eventually(lambda: _offers(fleet, node, len(well) + 1), within=ALLOCATABLE_SECONDS)


def test_xid_while_the_apiserver_is_away(room: Room, fleet: Fleet, node: str) -> None:
    """Mechanism: no status can tell of the XID, so the agent that is killed has it from its file on the node alone.

    It has it before it reaches the apiserver, and the kubelet is never offered the device. What is acknowledged
    afterwards stays so when the agent is killed once more.
    """
    fleet.renew_agents()
    sick, *well = fleet.gpus[node].uuids
    machine, process = fleet.node(node), fleet.agent_process(node)
    with without_apiserver(fleet.api, machine, fleet.agent_pod(node)):
        fleet.gpus[node].xid(sick, 79)
        eventually(lambda: _kept(fleet, node, sick), within=SOON_SECONDS)
        eventually(lambda: _offers(fleet, node, len(well)), within=ALLOCATABLE_SECONDS)
        told = fleet.telemetry(node)["status"]
        machine.run(["kill", "-KILL", str(process)])
        most = 0

        def back() -> None:
            nonlocal most
            most = max(most, fleet.allocatable(node))
            running = machine.run(["pgrep", "-x", "gpufleet-agent"], check=False).stdout.split()
            assert running, "no agent runs"
            assert running != [str(process)], "the old process stands"
            assert fleet.agent_metric(node, "gpufleet_agent_registered", resource="gpufleet.dev/gpu") == 1

        eventually(back, within=STARTED_SECONDS)
        faults = fleet.agent_metric(node, "gpufleet_agent_device_fault", UUID=sick, code="XidError")
        assert (faults, fleet.agent_metric(node, "gpufleet_agent_devices", state="Healthy")) == (1, len(well))
        eventually(lambda: _offers(fleet, node, len(well)), within=ALLOCATABLE_SECONDS)
        assert most <= len(well), "the device was offered"
        assert fleet.telemetry(node)["status"] == told, "somebody has reached the apiserver"
        assert "XidError" not in str(told), "a status could tell"
    fault = eventually(lambda: _fault(fleet, node, sick, "XidError"), within=STARTED_SECONDS)
    print(f"told when the apiserver was back: {fault}")
    assert fault["recovery"] == "Reset", fault

    _acknowledge(fleet, node)
    eventually(lambda: _healthy(fleet, node, sick), within=SOON_SECONDS)
    eventually(lambda: _kept_nothing(fleet, node), within=SOON_SECONDS)
    killed = datetime.now(UTC)
    machine.run(["kill", "-KILL", str(fleet.agent_process(node))])
    eventually(lambda: _observed_after(fleet, node, killed), within=STARTED_SECONDS)
    _healthy(fleet, node, sick)
    eventually(lambda: _offers(fleet, node, len(well) + 1), within=ALLOCATABLE_SECONDS)


def test_row_remap(room: Room, fleet: Fleet, node: str) -> None:
    """Mechanism: what readings show is a fault for as long as they show it; an acknowledgement can't talk it away."""
    sick, *well = fleet.gpus[node].uuids
    fleet.gpus[node].report(sick, remap_failed=1)
    before = eventually(lambda: _fault(fleet, node, sick, "RowRemapFailed"), within=SLOW_SECONDS)
    assert before["recovery"] == "Replacement", before
    eventually(lambda: _offers(fleet, node, len(well)), within=ALLOCATABLE_SECONDS)
    room.apply(gpuworkload("on-it", uuids=(sick,)))
    _refused(room, "on-it")
    killed = datetime.now(UTC)
    fleet.node(node).run(["kill", "-KILL", str(fleet.agent_process(node))])
    eventually(lambda: _observed_after(fleet, node, killed), within=STARTED_SECONDS)
    assert _fault(fleet, node, sick, "RowRemapFailed") == before, "another fault, or another time"
    _acknowledge(fleet, node)
    _refused(room, "on-it")
    assert _fault(fleet, node, sick, "RowRemapFailed") == before
    fleet.gpus[node].report(sick, remap_failed=0)
    eventually(lambda: _healthy(fleet, node, sick), within=SLOW_SECONDS)
    assert room.devices("on-it") == (sick,)


def test_warning(room: Room, fleet: Fleet, node: str) -> None:
    """Mechanism: a device whose clocks are forced down works. It is told, offered and picked."""
    slow = fleet.gpus[node].uuids[0]
    fleet.gpus[node].report(slow, throttle_reasons=0x40)
    told = eventually(lambda: _warned(fleet, node, slow), within=2 * SOON_SECONDS)
    print(told)
    assert told["throttleReasons"] == ["HwThermalSlowdown"], told
    assert told["health"]["state"] == "Healthy", told
    room.apply(gpuworkload("on-it", uuids=(slow,)))
    assert room.devices("on-it") == (slow,)


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


def _faults_kept(fleet: Fleet, node: str) -> dict[str, list[str]]:
    """By UUID, as the agent's file on the node has them."""
    devices = json.loads(fleet.node(node).run(["cat", FILE]).stdout)["devices"]
    return {one["uuid"]: [fault["code"] for fault in one["faults"]] for one in devices if one["faults"]}


def _kept(fleet: Fleet, node: str, uuid: str) -> None:
    kept = _faults_kept(fleet, node)
    assert kept == {uuid: ["XidError"]}, kept


def _kept_nothing(fleet: Fleet, node: str) -> None:
    kept = _faults_kept(fleet, node)
    assert not kept, kept


def _observed_after(fleet: Fleet, node: str, moment: datetime) -> None:
    observed = datetime.fromisoformat(fleet.telemetry(node)["status"]["observedAt"])
    assert observed > moment, f"last observed {observed}"


def _refused(room: Room, name: str) -> None:
    room.wait_condition(name, "Placed", "False", "NoDevices")
    found = room.workload(name)
    assert not objects.is_true(found, "Ready"), room.words(name)
    counted = {one["reason"]: one["devices"] for one in found["status"]["explanation"]["rejections"]}
    assert counted["DeviceUnhealthy"] == 1, counted


def _acknowledge(fleet: Fleet, node: str) -> None:
    """As docs/operations/faults.md says."""
    path = f"{TELEMETRY}/{node}"
    observed = fleet.api.get(path)["status"]["observedAt"]
    fleet.api.patch(path, {"metadata": {"annotations": {ACKNOWLEDGED: observed}}})
