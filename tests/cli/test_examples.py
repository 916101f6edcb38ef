"""The example fleets are valid, consistent, and work with every example."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gpufleet_api.crd import DEMAND, TELEMETRY
from gpufleet_api.demand.gpu_demand import GPUDemand
from gpufleet_api.generate import ROOT
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_operator.demand.statistics import recommended_mib
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_testing.cli.runner import run_cli

FLEETS = sorted((ROOT / "examples" / "fleets").glob("*.yaml"))
MANIFESTS = sorted((ROOT / "examples").glob("*.yaml"))


def objects(path: Path) -> Iterator[dict[str, Any]]:
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        yield from document["items"]


def unknown(schema: Mapping[str, Any], value: object, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in schema.get("properties", {}):
                yield f"{path}.{name}"
            else:
                yield from unknown(schema["properties"][name], item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from unknown(schema["items"], item, f"{path}[]")


def test_demands_are_valid_and_recommend_what_the_operator_would() -> None:
    (version,) = DEMAND.definition()["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    text = (ROOT / "examples" / "demands" / "team.yaml").read_text(encoding="utf-8")
    for body in yaml.safe_load_all(text):
        jsonschema.validate(body, schema)
        for part in ("spec", "status"):
            assert list(unknown(schema["properties"][part], body[part], part)) == []
        demand = GPUDemand.model_validate(body)
        spec, namespace, status = demand.spec, demand.metadata.namespace or "", demand.status
        assert status is not None
        key = TemplateKey(namespace, spec.owner.kind, spec.owner.name, spec.container, spec.image)
        assert demand.metadata.name == key.name, "the operator would ignore it"
        assert status.max_mib is not None
        assert status.recommended_mib == recommended_mib(status.max_mib)


def test_documented_fleets_exist() -> None:
    assert {path.stem for path in FLEETS} >= {"mixed", "faults"}


@pytest.mark.parametrize("path", FLEETS, ids=lambda path: path.stem)
def test_fleet_is_valid_and_consistent(path: Path) -> None:
    (version,) = TELEMETRY.definition()["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# "), "a reader wants to know what it shows"
    uuids: list[str] = []
    for body in objects(path):
        jsonschema.validate(body, schema)
        for part in ("spec", "status"):
            assert list(unknown(schema["properties"][part], body[part], part)) == []
        node = GPUTelemetry.model_validate(body)
        assert node.status is not None
        devices, summary = node.status.devices, node.status.summary
        assert len(devices) == summary.devices == 8
        assert summary.healthy == sum(d.health.state == "Healthy" for d in devices)
        assert summary.allocated == sum(bool(d.allocated_to) for d in devices)
        assert summary.memory_used_mib == sum(d.memory_used_mib or 0 for d in devices)
        assert summary.power_watts == round(sum(d.power_milliwatts or 0 for d in devices) / 1000)
        assert summary.free == sum(d.offered and not d.allocated_to for d in devices)
        mine = {d.uuid for d in devices}
        assert {uuid for a in node.spec.assignments for uuid in a.devices} <= mine
        held = {a.pod_uid: set(a.devices) for a in node.spec.assignments}
        for device in devices:
            assert all(device.uuid in held[holder.pod_uid or ""] for holder in device.allocated_to)
            assert set(device.nvlink_peers) < mine
        uuids += mine
    assert len(uuids) == len(set(uuids)) == 16


PLACED = {
    ("mixed", "single"): True,
    ("mixed", "gang"): True,
    ("mixed", "spread"): True,
    ("mixed", "distribution"): True,
    ("mixed", "impossible"): False,
    ("mixed", "shared"): True,
    ("mixed", "multi-node"): True,
    ("faults", "single"): True,
    ("faults", "gang"): True,
    ("faults", "spread"): False,
    ("faults", "distribution"): True,
    ("faults", "impossible"): False,
    ("faults", "shared"): True,
    ("faults", "multi-node"): True,
}


@pytest.mark.parametrize("fleet", FLEETS, ids=lambda path: path.stem)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_every_example_works_with_every_fleet(fleet: Path, manifest: Path) -> None:
    done = run_cli("simulate", "-f", manifest, "--from", fleet)
    assert done.code == (0 if PLACED[fleet.stem, manifest.stem] else 1)
    for workload in yaml.safe_load_all(manifest.read_text(encoding="utf-8")):
        one = ("-f", manifest, "--workload", workload["metadata"]["name"], "--from", fleet)
        assert run_cli("explain", *one).code == 0
        assert run_cli("rank", *one).code == 0


def test_faults_fleet_has_a_device_for_each_reason(examples: Path) -> None:
    done = run_cli(
        "explain", "-f", examples / "single.yaml", "--from", examples / "fleets" / "faults.yaml", "-o", "json"
    )
    assert [d["reason"] for d in done.json["devices"]] == [
        None,
        "DeviceUnhealthy",
        "TemperatureTooHigh",
        "DeviceInUse",
        "ForeignProcess",
        "MeasurementMissing",
        "TelemetryStale",
        "InsufficientFreeMemory",
        None,
        None,
        "DeviceUnhealthy",
        "DeviceInUse",
        "DeviceInUse",
        "DeviceInUse",
        None,
        "DeviceInUse",
    ]
