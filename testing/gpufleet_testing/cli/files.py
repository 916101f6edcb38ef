"""Builders of Kubernetes objects, with the defaults of an idle fleet, and a folder to write them to."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

JsonObject = dict[str, Any]

_OBSERVED = "2026-01-01T00:00:00Z"


@dataclass
class ObjectFiles:
    """Writes files of Kubernetes objects to one folder and returns their paths."""

    folder: Path
    _count: Iterator[int] = field(default_factory=itertools.count)

    def write(self, *objects: JsonObject, name: str | None = None) -> str:
        """Writes one document per object."""
        return self.write_text(yaml.safe_dump_all(objects), name)

    def write_text(self, text: str, name: str | None = None) -> str:
        path = self.folder / (name or f"{next(self._count)}.yaml")
        path.write_text(text, encoding="utf-8")
        return str(path)


def gpu(node: str, index: int, **values: object) -> JsonObject:
    """Returns an idle device. A field whose value is None is left out."""
    fields: JsonObject = {
        "uuid": f"GPU-{node}-{index}",
        "index": index,
        "model": "NVIDIA H100 80GB HBM3",
        "computeCapability": "9.0",
        "memoryTotalMiB": 80000,
        "memoryUsedMiB": 0,
        "utilizationPercent": 0,
        "temperatureCelsius": 30 + index,
        "powerMilliwatts": 70000,
        "powerLimitMilliwatts": 700000,
        "processCount": 0,
        "health": {"state": "Healthy"},
    }
    return {key: value for key, value in {**fields, **values}.items() if value is not None}


def telemetry(name: str, *devices: JsonObject, observed: str = _OBSERVED, **status: object) -> JsonObject:
    """Returns the GPUTelemetry of a node with these devices."""
    return {
        "apiVersion": "gpufleet.dev/v1alpha1",
        "kind": "GPUTelemetry",
        "metadata": {"name": name},
        "status": {
            "observedAt": observed,
            "sampleTime": observed,
            "agentVersion": "0.1.0",
            "devices": list(devices),
            "summary": {"devices": len(devices), "healthy": len(devices), "allocated": 0},
            **status,
        },
    }


def idle_node(name: str, count: int = 2, observed: str = _OBSERVED, **values: object) -> JsonObject:
    """Returns the GPUTelemetry of a node of idle devices, each warmer than the one before."""
    return telemetry(name, *(gpu(name, index, **values) for index in range(count)), observed=observed)


def gpu_workload(name: str = "train", **spec: object) -> JsonObject:
    """Returns a GPUWorkload of one container."""
    template = {"spec": {"restartPolicy": "Always", "containers": [{"name": "main", "image": "example:1"}]}}
    return {
        "apiVersion": "gpufleet.dev/v1alpha1",
        "kind": "GPUWorkload",
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }
