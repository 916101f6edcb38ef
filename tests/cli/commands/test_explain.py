"""The first filter that each device fails, with its message."""

from pathlib import Path
from typing import Any

import pytest

from gpufleet_testing.cli.files import ObjectFiles, gpu, gpu_workload, idle_node, telemetry
from gpufleet_testing.cli.runner import run_cli

HEALTHY = {"state": "Healthy"}
HOLDER = {"namespace": "ml", "pod": "train-0-abcde", "container": "main"}
ASSIGNMENT = {
    "podUID": "p",
    "namespace": "ml",
    "pod": "serve-0-abcde",
    "container": "main",
    "workload": "serve",
    "workloadUID": "w",
    "replica": 0,
    "replicas": 1,
    "resource": "gpufleet.dev/gpu",
    "devices": ["GPU-node-1-0"],
    "decidedAt": "2026-01-01T00:00:00Z",
}
SICK = {"state": "Unhealthy", "reasons": [{"code": "XidError", "message": "XID 79", "since": "2026-01-01T00:00:00Z"}]}

CASES: list[tuple[str, dict[str, Any], dict[str, Any], str | None, str]] = [
    ("passes", {}, {}, None, ""),
    ("fault", {"health": SICK}, {}, "DeviceUnhealthy", "fault: XidError (XID 79)"),
    ("withheld", {"withheld": "no node"}, {}, "DeviceUnhealthy", "withheld: no node"),
    ("held", {"allocatedTo": [HOLDER]}, {}, "DeviceInUse", "held by ml/train-0-abcde"),
    ("foreign", {"processCount": 2}, {}, "ForeignProcess", "runs 2 processes outside Kubernetes"),
    (
        "memory",
        {"memoryUsedMiB": 70000},
        {"minFreeMemoryMiB": 12148},
        "InsufficientFreeMemory",
        "lacks 2,148 MiB of free memory (needs 12,148 MiB, has 10,000 MiB)",
    ),
    (
        "hot",
        {"temperatureCelsius": 88},
        {"maxTemperatureCelsius": 80},
        "TemperatureTooHigh",
        "is 8 °C over the temperature limit (is 88 °C, limit 80 °C)",
    ),
    ("silent", {"temperatureCelsius": None}, {"maxTemperatureCelsius": 80}, "MeasurementMissing", "does not report"),
    ("model", {}, {"models": ["NVIDIA L4"]}, "ModelMismatch", "is NVIDIA H100 80GB HBM3, must be one of: NVIDIA L4"),
    (
        "stuck",
        {"sampleTime": "2025-12-31T23:55:20Z"},
        {},
        "TelemetryStale",
        "last sampled at 2025-12-31T23:55:20Z, 280 s before its node's report",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_device_is_listed_with_its_reason_and_numbers(
    case: tuple[str, dict[str, Any], dict[str, Any], str | None, str], files: ObjectFiles
) -> None:
    _, values, needs, reason, words = case
    idle = gpu("node-1", 1, temperatureCelsius=40, model="NVIDIA H100 80GB HBM3")
    fleet = files.write(telemetry("node-1", gpu("node-1", 0, **values), idle), idle_node("node-2"))
    manifest = files.write(gpu_workload(requirements=needs))
    done = run_cli("explain", "--from", fleet, "-f", manifest, "-o", "json")
    assert done.code == 0
    device = done.json["devices"][0]
    assert (device["usable"], device["reason"]) == (reason is None, reason)
    assert words in device["message"]
    row = run_cli("explain", "--from", fleet, "-f", manifest).out.splitlines()[1]
    assert (reason or "-") in row
    assert words in row


def test_reservation_is_named_before_the_device_is_held(files: ObjectFiles) -> None:
    node = {**idle_node("node-1", 1), "spec": {"assignments": [ASSIGNMENT]}}
    (device,) = run_cli("explain", "--from", files.write(node), "-o", "json").json["devices"]
    assert (device["reason"], device["message"]) == ("DeviceInUse", "reserved for ml/serve-0-abcde")


def test_too_few_devices_on_a_node_is_reported_for_passing_ones(files: ObjectFiles) -> None:
    node = telemetry("node-1", gpu("node-1", 0, health=SICK), *(gpu("node-1", i) for i in (1, 2)))
    manifest = files.write(gpu_workload(devices={"count": 3}))
    devices = run_cli("explain", "--from", files.write(node), "-f", manifest, "-o", "json").json["devices"]
    assert [d["reason"] for d in devices] == ["DeviceUnhealthy", "InsufficientDevices", "InsufficientDevices"]
    assert {d["message"] for d in devices[1:]} == {"node has 2 available GPUs, needs 3"}


def test_topology_is_reported_for_passing_devices(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", 2))
    manifest = files.write(gpu_workload(devices={"count": 2}, placement={"topology": "NVLink"}))
    devices = run_cli("explain", "--from", fleet, "-f", manifest, "-o", "json").json["devices"]
    assert {d["reason"] for d in devices} == {"TopologyNotSatisfied"}
    assert {d["message"] for d in devices} == {"node has 2 available GPUs, but no 2 of them satisfy topology NVLink"}


def test_reasons_are_those_that_simulate_counts(files: ObjectFiles, examples: Path) -> None:
    fleet = examples / "fleets" / "faults.yaml"
    manifest = examples / "impossible.yaml"
    explained = run_cli("explain", "--from", fleet, "-f", manifest, "-o", "json").json
    simulated = run_cli("simulate", "--from", fleet, "-f", manifest, "-o", "json").json["workloads"][0]["explanation"]
    for key in ("devicesConsidered", "devicesEligible", "ineligibleDevices"):
        assert explained[key] == simulated[key]
    nearest = simulated["nearestMiss"]
    (same,) = [d for d in explained["devices"] if d["uuid"] == nearest["device"]]
    assert (same["node"], same["reason"], same["message"]) == (
        nearest["node"],
        nearest["reason"],
        nearest["message"],
    )


def test_json_has_the_documented_shape(files: ObjectFiles) -> None:
    done = run_cli("explain", "--from", files.write(idle_node("node-1", 1)), "-o", "json")
    assert list(done.json) == ["devices", "devicesConsidered", "devicesEligible", "ineligibleDevices", "notes"]
    (device,) = done.json["devices"]
    assert list(device)[-4:] == ["powerMilliwatts", "usable", "reason", "message"]


def test_node_and_limit_options_restrict_the_list(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", 3), idle_node("node-2", 3))
    devices = run_cli("explain", "--from", fleet, "--node", "node-2", "--limit", "2", "-o", "json").json["devices"]
    assert [d["uuid"] for d in devices] == ["GPU-node-2-0", "GPU-node-2-1"]
    unknown = run_cli("explain", "--from", fleet, "--node", "node-9")
    assert (unknown.code, unknown.err) == (
        2,
        "error: --node node-9: not found; nodes of the fleet: node-1, node-2\n",
    )


def test_rules_on_other_pods_are_noted_as_unchecked(files: ObjectFiles) -> None:
    main = {"name": "main", "image": "x:1", "ports": [{"containerPort": 80, "hostPort": 80}]}
    manifest = files.write(gpu_workload(template={"spec": {"restartPolicy": "Never", "containers": [main]}}))
    done = run_cli("explain", "-f", manifest, "--from", files.write(idle_node("node-1")))
    assert (
        "default/train: host ports, pod affinity and topology spread not checked: see gpufleet simulate" in done.notes
    )
