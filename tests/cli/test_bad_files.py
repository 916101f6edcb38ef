"""Files that can't be used: exit code 2, one line that names file, field and value, never a traceback."""

import copy
from typing import Any

import pytest

BROKEN = [
    ("a: [1", ", line 2: did not find expected ',' or ']'"),
    ("apiVersion: v1\nkind: A\nkind: B\n", ", line 3: the key 'kind' stands twice in one object"),
    ('{"kind": "A", "kind": "B"}', ": the key 'kind' stands twice in one object"),
    ("1: a\n", ", line 1: the key 1 must be a text: quote it"),
    ("- 1\n", ": must be a Kubernetes object (got [1])"),
    ("text", ': must be a Kubernetes object (got "text")'),
    ("x: &a [*a]\n", ": Circular reference detected"),
    ("x: !!binary aGVsbG8=\n", ": Object of type bytes is not JSON serializable"),
    ("x: !!python/name:os.system\n", ", line 1: could not determine a constructor for the tag"),
    ("kind: GPUTelemetry\n", ": apiVersion: is missing"),
    ("kind: 1\napiVersion: v1\n", ": kind: must be a text (got 1)"),
    ("kind: Pod\napiVersion: v1\n", ": Pod: metadata.name: is missing"),
    ("kind: Pod\napiVersion: v1\nmetadata: {name: [x]}\n", ': Pod: metadata.name: must be a name (got ["x"])'),
    ("kind: List\napiVersion: v1\nitems: 3\n", ": List: items: must be a list (got 3)"),
    ("[" * 3000, ""),
    ("", ": there is no GPUTelemetry"),
    ("kind: List\napiVersion: v1\nitems: []\n", ": there is no GPUTelemetry"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_file_of_objects(text: str, message: str, files: Any, gpufleet: Any) -> None:
    path = files.text(text)
    done = gpufleet("rank", "--fleet", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {path}{message}")
    assert done.err.count("\n") == 1


def test_what_can_not_be_read(tmp_path: Any, gpufleet: Any) -> None:
    missing = gpufleet("rank", "--fleet", tmp_path / "missing.yaml")
    assert (missing.code, missing.err) == (2, f"error: {tmp_path}/missing.yaml: No such file or directory\n")
    folder = gpufleet("rank", "--fleet", tmp_path)
    assert (folder.code, folder.err) == (2, f"error: {tmp_path}: Is a directory\n")
    (tmp_path / "binary").write_bytes(b"ab\xff")
    binary = gpufleet("rank", "--fleet", tmp_path / "binary")
    assert (binary.code, binary.err) == (2, f"error: {tmp_path}/binary: is not UTF-8 text (byte 2)\n")


SAMPLES: list[tuple[dict[str, Any], str]] = [
    ({"temperatureCelsius": -300}, "temperatureCelsius: input should be greater than or equal to -273 (got -300)"),
    ({"memoryUsedMiB": float("nan")}, "memoryUsedMiB: input should be a valid integer (got NaN)"),
    ({"powerMilliwatts": float("inf")}, "powerMilliwatts: input should be a valid integer (got Infinity)"),
    ({"memoryUsedMiB": -1}, "memoryUsedMiB: input should be greater than or equal to 0 (got -1)"),
    ({"utilizationPercent": 101}, "utilizationPercent: input should be less than or equal to 100 (got 101)"),
    ({"memoryUsedMiB": 80001}, "memoryUsedMiB: is more than memoryTotalMiB, 80000 (got 80001)"),
    ({"memoryTotalMiB": 2**31}, "memoryTotalMiB: input should be less than or equal to 2147483647 (got 2147483648)"),
    ({"numaNode": "1"}, 'numaNode: input should be a valid integer (got "1")'),
    ({"model": None}, "model: field required"),
    ({"sampleTime": "noon"}, 'sampleTime: must be a time such as 2026-01-02T03:04:05Z (got "noon")'),
    ({"sampleTime": "2026-01-01T00:00:00"}, "sampleTime: must be a time such as"),
    ({"uuid": "GPU-node-1-0"}, 'uuid: stands 2 times (got "GPU-node-1-0")'),
]


@pytest.mark.parametrize(("values", "message"), SAMPLES, ids=[case[1].split(" (")[0] for case in SAMPLES])
def test_samples_that_can_not_be_true(values: dict[str, Any], message: str, files: Any, gpufleet: Any) -> None:
    other = files.device("node-1", 0)
    fleet = files.write(files.idle("node-0", 1), files.node("node-1", other, files.device("node-1", 1, **values)))
    done = gpufleet("rank", "--fleet", fleet)
    assert (done.code, done.out) == (2, "")
    place = "status.devices[0]" if "uuid" in values else "status.devices[1]"
    assert done.err.startswith(f"error: {fleet}, document 2: GPUTelemetry node-1: {place}.{message}")
    assert done.err.count("\n") == 1


def test_what_stands_twice_in_a_fleet(files: Any, gpufleet: Any) -> None:
    one = files.write(files.idle("node-1", 1))
    node = gpufleet("rank", "--fleet", one, "--fleet", files.write(files.idle("node-1", 1), name="two.yaml"))
    assert node.code == 2
    assert node.err.endswith(f"two.yaml: GPUTelemetry node-1: metadata.name: stands twice, also in {one}\n")
    cloned = files.node("node-2", files.device("node-1", 0))
    device = gpufleet("rank", "--fleet", one, "--fleet", files.write(cloned))
    assert device.code == 2
    assert "GPUTelemetry node-2: device GPU-node-1-0 of node node-2 stands twice, also on node-1" in device.err


def test_other_kinds_are_refused_in_a_fleet_file_and_noted_in_a_manifest(files: Any, gpufleet: Any) -> None:
    fleet, workload = files.write(files.idle("node-1", 1)), files.workload()
    refused = gpufleet("rank", "--fleet", files.write(workload))
    assert refused.code == 2
    assert "GPUWorkload train: a fleet file holds GPUTelemetry of gpufleet.dev/v1alpha1 (got GPUWorkload" in refused.err
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}
    noted = gpufleet("simulate", "-f", files.write(namespace, workload, name="m.yaml"), "--fleet", fleet)
    assert noted.code == 0
    assert noted.notes[0].endswith("m.yaml, document 1: Namespace ml (v1) is no GPUWorkload of gpufleet.dev: skipped")
    nothing = gpufleet("simulate", "-f", files.write(namespace), "--fleet", fleet)
    assert nothing.code == 2
    assert "there is no GPUWorkload" in nothing.err


def test_lists_several_documents_and_json_hold_the_same_fleet(files: Any, gpufleet: Any, examples: Any) -> None:
    import json  # noqa: PLC0415 - only this test writes JSON

    import yaml  # noqa: PLC0415 - as above

    nodes = yaml.safe_load((examples / "fleets" / "mixed.yaml").read_text())["items"]
    answers = [
        gpufleet("rank", "--fleet", path, "-o", "json").json
        for path in (
            files.write({"apiVersion": "v1", "kind": "List", "items": nodes}),
            files.write({"apiVersion": "gpufleet.dev/v1alpha1", "kind": "GPUTelemetryList", "items": nodes}),
            files.write(*nodes),
            files.text(json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}), "fleet.json"),
        )
    ]
    assert len(answers[0]["devices"]) == 11
    assert answers.count(answers[0]) == len(answers)


def test_unquoted_times_are_texts_as_kubectl_reads_them(files: Any, gpufleet: Any, examples: Any) -> None:
    text = (examples / "fleets" / "mixed.yaml").read_text()
    unquoted = text.replace("'2026-03-02T09:15:42.250000Z'", "2026-03-02T09:15:42.250000Z")
    assert unquoted != text
    assert gpufleet("rank", "--fleet", files.text(unquoted)).code == 0


def test_a_node_that_has_never_reported_has_no_devices(files: Any, gpufleet: Any) -> None:
    silent = {"apiVersion": "gpufleet.dev/v1alpha1", "kind": "GPUTelemetry", "metadata": {"name": "node-2"}}
    done = gpufleet("rank", "--fleet", files.write(files.idle("node-1", 1), silent), "-o", "json")
    assert done.json["devicesConsidered"] == 1
    alone = gpufleet("simulate", "-f", files.write(files.workload()), "--fleet", files.write(copy.deepcopy(silent)))
    assert alone.code == 1
    assert "the fleet has no GPU (1 node)" in alone.out
