"""The models as Python values: JSON names, defaults, round trips, and agreement with the CRD's schema."""

from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from gpufleet_api.base import ApiModel, camel
from gpufleet_api.crd import DEMAND, TELEMETRY, WORKLOAD, ApiResource
from gpufleet_api.demand.gpu_demand import GPUDemand
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_api.workload import GPUWorkload
from gpufleet_api.workload_placement import Strategy, Topology


@pytest.mark.parametrize(
    ("python", "wire"),
    [
        ("replicas", "replicas"),
        ("observed_generation", "observedGeneration"),
        ("min_free_memory_mib", "minFreeMemoryMiB"),
        ("pod_uid", "podUID"),
        ("enable_dns_hostnames", "enableDNSHostnames"),
        ("include_uuids", "includeUUIDs"),
        ("uuid", "uuid"),
        ("pci_bus_id", "pciBusId"),
        ("p95", "p95"),
    ],
)
def test_json_names_are_camel_case_with_units_and_acronyms(python: str, wire: str) -> None:
    assert camel(python) == wire


TEMPLATE = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example/train:1"}]}}

WORKLOAD_OBJECT: dict[str, Any] = {
    "metadata": {"name": "train", "namespace": "ml", "uid": "u", "generation": 2, "resourceVersion": "7"},
    "spec": {
        "replicas": 2,
        "template": TEMPLATE,
        "devices": {"count": 4, "mode": "Shared", "memoryMiB": 20_000, "computePercent": 25, "container": "main"}
        | {"containers": [{"name": "main", "count": 4}]},
        "requirements": {
            "minFreeMemoryMiB": 40_000,
            "maxUtilizationPercent": 50,
            "maxTemperatureCelsius": 80,
            "models": ["NVIDIA H100 80GB HBM3"],
            "minComputeCapability": "8.0",
            "includeUUIDs": ["GPU-1"],
            "excludeUUIDs": ["GPU-2"],
            "nodeSelector": {"zone": "a"},
        },
        "placement": {
            "strategy": "Spread",
            "topology": "NVLink",
            "weights": {"memory": 1, "utilization": 2, "temperature": 3, "power": 4},
            "gang": True,
            "gangTimeoutSeconds": 300,
            "scaleUp": True,
            "onDegraded": "Replace",
            "minRuntimeSeconds": 60,
            "demand": "Learned",
            "reclaim": "Used",
            "onPressure": "Move",
        },
        "distribution": {"items": 10, "mode": "Proportional", "by": "Weights", "weights": [3, 1], "maxPerReplica": 8},
        "runPolicy": {
            "backoffLimit": 2,
            "activeDeadlineSeconds": 3600,
            "ttlSecondsAfterFinished": 0,
            "onReplicaFailure": "RestartAll",
        },
        "updateStrategy": {"type": "OnDelete", "maxUnavailable": "25%"},
        "network": {"enableDNSHostnames": False},
        "suspend": True,
    },
    "status": {
        "observedGeneration": 2,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AllReplicasReady",
                "message": "2 of 2",
                "observedGeneration": 2,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
        "state": "Running",
        "reason": "AllReplicasReady",
        "ready": "2/2",
        "replicas": 2,
        "readyReplicas": 2,
        "allocatedReplicas": 2,
        "updatedReplicas": 2,
        "succeeded": 0,
        "failed": 1,
        "restarts": 1,
        "restartTime": "2026-01-01T00:00:00Z",
        "incompleteSince": "2026-01-01T00:00:00Z",
        "selector": "gpufleet.dev/workload=train",
        "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-02T00:00:00Z",
        "gpus": 8,
        "nodes": "node-1",
        "placements": [
            {
                "demandMiB": 8000,
                "demandRuns": 14,
                "replica": 0,
                "state": "Allocated",
                "attempt": 1,
                "failures": 1,
                "rejections": 3,
                "lastRejectionTime": "2026-01-01T00:00:00Z",
                "retryTime": "2026-01-01T00:10:00Z",
                "ready": True,
                "removal": "Unschedulable",
                "pod": "train-0-abcde",
                "podUID": "p",
                "node": "node-1",
                "devices": ["GPU-1"],
                "shardStart": 0,
                "shardEnd": 5,
                "score": {"total": 900, "memory": 1000, "utilization": 800, "temperature": 900, "power": 900},
                "message": "held",
            }
        ],
        "unassignedItems": 0,
        "explanation": {
            "message": "3 GPUs lack 2,148 MiB",
            "devicesConsidered": 8,
            "devicesEligible": 5,
            "ineligibleDevices": [{"reason": "FreeMemory", "devices": 3, "nodes": 1}],
            "nearestMiss": {"node": "node-2", "device": "GPU-9", "reason": "FreeMemory", "message": "lacks 2,148 MiB"},
            "earmark": {"since": "2026-01-01T00:00:00Z", "devices": 8, "devicesInUse": 2, "nodes": ["node-2"]},
            "nodeRejections": [
                {
                    "replica": 1,
                    "node": "node-2",
                    "by": "kube-scheduler",
                    "message": "Insufficient cpu",
                    "time": "2026-01-01T00:00:00Z",
                }
            ],
        },
    },
}

