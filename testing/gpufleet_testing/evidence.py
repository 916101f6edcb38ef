"""Raw readings of a small fleet and a workload of two replicas, as apiserver and kubelets return them."""

import json
from typing import Any

from gpufleet_e2e.proof.assemble import ContainerReading, Readings
from gpufleet_e2e.proof.evidence import Holding

JsonObject = dict[str, Any]


def device(index: int, uuid: str) -> JsonObject:
    return {
        "uuid": uuid,
        "index": index,
        "model": "NVIDIA H100 80GB HBM3",
        "memoryTotalMiB": 81559,
        "memoryUsedMiB": 400 + index,
        "temperatureCelsius": 40 + index,
        "health": {"state": "Healthy"},
    }


def telemetry(node: str, uuids: list[str], assignments: list[JsonObject]) -> JsonObject:
    return {
        "metadata": {"name": node, "uid": f"uid-{node}"},
        "spec": {"assignments": assignments},
        "status": {"devices": [device(index, uuid) for index, uuid in enumerate(uuids)][::-1]},
    }


def pod(name: str, node: str, devices: list[str]) -> JsonObject:
    return {
        "metadata": {
            "name": name,
            "namespace": "demo",
            "uid": f"uid-{name}",
            "annotations": {"gpufleet.dev/assignment": json.dumps({"devices": devices})},
        },
        "spec": {"nodeName": node},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "main",
                    "allocatedResourcesStatus": [
                        {"name": "gpufleet.dev/gpu", "resources": [{"resourceID": uuid} for uuid in devices]}
                    ],
                }
            ],
        },
    }


def workload() -> JsonObject:
    return {
        "metadata": {"name": "train", "namespace": "demo", "generation": 1},
        "spec": {
            "replicas": 2,
            "devices": {"count": 2},
            "distribution": {"items": 100},
            "template": {"spec": {"restartPolicy": "Always", "containers": [{"name": "main"}]}},
        },
        "status": {
            "unassignedItems": 0,
            "conditions": [{"type": "Ready", "status": "True", "reason": "AllReplicasReady", "observedGeneration": 1}],
            "placements": [
                placement(1, "train-1-b", ["GPU-c", "GPU-d"], 60, 100),
                placement(0, "train-0-a", ["GPU-a", "GPU-b"], 0, 60),
            ],
        },
    }


def placement(replica: int, pod_name: str, devices: list[str], start: int, end: int) -> JsonObject:
    return {
        "replica": replica,
        "state": "Allocated",
        "pod": pod_name,
        "podUID": f"uid-{pod_name}",
        "devices": devices,
        "shardStart": start,
        "shardEnd": end,
        "score": {"total": 700},
    }


def reading(devices: str, start: int, end: int) -> ContainerReading:
    variables = {
        "NVIDIA_VISIBLE_DEVICES": devices,
        "GPUFLEET_SHARD_START": str(start),
        "GPUFLEET_SHARD_END": str(end),
    }
    return ContainerReading(variables, log=f"hello\nshard {start}..{end} of 100\n")


def make_readings() -> Readings:
    """Builds readings in which all sources agree; tests change one of them."""
    assigned = [
        {"podUID": "uid-train-0-a", "devices": ["GPU-b", "GPU-a"]},
        {"podUID": "uid-else", "devices": ["GPU-x"]},
    ]
    return Readings(
        workload=workload(),
        pods=[pod("train-0-a", "node-1", ["GPU-b", "GPU-a"]), pod("train-1-b", "node-2", ["GPU-c", "GPU-d"])],
        telemetry=[
            telemetry("node-2", ["GPU-c", "GPU-d"], [{"podUID": "uid-train-1-b", "devices": ["GPU-c", "GPU-d"]}]),
            telemetry("node-1", ["GPU-a", "GPU-b", "GPU-x"], assigned),
        ],
        holdings=[
            Holding("node-1", "demo", "train-0-a", "main", "gpufleet.dev/gpu", ("GPU-a", "GPU-b")),
            Holding("node-2", "demo", "train-1-b", "main", "gpufleet.dev/gpu", ("GPU-c", "GPU-d")),
        ],
        containers={
            "train-0-a": reading("GPU-a,GPU-b", 0, 60),
            "train-1-b": reading("GPU-d,GPU-c", 60, 100),
        },
    )
