"""A workload that cannot be placed stays gated, explains why in numbers, and is placed when the obstacle is gone."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import GATE, gpuworkload
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

SOON_SECONDS = 5
READING_SECONDS = 10
"""The agent reports a reading within five seconds; a decision, a reservation and a status follow."""
ALLOCATABLE_SECONDS = 15
"""The kubelet publishes the node's allocatable every ten seconds."""


def test_too_hot_until_it_cools(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: telemetry triggers decisions. The condition counts the reasons and names the nearest miss."""
    node = fleet.nodes[1]
    warm, hot, *_ = fleet.gpus[node].uuids
    for uuid, celsius in ((warm, 84), (hot, 95)):
        fleet.gpus[node].report(uuid, temperature_celsius=celsius)
    # Both of them: a status may be written after the reading of one device and before that of another.
    for uuid, celsius in ((warm, 84), (hot, 95)):
        eventually(partial(fleet.check_readings, node, uuid, temperature_celsius=celsius), within=SOON_SECONDS)
    namespace.apply(gpuworkload("cool-only", uuids=(warm, hot), requirements={"maxTemperatureCelsius": 80}))
    message = namespace.wait_condition("cool-only", "Placed", "False", "NoDevicesAvailable")
    print(message)
    explanation = namespace.workload("cool-only")["status"]["explanation"]
    counted = {one["reason"]: one["devices"] for one in explanation["ineligibleDevices"]}
    assert counted["TemperatureTooHigh"] == 2, explanation
    assert counted["NotInIncludeUUIDs"] == 22, explanation
    assert explanation["nearestMiss"]["device"] == warm, explanation
    assert "84" in explanation["nearestMiss"]["message"], explanation
    assert "80" in explanation["nearestMiss"]["message"], explanation
    assert "84" in message, "the condition does not name the nearest miss"
    assert "2" in message, "the condition does not count"
    _still_gated(namespace, "cool-only")
    fleet.gpus[node].report(warm, temperature_celsius=60)
    _placed_within(namespace, "cool-only", READING_SECONDS, lambda: None)
    assert namespace.devices("cool-only") == (warm,)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reading that violates a requirement, and one that meets it."""

    requirements: dict[str, int]
    reason: str
    words: str
    """A regular expression for the nearest miss: memory reserved by the driver counts as used."""
    bad: dict[str, int]
    good: dict[str, int]
    other: dict[str, int]
    """Readings of a second device, further from the requirement."""


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
def test_too_full_or_too_busy_until_readings_change(namespace: TestNamespace, fleet: Fleet, obstacle: Obstacle) -> None:
    """Mechanism: as for temperature. The nearer one of two devices is named, and picked once it meets the limit."""
    node = fleet.nodes[1]
    near, far, *_ = fleet.gpus[node].uuids
    fleet.gpus[node].report(near, **obstacle.bad)
    fleet.gpus[node].report(far, **obstacle.other)
    # Both of them: a status may be written after the reading of one device and before that of another.
    eventually(lambda: fleet.check_readings(node, near, **obstacle.bad), within=SOON_SECONDS)
    eventually(lambda: fleet.check_readings(node, far, **obstacle.other), within=SOON_SECONDS)
    namespace.apply(gpuworkload("picky", uuids=(near, far), requirements=obstacle.requirements))
    message = namespace.wait_condition("picky", "Placed", "False", "NoDevicesAvailable")
    print(message)
    explanation = namespace.workload("picky")["status"]["explanation"]
    assert {one["reason"]: one["devices"] for one in explanation["ineligibleDevices"]}[obstacle.reason] == 2, (
        explanation
    )
    assert explanation["nearestMiss"]["device"] == near, explanation
    assert re.search(obstacle.words, explanation["nearestMiss"]["message"]), explanation
    assert re.search(obstacle.words, message), "the condition does not name the nearest miss"
    _still_gated(namespace, "picky")
    fleet.gpus[node].report(near, **obstacle.good)
    _placed_within(namespace, "picky", READING_SECONDS, lambda: None)
    assert namespace.devices("picky") == (near,)


def test_in_use_until_it_is_free(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a freed device triggers a decision. Measured from the moment when its pod is gone."""
    node = fleet.nodes[1]
    uuids = fleet.gpus[node].uuids[:2]
    namespace.apply(gpuworkload("holder", count=2, uuids=uuids))
    namespace.verify("holder")
    namespace.apply(gpuworkload("waiter", uuids=uuids))
    print(namespace.wait_condition("waiter", "Placed", "False", "NoDevicesAvailable"))
    counted = {
        one["reason"]: one["devices"]
        for one in namespace.workload("waiter")["status"]["explanation"]["ineligibleDevices"]
    }
    assert counted["DeviceInUse"] == 2
    _still_gated(namespace, "waiter")
    namespace.delete("holder")
    _placed_within(namespace, "waiter", SOON_SECONDS, lambda: _gone(namespace, "holder"))
    namespace.verify("waiter")


def test_unhealthy_until_it_recovers(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: health in telemetry, then the kubelet's allocatable, then placement, in both directions."""
    node = fleet.nodes[1]
    lost = fleet.gpus[node].uuids[3]
    fleet.gpus[node].lose(lost)
    eventually(lambda: _healthy(fleet, node, 7), within=ALLOCATABLE_SECONDS)
    namespace.apply(gpuworkload("waiter", uuids=(lost,)))
    print(namespace.wait_condition("waiter", "Placed", "False", "NoDevicesAvailable"))
    counted = {
        one["reason"]: one["devices"]
        for one in namespace.workload("waiter")["status"]["explanation"]["ineligibleDevices"]
    }
    assert counted["DeviceUnhealthy"] == 1
    assert namespace.workload("waiter")["status"]["explanation"]["nearestMiss"]["device"] == lost
    _still_gated(namespace, "waiter")
    # All other devices are in use, so that the node's allocatable has to change.
    namespace.apply(gpuworkload("everything", count=7, node=node))
    namespace.verify("everything")
    fleet.gpus[node].restore(lost)
    began = monotonic()
    namespace.wait_for("waiter", lambda found: objects.is_true(found, "Placed"), ALLOCATABLE_SECONDS)
    placed = monotonic() - began
    namespace.wait_ready("waiter", within=ALLOCATABLE_SECONDS)
    print(f"placed {placed:.1f} s, Ready {monotonic() - began:.1f} s after the device answers again")
    assert namespace.devices("waiter") == (lost,)


def test_more_devices_than_exist(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: reasons are counted over the whole fleet, and nothing is reserved."""
    namespace.apply(
        gpuworkload("wide", count=16, node=fleet.nodes[1]),
        gpuworkload("big", requirements={"minFreeMemoryMiB": 200_000}),
    )
    for name, reason, devices in (("wide", "InsufficientDevices", 8), ("big", "InsufficientFreeMemory", 24)):
        message = namespace.wait_condition(name, "Placed", "False", "NoDevicesAvailable")
        print(message)
        explanation = namespace.workload(name)["status"]["explanation"]
        assert {one["reason"]: one["devices"] for one in explanation["ineligibleDevices"]}[reason] == devices, (
            explanation
        )
        assert explanation["devicesConsidered"] == 24
        assert str(devices) in message
    never(lambda: _nothing_reserved(namespace), for_seconds=3)
    assert objects.condition(namespace.workload("big"), "Placed")["observedGeneration"] == 1


def _placed_within(namespace: TestNamespace, name: str, seconds: float, gone: Callable[[], None]) -> None:
    eventually(gone, within=30)
    began = monotonic()
    namespace.wait_for(name, lambda found: objects.is_true(found, "Placed"), seconds)
    print(f"{name} placed {monotonic() - began:.1f} s after the obstacle was gone")


def _still_gated(namespace: TestNamespace, name: str) -> None:
    pod = namespace.pod(name)
    assert [gate["name"] for gate in pod["spec"].get("schedulingGates", [])] == [GATE]
    _nothing_reserved(namespace, name)


def _nothing_reserved(namespace: TestNamespace, name: str | None = None) -> None:
    held = [one for one in namespace.fleet.assignments(namespace.name).values() if name in (None, one["workload"])]
    assert not held, f"reserved although it cannot be placed: {held}"


def _gone(namespace: TestNamespace, name: str) -> None:
    assert not namespace.all_pods(name), f"the pod of {name} is still there"


def _healthy(fleet: Fleet, node: str, count: int) -> None:
    healthy = sum(gpu.healthy for gpu in objects.gpus(fleet.telemetry(node)))
    assert healthy == count, f"{healthy} devices of {node} are healthy"
    assert fleet.allocatable(node) == count, f"{node} offers {fleet.allocatable(node)}"