STATISTICS = {"mean": 40, "max": 90, "p95": 85}

TELEMETRY_OBJECT: dict[str, Any] = {
    "metadata": {"name": "node-1"},
    "spec": {
        "assignments": [
            {
                "podUID": "p",
                "namespace": "ml",
                "pod": "train-0-abcde",
                "container": "main",
                "containers": [{"name": "main", "count": 1}, {"name": "side", "count": 1}],
                "workload": "train",
                "workloadUID": "u",
                "replica": 0,
                "replicas": 2,
                "resource": "gpufleet.dev/gpu",
                "devices": ["GPU-1"],
                "memoryMiB": 20_000,
                "computePercent": 25,
                "demandMiB": 8000,
                "demandRuns": 14,
                "shardStart": 0,
                "shardEnd": 5,
                "terminationGracePeriodSeconds": 30,
                "decidedAt": "2026-01-01T00:00:00.123456Z",
                "keepForSuccessor": True,
                "reclaim": "Used",
                "movedFrom": {"podUID": "p", "node": "node-2", "device": "GPU-3", "message": "moved from node-2/GPU-3"},
            }
        ],
        "cordoned": [
            {"uuid": "GPU-2", "reason": "fan", "by": "ann", "until": "2026-01-02T00:00:00Z", "drain": True},
        ],
    },
    "status": {
        "assignmentsGeneration": 3,
        "observedAt": "2026-01-01T00:00:01.000001Z",
        "sampleTime": "2026-01-01T00:00:01Z",
        "agentVersion": "0.1.0",
        "driverVersion": "580.65.06",
        "bootId": "0b5c7a8e-0a6f-4a55-9d0e-6c1f2a3b4c5d",
        "transport": "DRA",
        "processesObserved": True,
        "devices": [
            {
                "uuid": "GPU-1",
                "index": 0,
                "model": "NVIDIA H100 80GB HBM3",
                "architecture": "Hopper",
                "computeCapability": "9.0",
                "pciBusId": "00000000:3B:00.0",
                "numaNode": 0,
                "nvlinkPeers": ["GPU-2"],
                "sampleTime": "2026-01-01T00:00:01Z",
                "memoryTotalMiB": 81_559,
                "memoryUsedMiB": 412,
                "memoryReservedMiB": 479,
                "memoryModel": "NUMA",
                "utilizationPercent": 3,
                "memoryUtilizationPercent": 1,
                "temperatureCelsius": 41,
                "powerMilliwatts": 71_250,
                "powerLimitMilliwatts": 700_000,
                "memoryTemperatureCelsius": 52,
                "clocks": {"smMHz": 1980, "memoryMHz": 2619},
                "throttleReasons": ["SwPowerCap"],
                "ecc": {"correctedVolatile": 2, "uncorrectedVolatile": 0},
                "rowRemap": {"pending": False, "failed": False},
                "pageRetirementPending": False,
                "migMode": "Disabled",
                "processCount": 1,
                "withheld": "no device node",
                "health": {
                    "state": "Unhealthy",
                    "reasons": [
                        {
                            "code": "XidError",
                            "message": "XID 79",
                            "since": "2026-01-01T00:00:00Z",
                            "recovery": "Reset",
                        }
                    ],
                    "warnings": [
                        {
                            "code": "RowRemapPending",
                            "message": "at the next reset",
                            "since": "2026-01-01T00:00:00Z",
                            "recovery": "Reset",
                        }
                    ],
                    "since": "2026-01-01T00:00:00Z",
                },
                "window": {
                    "samples": 60,
                    "seconds": 60,
                    "utilizationPercent": STATISTICS,
                    "memoryUsedMiB": STATISTICS,
                    "temperatureCelsius": STATISTICS,
                    "powerMilliwatts": STATISTICS,
                },
                "allocatedTo": [
                    {
                        "namespace": "ml",
                        "pod": "train-0-abcde",
                        "container": "main",
                        "podUID": "p",
                        "shared": True,
                        "memoryMiB": 20_000,
                        "computePercent": 25,
                        "utilizationPercent": 20,
                        "memoryUsedMiB": 21_000,
                        "memoryUsedMaxMiB": 22_000,
                        "observedSince": "2026-01-01T00:00:00Z",
                        "terminating": True,
                        "overuse": {"memoryUsedMiB": 21_000, "since": "2026-01-01T00:00:00Z"},
                    }
                ],
            }
        ],
        "summary": {
            "state": "Ready",
            "devices": 1,
            "healthy": 0,
            "allocated": 1,
            "free": 0,
            "memoryTotalMiB": 81_559,
            "memoryUsedMiB": 412,
            "memoryAvailableMiB": 81_147,
            "meanUtilizationPercent": 3,
            "meanTemperatureCelsius": 41,
            "powerWatts": 71,
        },
        "conditions": [
            {
                "type": "Fresh",
                "status": "True",
                "reason": "Ready",
                "message": "current",
                "observedGeneration": 3,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    },
}


DEMAND_OBJECT: dict[str, Any] = {
    "metadata": {"name": "gpuworkload-train-main-0b7d4c11", "namespace": "ml", "uid": "u-3", "resourceVersion": "9"},
    "spec": {"owner": {"kind": "GPUWorkload", "name": "train"}, "container": "main", "image": "team/train"},
    "status": {
        "observedAt": "2026-01-02T03:04:05Z",
        "totalRuns": 40,
        "countedRuns": 1,
        "promisedMiB": 40_960,
        "medianMiB": 12_595,
        "p80MiB": 12_595,
        "maxMiB": 12_595,
        "recommendedMiB": 14_000,
        "runs": [
            {
                "podUID": "u-4",
                "since": "2026-01-02T02:04:05Z",
                "state": "Ended",
                "promisedMiB": 40_960,
                "maxMiB": 12_595,
                "deviceMiB": 81_080,
            }
        ],
    },
}


@pytest.mark.parametrize(
    ("model", "value"),
    [(GPUWorkload, WORKLOAD_OBJECT), (GPUTelemetry, TELEMETRY_OBJECT), (GPUDemand, DEMAND_OBJECT)],
    ids=["workload", "telemetry", "demand"],
)
def test_full_object_round_trips(model: type[ApiModel], value: dict[str, Any]) -> None:
    assert model.model_validate(value).model_dump(mode="json", by_alias=True, exclude_none=True) == value


@pytest.mark.parametrize(
    ("resource", "value"),
    [(WORKLOAD, WORKLOAD_OBJECT), (TELEMETRY, TELEMETRY_OBJECT), (DEMAND, DEMAND_OBJECT)],
    ids=["workload", "telemetry", "demand"],
)
def test_full_object_is_valid_and_sets_every_field(resource: ApiResource, value: dict[str, Any]) -> None:
    (version,) = resource.definition()["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    jsonschema.validate(value, schema)
    assert unused(schema["properties"]["spec"], value["spec"]) == []
    assert unused(schema["properties"]["status"], value["status"]) == []


def unused(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Fields of `schema` that the example leaves out: it must grow with the models."""
    if "properties" in schema and path != ".template":
        missing = [f"{path}.{name}" for name in schema["properties"] if name not in value]
        for name in schema["properties"].keys() & value.keys():
            missing += unused(schema["properties"][name], value[name], f"{path}.{name}")
        return missing
    return [hole for item in value for hole in unused(schema["items"], item, f"{path}[*]")] if "items" in schema else []


def test_minimal_workload_gets_the_defaults_of_the_crd() -> None:
    spec = GPUWorkload.model_validate({"metadata": {"name": "a"}, "spec": {"template": TEMPLATE}}).spec
    assert (spec.replicas, spec.devices.count, spec.suspend) == (1, 1, False)
    assert (spec.placement.strategy, spec.placement.topology, spec.placement.gang) == (
        Strategy.BEST,
        Topology.NONE,
        False,
    )
    (version,) = WORKLOAD.definition()["spec"]["versions"]
    stated = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["placement"]["default"]
    assert spec.placement.model_dump(mode="json", by_alias=True, exclude_none=True) == stated


def test_template_is_unchanged() -> None:
    template = {
        "spec": {**TEMPLATE["spec"], "unheardOf": {"deep": [1, {"a": None}]}},
        "metadata": {"labels": {"a": "b"}},
    }
    read = GPUWorkload.model_validate({"metadata": {"name": "a"}, "spec": {"template": template}})
    assert read.spec.template == template


def test_unknown_fields_of_a_newer_version_are_ignored() -> None:
    read = GPUTelemetry.model_validate({**TELEMETRY_OBJECT, "spec": {"assignments": [], "future": 1}})
    assert read.spec.assignments == []


def test_objects_are_frozen() -> None:
    read = GPUTelemetry.model_validate(TELEMETRY_OBJECT)
    with pytest.raises(ValidationError, match="frozen"):
        read.spec = read.spec  # type: ignore[misc]  # assignment to a frozen model is the case


def test_null_that_server_side_apply_leaves_is_an_empty_list() -> None:
    left = {"metadata": {"name": "node-1"}, "spec": {"cordoned": None}}
    assert GPUTelemetry.model_validate(left).spec.cordoned == []
    (version,) = TELEMETRY.definition()["spec"]["versions"]
    assert version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["cordoned"]["nullable"]
