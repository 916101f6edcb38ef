"""Files as kubectl prints them, and the command line run in this process."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gpufleet_api.generate import ROOT
from gpufleet_cli.app import app

Json = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def notes(self) -> list[str]:
        return [line.removeprefix("note: ") for line in self.err.splitlines() if line.startswith("note: ")]


@dataclass
class Files:
    """Writes files of Kubernetes objects; every default is that of an idle fleet."""

    folder: Path
    _count: Iterator[int] = field(default_factory=lambda: iter(range(1000)))

    def write(self, *objects: Json, name: str | None = None) -> str:
        path = self.folder / (name or f"{next(self._count)}.yaml")
        path.write_text(yaml.safe_dump_all(objects), encoding="utf-8")
        return str(path)

    def text(self, text: str, name: str | None = None) -> str:
        path = self.folder / (name or f"{next(self._count)}.yaml")
        path.write_text(text, encoding="utf-8")
        return str(path)

    def device(self, node: str, index: int, **values: Any) -> Json:
        """An idle device; a value of None is not reported."""
        fields: Json = {
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

    def node(self, name: str, *devices: Json, observed: str = "2026-01-01T00:00:00Z", **fields: Any) -> Json:
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
                **fields,
            },
        }

    def idle(self, name: str, count: int = 2, observed: str = "2026-01-01T00:00:00Z", **values: Any) -> Json:
        """A node of idle devices, the first ones the coolest."""
        devices = [self.device(name, index, **values) for index in range(count)]
        return self.node(name, *devices, observed=observed)

    def workload(self, name: str = "train", **spec: Any) -> Json:
        template = {"spec": {"containers": [{"name": "main", "image": "example:1"}]}}
        return {
            "apiVersion": "gpufleet.dev/v1alpha1",
            "kind": "GPUWorkload",
            "metadata": {"name": name},
            "spec": {"template": template, **spec},
        }


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def examples() -> Path:
    return ROOT / "examples"


@pytest.fixture
def gpufleet(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs the command line; an exception that escapes it fails the test."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: object, stdin: str = "") -> Done:
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, catch_exceptions=False)
        return Done(result.exit_code, result.stdout, result.stderr)

    return run
