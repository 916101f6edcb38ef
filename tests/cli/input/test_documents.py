"""Files that cannot be used: exit code 2 and one line with file, field and value, never a traceback."""

import copy
from pathlib import Path
from typing import Any

import pytest

from gpufleet_testing.cli.files import ObjectFiles, gpu, gpu_workload, idle_node, telemetry
from gpufleet_testing.cli.runner import run_cli

BROKEN = [
    ("a: [1", ", line 2: did not find expected ',' or ']'"),
    ("apiVersion: v1\nkind: A\nkind: B\n", ', line 3: duplicate key "kind"'),
    ('{"kind": "A", "kind": "B"}', ': duplicate key "kind"'),
    ("1: a\n", ", line 1: key 1 must be a string: quote it"),
    ("- 1\n", ": must be a Kubernetes object, not [1]"),
    ("text", ': must be a Kubernetes object, not "text"'),
    ("x: &a [*a]\n", ": Circular reference detected"),
    ("x: !!binary aGVsbG8=\n", ": Object of type bytes is not JSON serializable"),
    ("x: !!python/name:os.system\n", ", line 1: could not determine a constructor for the tag"),
    ("kind: GPUTelemetry\n", ": apiVersion: Required value"),
    ("kind: 1\napiVersion: v1\n", ": kind: Invalid value: 1: must be a string"),
    ("kind: Pod\napiVersion: v1\n", ": Pod: metadata.name: Required value"),
    (
        "kind: Pod\napiVersion: v1\nmetadata: {name: [x]}\n",
        ': Pod: metadata.name: Invalid value: ["x"]: must be',
    ),
    ("kind: List\napiVersion: v1\nitems: 3\n", ": List: items: Invalid value: 3: must be a list"),
    ("[" * 3000, ""),
    ("", ": no GPUTelemetry found"),
    ("kind: List\napiVersion: v1\nitems: []\n", ": no GPUTelemetry found"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=range(len(BROKEN)))
def test_malformed_file_is_bad_input(text: str, message: str, files: ObjectFiles) -> None:
    path = files.write_text(text)
    done = run_cli("rank", "--from", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {path}{message}")
    assert done.err.count("\n") == 1


def test_unreadable_file_is_bad_input(tmp_path: Path) -> None:
    missing = run_cli("rank", "--from", tmp_path / "missing.yaml")
    assert (missing.code, missing.err) == (2, f"error: {tmp_path}/missing.yaml: No such file or directory\n")
    folder = run_cli("rank", "--from", tmp_path)
    assert (folder.code, folder.err) == (
        2,
        f"error: {tmp_path}: the folder has no file that ends in .json, .yaml, .yml\n",
    )
    (tmp_path / "binary").write_bytes(b"ab\xff")
    binary = run_cli("rank", "--from", tmp_path / "binary")
    assert (binary.code, binary.err) == (2, f"error: {tmp_path}/binary: not UTF-8 (byte 2)\n")


SAMPLES: list[tuple[dict[str, Any], str]] = [
    ({"temperatureCelsius": -300}, "temperatureCelsius: Invalid value: -300: must be greater than or equal to -273"),
    ({"memoryUsedMiB": float("nan")}, "memoryUsedMiB: Invalid value: NaN: must be an integer"),
    ({"powerMilliwatts": float("inf")}, "powerMilliwatts: Invalid value: Infinity: must be an integer"),
    ({"memoryUsedMiB": -1}, "memoryUsedMiB: Invalid value: -1: must be greater than or equal to 0"),
    ({"utilizationPercent": 101}, "utilizationPercent: Invalid value: 101: must be less than or equal to 100"),
    (
        {"memoryUsedMiB": 80001},
        "memoryUsedMiB: Invalid value: 80001: must be less than or equal to memoryTotalMiB",
    ),
    ({"memoryTotalMiB": 2**31}, "memoryTotalMiB: Invalid value: 2147483648: must be less than or equal to 2147483647"),
    ({"numaNode": "1"}, 'numaNode: Invalid value: "1": must be an integer'),
    ({"model": None}, "model: Required value"),
    ({"sampleTime": "noon"}, 'sampleTime: Invalid value: "noon": must be an RFC 3339 time'),
    (
        {"sampleTime": "2026-01-01T00:00:00"},
        'sampleTime: Invalid value: "2026-01-01T00:00:00": must be an RFC',
    ),
    ({"uuid": "GPU-node-1-0"}, 'uuid: Duplicate value: "GPU-node-1-0"'),
]


@pytest.mark.parametrize(("values", "message"), SAMPLES, ids=[case[1].split(" (")[0] for case in SAMPLES])
def test_impossible_sample_is_bad_input(values: dict[str, Any], message: str, files: ObjectFiles) -> None:
    other = gpu("node-1", 0)
    fleet = files.write(idle_node("node-0", 1), telemetry("node-1", other, gpu("node-1", 1, **values)))
    done = run_cli("rank", "--from", fleet)
    assert (done.code, done.out) == (2, "")
    place = "status.devices[0]" if "uuid" in values else "status.devices[1]"
    assert done.err.startswith(f"error: {fleet}, document 2: GPUTelemetry node-1: {place}.{message}")
    assert done.err.count("\n") == 1


def test_duplicate_node_or_device_is_bad_input(files: ObjectFiles) -> None:
    one = files.write(idle_node("node-1", 1))
    node = run_cli("rank", "--from", one, "--from", files.write(idle_node("node-1", 1), name="two.yaml"))
    assert node.code == 2
    assert node.err.endswith(f'two.yaml: GPUTelemetry node-1: metadata.name: Duplicate value: "node-1" (see {one})\n')
    cloned = telemetry("node-2", gpu("node-1", 0))
    device = run_cli("rank", "--from", one, "--from", files.write(cloned))
    assert device.code == 2
    assert "GPUTelemetry node-2: device GPU-node-1-0 of node node-2 is duplicated on node-1" in device.err


def test_other_kinds_are_skipped_in_a_fleet_and_in_a_manifest(files: ObjectFiles) -> None:
    fleet, workload = files.write(idle_node("node-1", 1)), gpu_workload()
    rejected = run_cli("rank", "--from", files.write(workload))
    assert rejected.code == 2
    assert rejected.err.endswith("no GPUTelemetry found\n")
    both = run_cli("rank", "--from", files.write(workload, idle_node("node-2", 1)), "-o", "json")
    assert both.json["devicesConsidered"] == 1
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}
    noted = run_cli("simulate", "-f", files.write(namespace, workload, name="m.yaml"), "--from", fleet)
    assert noted.code == 0
    assert noted.notes[0].endswith("m.yaml, document 1: Namespace ml (v1) skipped: not a gpufleet.dev GPUWorkload")
    nothing = run_cli("simulate", "-f", files.write(namespace), "--from", fleet)
    assert nothing.code == 2
    assert "no GPUWorkload found" in nothing.err


def test_lists_documents_and_json_give_the_same_fleet(files: ObjectFiles, examples: Path) -> None:
    import json  # noqa: PLC0415 - only this test writes JSON

    import yaml  # noqa: PLC0415 - as above

    nodes = yaml.safe_load((examples / "fleets" / "mixed.yaml").read_text())["items"]
    answers = [
        run_cli("rank", "--from", path, "-o", "json").json
        for path in (
            files.write({"apiVersion": "v1", "kind": "List", "items": nodes}),
            files.write({"apiVersion": "gpufleet.dev/v1alpha1", "kind": "GPUTelemetryList", "items": nodes}),
            files.write(*nodes),
            files.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}), "fleet.json"),
        )
    ]
    assert len(answers[0]["devices"]) == 11
    assert answers.count(answers[0]) == len(answers)


def test_unquoted_times_are_strings(files: ObjectFiles, examples: Path) -> None:
    text = (examples / "fleets" / "mixed.yaml").read_text()
    unquoted = text.replace("'2026-03-02T09:15:42.250000Z'", "2026-03-02T09:15:42.250000Z")
    assert unquoted != text
    assert run_cli("rank", "--from", files.write_text(unquoted)).code == 0


def test_node_without_status_has_no_devices(files: ObjectFiles) -> None:
    silent = {"apiVersion": "gpufleet.dev/v1alpha1", "kind": "GPUTelemetry", "metadata": {"name": "node-2"}}
    done = run_cli("rank", "--from", files.write(idle_node("node-1", 1), silent), "-o", "json")
    assert done.json["devicesConsidered"] == 1
    alone = run_cli("simulate", "-f", files.write(gpu_workload()), "--from", files.write(copy.deepcopy(silent)))
    assert alone.code == 1
    assert "the fleet has no GPU (1 node)" in alone.out
