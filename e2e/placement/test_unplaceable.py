"""A workload that can't be placed stays gated, says why in words with numbers, and goes on when the obstacle does."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import GATE, gpuworkload
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import Room

SOON_SECONDS = 5
ALLOCATABLE_SECONDS = 15
"""The kubelet publishes what a node offers every ten seconds."""


def test_too_hot_until_it_cools(room: Room, fleet: Fleet) -> None:
    """Mechanism: telemetry triggers decisions. The condition counts the failed tests and names the nearest miss."""
    node = fleet.nodes[1]
    warm, hot, *_ = fleet.gpus[node].uuids
    for uuid, celsius in ((warm, 84), (hot, 95)):
        fleet.gpus[node].report(uuid, temperature_celsius=celsius)
    eventually(lambda: _reports(fleet, node, warm, temperature_celsius=84), within=SOON_SECONDS)
    room.apply(gpuworkload("cool-only", uuids=(warm, hot), requirements={"maxTemperatureCelsius": 80}))
    message = room.wait_condition("cool-only", "Placed", "False", "NoDevices")
    print(message)
    said = room.workload("cool-only")["status"]["explanation"]
    counted = {one["reason"]: one["devices"] for one in said["rejections"]}
    assert counted["TooHot"] == 2, said
    assert counted["NotInIncludeUUIDs"] == 22, said
    assert said["nearestMiss"]["device"] == warm, said
    assert "84" in said["nearestMiss"]["message"], said
    assert "80" in said["nearestMiss"]["message"], said
    assert "84" in message, "the condition names the nearest miss"
    assert "2" in message, "the condition counts"
    _still_gated(room, "cool-only")
    fleet.gpus[node].report(warm, temperature_celsius=60)
    _placed_within(room, "cool-only", SOON_SECONDS, lambda: None)
    assert room.devices("cool-only") == (warm,)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What a device reports that keeps a requirement from being met, and what it reports without that."""

    requirements: dict[str, int]
    reason: str
    words: str
    """Of the nearest miss, as a regular expression: what the driver keeps for itself counts, too."""
    bad: dict[str, int]
    good: dict[str, int]
    other: dict[str, int]
    """Of a second device, further away from what is asked for."""


OBSTACLES = [
    pytest.param(
        Obstacle(
            requirements={"minFreeMemoryMiB": 60_000},
            reason="InsufficientFreeMemory",
            words=r"needs 60,000 MiB, has 5\d,\d{3} MiB",
            bad={"memory_used_mib": 30_000},
            good={"memory_used_mib": 20_000},
            other={"memory_used_mib": 70_000},
        ),
        id="free memory",
    ),
    pytest.param(
        Obstacle(
            requirements={"maxUtilizationPercent": 50},
            reason="UtilizationTooHigh",
            words="is 70 %, limit 50 %",
            bad={"utilization_percent": 70},
            good={"utilization_percent": 30},
            other={"utilization_percent": 95},
        ),
        id="utilization",
    ),
]


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_too_full_or_too_busy_until_it_is_not(room: Room, fleet: Fleet, obstacle: Obstacle) -> None:
    """Mechanism: as for heat. Two devices would do but for the obstacle; the nearer one is named, freed and taken."""
    node = fleet.nodes[1]
    near, far, *_ = fleet.gpus[node].uuids
    fleet.gpus[node].report(near, **obstacle.bad)
    fleet.gpus[node].report(far, **obstacle.other)
    eventually(lambda: _reports(fleet, node, near, **obstacle.bad), within=SOON_SECONDS)
    room.apply(gpuworkload("picky", uuids=(near, far), requirements=obstacle.requirements))
    message = room.wait_condition("picky", "Placed", "False", "NoDevices")
    print(message)
    said = room.workload("picky")["status"]["explanation"]
    assert {one["reason"]: one["devices"] for one in said["rejections"]}[obstacle.reason] == 2, said
    assert said["nearestMiss"]["device"] == near, said
    assert re.search(obstacle.words, said["nearestMiss"]["message"]), said
    assert re.search(obstacle.words, message), "the condition names the nearest miss"
    _still_gated(room, "picky")
    fleet.gpus[node].report(near, **obstacle.good)
    _placed_within(room, "picky", SOON_SECONDS, lambda: None)
    assert room.devices("picky") == (near,)


