"""Saved decisions, made again on the same fleet and on an edited one."""

import json
from pathlib import Path

import pytest

from gpufleet_testing.cli.files import ObjectFiles, gpu, gpu_workload, idle_node, telemetry
from gpufleet_testing.cli.runner import run_cli


@pytest.fixture
def saved(files: ObjectFiles, tmp_path: Path) -> Path:
    """Three workloads on two nodes of two GPUs: the last one is not placed."""
    file = tmp_path / "decisions.jsonl"
    manifest = files.write(
        gpu_workload("first", replicas=2, placement={"strategy": "Pack"}),
        gpu_workload("second", replicas=2),
        gpu_workload("third"),
    )
    fleet = files.write(idle_node("node-1"), idle_node("node-2"))
    done = run_cli("simulate", "-f", manifest, "--from", fleet, "--save", file)
    assert done.code == 1
    assert f"3 decisions saved to {file} (see gpufleet replay)" in done.notes
    return file


def test_saved_decisions_are_reproduced_byte_for_byte(saved: Path) -> None:
    done = run_cli("replay", saved)
    assert (done.code, done.err) == (0, "")
    sizes = [len(line) for line in saved.read_bytes().splitlines(keepends=True)]
    assert done.out.splitlines() == [
        f"default/{name}: same decision, byte for byte ({size:,} bytes)"
        for name, size in zip(("first", "second", "third"), sizes, strict=True)
    ]
    replayed = run_cli("replay", saved, "-o", "json").json
    assert replayed["same"] is True
    assert [one["name"] for one in replayed["decisions"]] == ["default/first", "default/second", "default/third"]
    assert replayed["decisions"][2]["unplaced"] == [0]
    assert replayed["decisions"][2]["explanation"]["ineligibleDevices"] == [
        {"reason": "DeviceInUse", "devices": 4, "nodes": 2}
    ]


def test_saving_twice_gives_the_same_bytes(files: ObjectFiles, tmp_path: Path) -> None:
    manifest, nodes = files.write(gpu_workload()), [idle_node("node-1"), idle_node("node-2")]
    for name, fleet in (("a", files.write(*nodes)), ("b", files.write(*reversed(nodes)))):
        run_cli("simulate", "-f", manifest, "--from", fleet, "--save", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_different_decision_is_reported(saved: Path) -> None:
    first, *rest = saved.read_text().splitlines(keepends=True)
    record = json.loads(first)
    record["decision"]["picks"][0]["devices"] = ["GPU-node-2-1"]
    saved.write_text(json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n" + "".join(rest))
    done = run_cli("replay", saved)
    assert done.code == 1
    assert done.out.startswith("default/first: different decision\n")
    assert "default/second: same decision" in done.out


def test_without_a_node_decisions_differ(saved: Path) -> None:
    done = run_cli("replay", saved, "--without", "node-2", "-o", "json")
    first, second, third = done.json["decisions"]
    assert done.code == 1
    assert first["same"]
    assert [p["node"] for p in first["placements"]] == ["node-1", "node-1"]
    assert second["unplaced"] == [0, 1]
    assert third["explanation"]["devicesConsidered"] == 2


def test_with_a_freed_gpu_a_workload_is_placed(saved: Path) -> None:
    done = run_cli("replay", saved, "--free", "GPU-node-1-1", "-o", "json")
    assert [p["devices"] for p in done.json["decisions"][2]["placements"]] == [["GPU-node-1-1"]]
    assert "default/third: different decision" in run_cli("replay", saved, "--free", "GPU-node-1-1").out


def test_simulate_takes_what_if_options(files: ObjectFiles) -> None:
    held = {"allocatedTo": [{"namespace": "ml", "pod": "x", "podUID": "u", "container": "main"}]}
    node = telemetry(
        "node-1",
        gpu("node-1", 0, memoryUsedMiB=70000, utilizationPercent=90, processCount=1, **held),
        gpu("node-1", 1),
    )
    manifest = files.write(gpu_workload(requirements={"minFreeMemoryMiB": 80000}))
    ask = ("simulate", "-f", manifest, "--from", files.write(node), "-o", "json")
    away = (*ask, "--without", "GPU-node-1-1")
    assert run_cli(*away).code == 1
    freed = run_cli(*away, "--free", "GPU-node-1-0")
    assert freed.json["workloads"][0]["placements"][0]["devices"] == ["GPU-node-1-0"]


def test_freed_gpu_is_free_even_if_its_use_is_not_reported(
    files: ObjectFiles,
) -> None:
    node = idle_node("node-1", 1, processCount=None, memoryUsedMiB=None)
    ask = ("simulate", "-f", files.write(gpu_workload()), "--from", files.write(node))
    assert "ForeignProcess" in run_cli(*ask).out
    assert run_cli(*ask, "--free", "GPU-node-1-0").code == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--without", "gone"), "--without gone: no such node or GPU in the fleet"),
        (("--free", "gone"), "--free gone: no such GPU in the fleet"),
    ],
)
def test_unknown_node_or_gpu_is_bad_input(
    saved: Path, files: ObjectFiles, arguments: tuple[str, ...], problem: str
) -> None:
    simulate = ("simulate", "-f", files.write(gpu_workload()), "--from", files.write(idle_node("node-1")))
    for command in (("replay", saved), simulate):
        done = run_cli(*command, *arguments)
        assert (done.code, done.out, done.err) == (2, "", f"error: {problem}\n")


@pytest.mark.parametrize("text", ["", "{}\n", "kind: GPUWorkload\n", '{"nodes":[],"request":1,"mix":2,"decision":3}\n'])
def test_other_files_are_rejected(files: ObjectFiles, text: str) -> None:
    file = files.write_text(text)
    done = run_cli("replay", file)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {file}")
    assert done.err.count("\n") == 1


def test_unreadable_and_unwritable_files_are_named(files: ObjectFiles, tmp_path: Path) -> None:
    done = run_cli("replay", tmp_path / "gone")
    assert (done.code, done.err) == (2, f"error: {tmp_path}/gone: No such file or directory\n")
    simulate = ("simulate", "-f", files.write(gpu_workload()), "--from", files.write(idle_node("node-1")))
    done = run_cli(*simulate, "--save", tmp_path)
    assert (done.code, done.err) == (2, f"error: --save {tmp_path}: Is a directory\n")


@pytest.mark.parametrize("text", ["# A page\n", "\n"])
def test_file_without_json_is_rejected_without_parser_details(files: ObjectFiles, text: str) -> None:
    path = files.folder / "page.md"
    path.write_text(text)
    done = run_cli("replay", path)
    assert done.err == f"error: {path}, line 1: not a decision written by `gpufleet simulate --save`: not JSON\n"
