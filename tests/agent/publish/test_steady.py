"""When a renewal of the Lease may confirm the report that was written last."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.publish.deadband import STALE_SECONDS, Significance, significance, stale_after
from gpufleet_agent.publish.payload import Status, timestamp
from gpufleet_agent.publish.steady import still_holds
from gpufleet_testing.agent.objects import assignment

NOW = 1_780_000_000.0
HEARTBEAT = 30.0
HOLDER = {"namespace": "ml", "pod": "train-0", "container": "main", "podUID": "uid-train-0"}


WARNING = {"code": "Throttled", "message": "m", "since": timestamp(NOW), "recovery": "Automatic"}
FAULT = {"code": "XidError", "message": "XID 48", "since": timestamp(NOW), "recovery": "Reset"}


def unhealthy(fault: dict[str, str]) -> Status:
    return {"state": "Unhealthy", "reasons": [fault], "since": timestamp(NOW)}


def statistics(mean: int) -> dict[str, int]:
    return {"mean": mean, "max": mean + 1, "p95": mean}


def status(at: float = NOW, **device: object) -> Status:
    """A node with a device in use."""
    used = {
        "uuid": "GPU-0",
        "health": {"state": "Healthy"},
        "sampleTime": timestamp(at - 1),
        "memoryTotalMiB": 80_000,
        "memoryUsedMiB": 60_000,
        "utilizationPercent": 90,
        "powerMilliwatts": 500_000,
        "powerLimitMilliwatts": 700_000,
        "window": {
            "samples": 60,
            "seconds": 59,
            "utilizationPercent": statistics(90),
            "memoryUsedMiB": statistics(60_000),
            "temperatureCelsius": statistics(64),
            "powerMilliwatts": statistics(500_000),
        },
        "allocatedTo": [HOLDER],
    }
    return {
        "assignmentsGeneration": 4,
        "observedAt": timestamp(at),
        "processesObserved": True,
        "devices": [used | device],
        "summary": {"state": "Ready", "free": 0},
    }


PUBLISHED = status()
LATER = status(NOW + 30)
OBJECT = TelemetryObject("uid-t", 4, 17, (assignment("train-0", "GPU-0"),), status=PUBLISHED)


def holds(current: Status = LATER, published: Status = PUBLISHED, telemetry: TelemetryObject = OBJECT) -> bool:
    return still_holds(published, current, telemetry, STALE_SECONDS, HEARTBEAT)


def changed(path: str, value: object) -> Status:
    """The status half a minute later with another value at a path below the device."""
    found = deepcopy(LATER)
    *folders, last = path.split(".")
    target = found["devices"][0]
    for folder in folders:
        target = target[folder]
    target[last] = value
    return found


def test_report_holds_while_nothing_changes() -> None:
    assert holds()
    assert holds(status(NOW + 250))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("utilizationPercent", 95),
        ("memoryUsedMiB", 60_200),
        ("window.utilizationPercent.mean", 95),
        ("window.memoryUsedMiB.p95", 60_200),
        ("window.temperatureCelsius.max", 66),
        ("window.powerMilliwatts.max", 560_000),
        ("window.samples", 61),
        ("clocks", {"smMHz": 1200}),
        ("throttleReasons", ["SwPowerCap"]),
        ("ecc", {"correctedVolatile": 7}),
        ("processCount", 0),
    ],
)
def test_report_holds_within_dead_bands(path: str, value: object) -> None:
    assert holds(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("utilizationPercent", 70),
        ("memoryUsedMiB", 50_000),
        ("health.state", "Unhealthy"),
        ("allocatedTo", []),
        ("window.utilizationPercent.mean", 79),
        ("window.utilizationPercent.max", 101),
        ("window.utilizationPercent.p95", 100),
        ("window.memoryUsedMiB.mean", 60_256),
        ("window.temperatureCelsius.mean", 67),
        ("window.powerMilliwatts.mean", 430_000),
        ("window.powerMilliwatts", None),
        ("sampleTime", timestamp(NOW + 24)),
        ("health.since", timestamp(NOW)),
        ("health.warnings", [WARNING]),
        ("rowRemap", {"pending": True}),
        ("pageRetirementPending", True),
        ("migMode", "Enabled"),
    ],
)
def test_changed_device_is_reported(path: str, value: object) -> None:
    current = changed(path, value)
    if value is None:
        del current["devices"][0]["window"]["powerMilliwatts"]
    assert not holds(current)


def test_window_that_begins_is_reported() -> None:
    without: dict[str, Any] = deepcopy(PUBLISHED)
    del without["devices"][0]["window"]
    assert not holds(published=without)


def test_report_of_a_stale_sample_is_not_confirmed() -> None:
    stale = status(sampleTime=timestamp(NOW - 6))
    still_stale = status(NOW + 30, sampleTime=timestamp(NOW - 6))
    assert significance(stale, still_stale) is Significance.NONE
    assert not holds(still_stale, stale)


@pytest.mark.parametrize(("age", "confirmed"), [(29, True), (31, False)])
def test_old_sample_of_slow_sampling_is_not_confirmed(age: int, confirmed: bool) -> None:
    """Samples once a minute: readers would add the age of the sample in the report to that of the renewal."""
    published, current = status(sampleTime=timestamp(NOW - age)), status(NOW + 30)
    telemetry = replace(OBJECT, status=published)
    assert still_holds(published, current, telemetry, stale_after(60), HEARTBEAT) is confirmed


@pytest.mark.parametrize("field", ["message", "since", "recovery"])
def test_detail_of_a_fault_that_changes_is_reported(field: str) -> None:
    published, current = (status(at, health=unhealthy(FAULT)) for at in (NOW, NOW + 30))
    assert holds(current, published)
    current = status(NOW + 30, health=unhealthy({**FAULT, field: "other"}))
    assert significance(published, current) is Significance.NONE
    assert not holds(current, published)


@pytest.mark.parametrize("kind", ["shared", "terminating"])
def test_holder_that_readers_watch_is_reported(kind: str) -> None:
    held = [{**HOLDER, kind: True}]
    published, current = status(allocatedTo=held), status(NOW + 30, allocatedTo=held)
    assert significance(published, current) is Significance.NONE
    assert not holds(current, published)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda found: found.update(processesObserved=None), id="processes not observed"),
        pytest.param(lambda found: found["summary"].update(free=1), id="the end of a cordon"),
        pytest.param(lambda found: found["summary"].update(state="Stale"), id="state of the node"),
        pytest.param(lambda found: found.update(driverVersion="581"), id="driver"),
    ],
)
def test_changed_node_is_reported(change: Callable[[Status], None]) -> None:
    current = deepcopy(LATER)
    change(current)
    assert not holds(current)


@pytest.mark.parametrize(
    "telemetry",
    [
        pytest.param(replace(OBJECT, generation=5), id="reservations that are not reported yet"),
        pytest.param(replace(OBJECT, status={}), id="no status"),
        pytest.param(replace(OBJECT, status=LATER), id="report of another process"),
        pytest.param(replace(OBJECT, assignments=(assignment("train-1", "GPU-0"),)), id="container that is missing"),
        pytest.param(
            replace(OBJECT, assignments=(assignment("train-0", "GPU-0", "GPU-1"),)), id="device that is missing"
        ),
        pytest.param(
            replace(OBJECT, assignments=(assignment("train-0", "GPU-0", pod_uid="uid-new"),)),
            id="container of an earlier pod of the same name",
        ),
    ],
)
def test_object_that_waits_for_a_report_gets_one(telemetry: TelemetryObject) -> None:
    assert not holds(telemetry=telemetry)


def test_holders_without_a_reservation_are_confirmed() -> None:
    assert holds(telemetry=replace(OBJECT, assignments=()))