def test_in_use_until_it_is_free(room: Room, fleet: Fleet) -> None:
    """Mechanism: a device that is let go triggers a decision. Measured from the moment its pod is gone."""
    node = fleet.nodes[1]
    uuids = fleet.gpus[node].uuids[:2]
    room.apply(gpuworkload("holder", count=2, uuids=uuids))
    room.proven("holder")
    room.apply(gpuworkload("waiter", uuids=uuids))
    print(room.wait_condition("waiter", "Placed", "False", "NoDevices"))
    counted = {one["reason"]: one["devices"] for one in room.workload("waiter")["status"]["explanation"]["rejections"]}
    assert counted["DeviceInUse"] == 2
    _still_gated(room, "waiter")
    room.delete("holder")
    _placed_within(room, "waiter", SOON_SECONDS, lambda: _gone(room, "holder"))
    room.proven("waiter")


def test_unhealthy_until_it_recovers(room: Room, fleet: Fleet) -> None:
    """Mechanism: agent's health -> kubelet's allocatable -> placement, in both directions."""
    node = fleet.nodes[1]
    lost = fleet.gpus[node].uuids[3]
    fleet.gpus[node].lose(lost)
    eventually(lambda: _healthy(fleet, node, 7), within=ALLOCATABLE_SECONDS)
    room.apply(gpuworkload("waiter", uuids=(lost,)))
    print(room.wait_condition("waiter", "Placed", "False", "NoDevices"))
    counted = {one["reason"]: one["devices"] for one in room.workload("waiter")["status"]["explanation"]["rejections"]}
    assert counted["DeviceUnhealthy"] == 1
    assert room.workload("waiter")["status"]["explanation"]["nearestMiss"]["device"] == lost
    _still_gated(room, "waiter")
    # All others are taken, so that it is the node's allocatable that has to change.
    room.apply(gpuworkload("everything", count=7, node=node))
    room.proven("everything")
    fleet.gpus[node].restore(lost)
    began = monotonic()
    room.wait_for("waiter", lambda found: objects.is_true(found, "Placed"), ALLOCATABLE_SECONDS)
    placed = monotonic() - began
    room.wait_ready("waiter", within=ALLOCATABLE_SECONDS)
    print(f"placed {placed:.1f} s, Ready {monotonic() - began:.1f} s after the device answers again")
    assert room.devices("waiter") == (lost,)


def test_more_than_there_is(room: Room, fleet: Fleet) -> None:
    """Mechanism: counts by reason over the whole fleet, and no reservation for what can't be had."""
    room.apply(
        gpuworkload("wide", count=16, node=fleet.nodes[1]),
        gpuworkload("big", requirements={"minFreeMemoryMiB": 200_000}),
    )
    for name, reason, devices in (("wide", "TooFewDevicesOnNode", 8), ("big", "InsufficientFreeMemory", 24)):
        message = room.wait_condition(name, "Placed", "False", "NoDevices")
        print(message)
        said = room.workload(name)["status"]["explanation"]
        assert {one["reason"]: one["devices"] for one in said["rejections"]}[reason] == devices, said
        assert said["devicesConsidered"] == 24
        assert str(devices) in message
    never(lambda: _nothing_reserved(room), for_seconds=3)
    assert objects.condition(room.workload("big"), "Placed")["observedGeneration"] == 1


def _placed_within(room: Room, name: str, seconds: float, gone: Callable[[], None]) -> None:
    eventually(gone, within=30)
    began = monotonic()
    room.wait_for(name, lambda found: objects.is_true(found, "Placed"), seconds)
    print(f"{name} placed {monotonic() - began:.1f} s after the obstacle went away")


def _still_gated(room: Room, name: str) -> None:
    pod = room.pod(name)
    assert [gate["name"] for gate in pod["spec"].get("schedulingGates", [])] == [GATE]
    _nothing_reserved(room, name)


def _nothing_reserved(room: Room, name: str | None = None) -> None:
    held = [one for one in room.fleet.assignments(room.namespace).values() if name in (None, one["workload"])]
    assert not held, f"reserved although it can't be placed: {held}"


def _gone(room: Room, name: str) -> None:
    assert not room.every_pod(name), f"the pod of {name} is still there"


def _reports(fleet: Fleet, node: str, uuid: str, **readings: int) -> None:
    found = next(gpu for gpu in objects.gpus(fleet.telemetry(node)) if gpu.uuid == uuid)
    said = {name: getattr(found, name) for name in readings}
    assert said == readings, f"{uuid} reports {said}"


def _healthy(fleet: Fleet, node: str, count: int) -> None:
    healthy = sum(gpu.healthy for gpu in objects.gpus(fleet.telemetry(node)))
    assert healthy == count, f"{healthy} devices of {node} are healthy"
    assert fleet.allocatable(node) == count, f"{node} offers {fleet.allocatable(node)}"
