"""The small decisions of the acts: who reserves, what a line of progress says, what is fresh, which manifest counts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gpufleet_e2e.demo import context, install, nodes
from gpufleet_e2e.demo.steps import thermal, unplaceable
from gpufleet_simgpu.presets import make_node


def telemetry(**status: object) -> dict[str, Any]:
    return {"metadata": {"name": "node-1"}, "status": status}


DEVICE = {"uuid": "GPU-a", "index": 0, "model": "T4", "health": {"state": "Healthy"}, "temperatureCelsius": 95}


def test_a_node_reserves_for_a_workload_of_the_demo_only() -> None:
    node = {"spec": {"assignments": [{"workload": "spread", "namespace": "gpufleet-demo"}]}}
    assert context.reserves(node, "spread")
    assert context.reserves(node, "gang", "spread")
    assert context.reserves(node)
    assert not context.reserves(node, "gang")
    assert not context.reserves({"spec": {"assignments": [{"workload": "spread", "namespace": "else"}]}}, "spread")
    assert not context.reserves({}, "spread")


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({}, "accepted by the apiserver"),
        ({"conditions": [{"type": "Placed", "status": "False", "reason": "Waiting"}]}, "Waiting"),
        ({"placements": [{"state": "Bound"}, {"state": "Reserved"}, {"state": "Bound"}]}, "2 Bound, 1 Reserved"),
    ],
)
def test_progress_counts_states_or_gives_the_reason(status: dict[str, Any], line: str) -> None:
    assert context.progress_line({"metadata": {}, "status": status}) == line


def test_manifest_file_must_contain_one_workload(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("# only a comment\n---\nkind: GPUWorkload\nmetadata: {name: a}\n")
    assert context.manifest(path)["metadata"]["name"] == "a"
    path.write_text("kind: Pod\n")
    with pytest.raises(ValueError, match="contains 0 GPUWorkloads, not one"):
        context.manifest(path)


def test_the_sharers_fit_into_any_gpu_of_the_demo() -> None:
    """Which of the free ones they get depends on what was learned from earlier runs."""
    asked = [one["spec"] for one in context.examples("shared")]
    together = sum(spec.get("replicas", 1) * spec["devices"]["memoryMiB"] for spec in asked)
    for machine in nodes.NODE_PROFILES:
        total = make_node(machine.preset, 1).gpus[0].memory_total_mib
        assert total is not None
        assert together < total - max(load.memory_used_mib for load in machine.loads)


def test_probe_has_a_temperature_limit_below_the_hot_gpu() -> None:
    limit = context.manifest(thermal.PROBE)["spec"]["requirements"]["maxTemperatureCelsius"]
    assert limit < thermal.HOT_CELSIUS


def test_telemetry_is_fresh_after_a_report_with_devices() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert install.fresh(telemetry(devices=[DEVICE], observedAt="2026-01-01T12:00:01Z"), moment)
    assert not install.fresh(telemetry(devices=[DEVICE], observedAt="2026-01-01T11:59:59Z"), moment)
    assert not install.fresh(telemetry(devices=[], observedAt="2026-01-01T12:00:01Z"), moment)
    assert not install.fresh(telemetry(), moment)


def test_helm_gets_the_local_image_and_the_driver_folder(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("")
    words = install.helm_words(tmp_path)
    assert words[:4] == ("upgrade", "--install", "gpufleet", f"{tmp_path}/charts/gpufleet")
    images = {f"--set-string={program}.image.repository=gpufleet" for program in ("agent", "operator")}
    assert {*images, "--set-string=image.tag=dev", "--set=agent.driver.devices=false", "--wait"} <= set(words)
    assert "--set-string=agent.driver.hostPath=/opt/gpufleet/driver" in words
    # No agent renews a Lease for longer than one wait of the demo.
    assert "--set=agent.reportSeconds=30" in words


def test_build_id_changes_only_with_the_code(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("")
    (tmp_path / "operator").mkdir()
    (tmp_path / "operator" / "a.py").write_text("x = 1")
    before = install.build_id(tmp_path)
    (tmp_path / "operator" / "a.txt").write_text("a note")
    assert install.build_id(tmp_path) == before
    (tmp_path / "operator" / "a.py").write_text("x = 2")
    assert install.build_id(tmp_path) != before


def test_the_temperature_is_read_per_device() -> None:
    assert thermal.temperature(telemetry(devices=[DEVICE]), "GPU-a") == 95
    assert thermal.temperature(telemetry(devices=[DEVICE]), "GPU-b") is None


def test_workload_is_explained_when_not_placed_with_a_message() -> None:
    condition = {"type": "Placed", "status": "False", "reason": "Waiting"}
    said: dict[str, Any] = {"metadata": {}, "status": {"conditions": [condition], "explanation": {"message": "why"}}}
    assert thermal.explained(said)
    said["status"]["explanation"]["message"] = ""
    assert not thermal.explained(said)
    said["status"] = {"conditions": [{**condition, "status": "True"}], "explanation": {"message": "why"}}
    assert not thermal.explained(said)


def test_of_a_description_the_named_chapters_are_shown() -> None:
    text = (
        "Name: x\nStatus:\n  Conditions:\n    Type: Ready\n  Explanation:\n    Message: why\n    Miss:\n      Node: n\n"
    )
    text += "  Nodes:\n  Placements:\nEvents:\n  Type  Reason\n"
    assert unplaceable.sections(text, "Explanation", "Events").splitlines() == [
        "  Explanation:",
        "    Message: why",
        "    Miss:",
        "      Node: n",
        "Events:",
        "  Type  Reason",
    ]


def test_a_text_without_the_chapters_is_shown_whole() -> None:
    assert unplaceable.sections("NAME  READY\nx  0/1\n", "Events") == "NAME  READY\nx  0/1\n"


def test_transport_is_a_value_of_the_chart_unless_it_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").touch()
    assert not any("transport=" in word for word in install.helm_words(tmp_path))
    assert "--set-string=transport=DRA" in install.helm_words(tmp_path, "DRA")


def test_devices_can_be_claimed_once_none_is_withheld() -> None:
    device = {"uuid": "GPU-1"}
    assert install.serves_claims({"status": {"transport": "DRA", "devices": [device]}})
    assert not install.serves_claims({"status": {"transport": "DRA", "devices": [{**device, "withheld": "why"}]}})
    assert not install.serves_claims({"status": {"devices": [device]}})
    assert not install.serves_claims({})
