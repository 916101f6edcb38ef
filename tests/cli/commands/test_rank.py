"""The order of devices, with their scores."""

from pathlib import Path

import pytest

from gpufleet_testing.cli.files import ObjectFiles, gpu, gpu_workload, idle_node, telemetry
from gpufleet_testing.cli.runner import run_cli


def test_passing_devices_are_listed_best_first(files: ObjectFiles) -> None:
    fleet = files.write(
        telemetry(
            "node-1",
            gpu("node-1", 0, temperatureCelsius=70),
            gpu("node-1", 1, memoryUsedMiB=60000, processCount=0),
            gpu("node-1", 2, health={"state": "Unhealthy"}),
            gpu("node-1", 3, temperatureCelsius=30),
        )
    )
    done = run_cli("rank", "--from", fleet, "-o", "json")
    assert done.code == 0
    assert [(d["rank"], d["index"]) for d in done.json["devices"]] == [(1, 3), (2, 0), (3, 1)]
    totals = [d["score"]["total"] for d in done.json["devices"]]
    assert totals == sorted(totals, reverse=True)
    assert done.json["devicesConsidered"] == 4
    assert done.json["devicesEligible"] == 3
    assert done.json["ineligibleDevices"] == [{"reason": "DeviceUnhealthy", "devices": 1, "nodes": 1}]


def test_ranking_is_the_order_in_which_best_picks(files: ObjectFiles, examples: Path) -> None:
    fleet = examples / "fleets" / "mixed.yaml"
    ranked = run_cli("rank", "--from", fleet, "-o", "json").json["devices"]
    manifest = files.write(gpu_workload(replicas=len(ranked)))
    placements = run_cli("simulate", "-f", manifest, "--from", fleet, "-o", "json").json["workloads"][0]["placements"]
    assert [d["uuid"] for d in ranked] == [p["devices"][0] for p in placements]
    assert [d["score"] for d in ranked] == [p["score"] for p in placements]


def test_json_has_the_documented_shape(files: ObjectFiles) -> None:
    done = run_cli("rank", "--from", files.write(idle_node("node-1", 1)), "-o", "json")
    assert list(done.json) == ["devices", "devicesConsidered", "devicesEligible", "ineligibleDevices", "notes"]
    (device,) = done.json["devices"]
    score = device.pop("score")
    assert device == {
        "rank": 1,
        "node": "node-1",
        "index": 0,
        "uuid": "GPU-node-1-0",
        "model": "NVIDIA H100 80GB HBM3",
        "memoryFreeMiB": 80000,
        "utilizationPercent": 0,
        "temperatureCelsius": 30,
        "powerMilliwatts": 70000,
    }
    assert score == {"total": 0.99, "memory": 1.0, "utilization": 1.0, "temperature": 1.0, "power": 0.9}


def test_missing_value_is_null_or_a_dash_never_0(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", 1, temperatureCelsius=None, powerMilliwatts=None))
    (device,) = run_cli("rank", "--from", fleet, "-o", "json").json["devices"]
    assert device["temperatureCelsius"] is device["powerMilliwatts"] is None
    assert device["score"]["temperature"] is device["score"]["power"] is None
    row = run_cli("rank", "--from", fleet).out.splitlines()[1].split()
    assert row[-6:] == ["-", "0.850", "1.000", "1.000", "-", "-"]


def test_memory_node_and_limit_options_restrict_the_list(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", 3), idle_node("node-2", 2, memoryUsedMiB=50000))
    done = run_cli("rank", "--from", fleet, "--min-free-memory", "40000", "-o", "json")
    assert {d["node"] for d in done.json["devices"]} == {"node-1"}
    assert done.json["ineligibleDevices"] == [{"reason": "InsufficientFreeMemory", "devices": 2, "nodes": 1}]
    done = run_cli("rank", "--from", fleet, "--node", "node-2", "-o", "json")
    assert [d["uuid"] for d in done.json["devices"]] == ["GPU-node-2-0", "GPU-node-2-1"]
    done = run_cli("rank", "--from", fleet, "--limit", "2")
    header, first, second, summary = done.out.splitlines()
    assert (first.split()[0], second.split()[0]) == ("1", "2")
    assert summary == "5/5 GPUs are available."
    assert header.startswith("RANK")


def test_requirements_and_weights_of_a_workload_count(files: ObjectFiles) -> None:
    fleet = files.write(
        telemetry(
            "node-1",
            gpu("node-1", 0, memoryUsedMiB=40000, temperatureCelsius=30),
            gpu("node-1", 1, temperatureCelsius=80),
            gpu("node-1", 2, temperatureCelsius=40, model="NVIDIA L4"),
        )
    )
    weights = {"memory": 1, "utilization": 0, "temperature": 0, "power": 0}
    workload = gpu_workload(
        requirements={"models": ["NVIDIA H100 80GB HBM3"]}, placement={"weights": weights, "topology": "SameNode"}
    )
    done = run_cli("rank", "--from", fleet, "-f", files.write(workload), "-o", "json")
    assert [d["index"] for d in done.json["devices"]] == [1, 0]
    assert [r["reason"] for r in done.json["ineligibleDevices"]] == ["ModelMismatch"]


def test_workload_is_chosen_by_name(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", 2))
    big = gpu_workload("big", requirements={"minFreeMemoryMiB": 90000})
    manifest = files.write(gpu_workload("small"), big)
    assert run_cli("rank", "--from", fleet, "-f", manifest, "--workload", "small", "-o", "json").json["devices"]
    assert not run_cli("rank", "--from", fleet, "-f", manifest, "--workload", "default/big", "-o", "json").json[
        "devices"
    ]
    undecided = run_cli("rank", "--from", fleet, "-f", manifest)
    assert (undecided.code, undecided.err) == (
        2,
        "error: --workload is required: the manifests have default/small, default/big\n",
    )
    unknown = run_cli("rank", "--from", fleet, "-f", manifest, "--workload", "tiny")
    assert unknown.code == 2
    assert "--workload tiny: matches 0 workloads; the manifests have default/small, default/big" in unknown.err


def test_no_passing_device_gives_one_line(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", 2, health={"state": "Unhealthy"}))
    done = run_cli("rank", "--from", fleet)
    assert (done.code, done.out) == (0, "0/2 GPUs are available: 2 unhealthy.\n")


@pytest.mark.parametrize("command", ["rank", "explain"])
def test_memory_above_the_limit_is_bad_input(files: ObjectFiles, command: str) -> None:
    fleet = files.write(idle_node("node-1", 1))
    done = run_cli(command, "--from", fleet, "--min-free-memory", "99999999999")
    assert (done.code, done.out) == (2, "")
    assert "min_free_memory_mib is 99999999999, must be 2147483647 or less" in done.err
    assert done.err.count("\n") == 1
