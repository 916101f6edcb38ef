"""A program `kubectl` that answers from recorded lists and writes down how it was called."""

import json
import os
import stat
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gpufleet_cli.cluster.kinds import AGENT_LEASES, EVENTS, NODES, PODS, TELEMETRY, WORKLOADS, ObjectKind

JsonObject = dict[str, Any]
AGENTS_NAMESPACE = "gpufleet-system"

_SCRIPT = """#!/bin/sh
printf '%s\\n' "$*" >> '{folder}/calls'
key=
case "$1" in
  get) [ "$2" = --raw ] && key="${{3%%\\?*}}" || key="get-$2" ;;
  *) key="$1-$2" ;;
esac
file='{folder}/'$(printf %s "$key" | tr / _)
if [ -f "$file.error" ]; then cat "$file.error" >&2; exit 1; fi
if [ -f "$file" ]; then cat "$file"; exit 0; fi
case "$1" in patch|annotate|evict) exit 0 ;; esac
echo "Error from server (NotFound): the server could not find the requested resource" >&2
exit 1
"""


class RecordedCluster:
    """Lists by path. A list that is not recorded does not exist.

    Args:
        folder: Where the program and the lists are.
        monkeypatch: Puts the program first in PATH.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        program = folder / "kubectl"
        program.write_text(_SCRIPT.format(folder=folder))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        self.record("config-view", "team")

    def record(self, key: str, text: str) -> None:
        """Records what a command prints, by its first two words or by the path of `get --raw`."""
        self._file(key).write_text(text)

    def fail(self, key: str, error: str) -> None:
        """Makes a command fail with an error."""
        Path(f"{self._file(key)}.error").write_text(error)

    def put(self, kind: ObjectKind, *objects: Mapping[str, Any], namespace: str | None = None) -> None:
        """Records a list, of all namespaces and of one."""
        text = json.dumps({"kind": f"{kind.kind}List", "items": list(objects)})
        for space in {None, namespace}:
            self.record(kind.path(space), text)

    def fleet(
        self,
        telemetry: Iterable[JsonObject] = (),
        workloads: Iterable[JsonObject] = (),
        pods: Iterable[JsonObject] = (),
        *,
        nodes: Iterable[JsonObject] = (),
        events: Iterable[JsonObject] = (),
        leases: Iterable[JsonObject] = (),
        namespace: str = "team",
    ) -> None:
        """Records the lists that most commands read."""
        for kind, objects in (
            (TELEMETRY, telemetry),
            (WORKLOADS, workloads),
            (PODS, pods),
            (NODES, nodes),
            (EVENTS, events),
        ):
            self.put(kind, *objects, namespace=namespace if kind.namespaced else None)
        self.put(AGENT_LEASES, *leases, namespace=AGENTS_NAMESPACE)

    @property
    def calls(self) -> list[str]:
        """The commands so far."""
        path = self._folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def _file(self, key: str) -> Path:
        return self._folder / key.partition("?")[0].replace("/", "_")


def live_telemetry(name: str, *devices: JsonObject, observed: str, **fields: object) -> JsonObject:
    """Returns a GPUTelemetry that the apiserver recorded at `observed`."""
    summary = {"devices": len(devices), "healthy": len(devices), "allocated": 0, "state": "Ready"}
    return {
        "apiVersion": "gpufleet.dev/v1alpha1",
        "kind": "GPUTelemetry",
        "metadata": {
            "name": name,
            "managedFields": [{"manager": "gpufleet-agent", "subresource": "status", "time": observed}],
        },
        "spec": fields.pop("spec", {}),
        "status": {
            "observedAt": observed,
            "sampleTime": observed,
            "agentVersion": "0.1.0",
            "devices": list(devices),
            "summary": summary,
            **fields,
        },
    }


def agent_lease(node: str, confirmed: str, renewed: str, *, namespace: str = AGENTS_NAMESPACE) -> JsonObject:
    """Returns the Lease of an agent, renewed at `renewed` by the apiserver's clock. The node's clock is an hour ahead.

    Args:
        node: The node.
        confirmed: `status.observedAt` of the report that it confirms.
        renewed: Time of the renewal.
        namespace: Namespace of the agents.
    """
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": f"gpufleet-agent.{node}",
            "namespace": namespace,
            "labels": {"gpufleet.dev/lease": "agent"},
            "annotations": {"gpufleet.dev/observed-at": confirmed},
            "managedFields": [{"manager": "gpufleet-agent", "operation": "Apply", "time": renewed}],
        },
        "spec": {
            "holderIdentity": "gpufleet-agent-x",
            "leaseDurationSeconds": 90,
            "renewTime": f"{datetime.fromisoformat(renewed) + timedelta(hours=1):%Y-%m-%dT%H:%M:%S.%fZ}",
        },
    }


def holder(namespace: str, pod: str, container: str = "main", **fields: object) -> JsonObject:
    """Returns an entry of `allocatedTo`."""
    return {"namespace": namespace, "pod": pod, "container": container, **fields}


def reservation(
    namespace: str, pod: str, workload: str, *devices: str, replica: int = 0, **fields: object
) -> JsonObject:
    """Returns an entry of `spec.assignments`."""
    return {
        "podUID": f"uid-{pod}",
        "namespace": namespace,
        "pod": pod,
        "container": "main",
        "workload": workload,
        "workloadUID": f"uid-{workload}",
        "replica": replica,
        "replicas": 1,
        "resource": "gpufleet.dev/gpu",
        "devices": list(devices),
        "decidedAt": "2026-01-01T00:00:00Z",
        **fields,
    }


def live_workload(
    name: str, namespace: str = "team", *, status: JsonObject | None = None, **spec: object
) -> JsonObject:
    """Returns a GPUWorkload with a status."""
    template = {"spec": {"restartPolicy": "Always", "containers": [{"name": "main", "image": "example:1"}]}}
    return {
        "apiVersion": "gpufleet.dev/v1alpha1",
        "kind": "GPUWorkload",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", "generation": 1},
        "spec": {"replicas": 1, "devices": {"count": 1}, "template": template, **spec},
        "status": {"observedGeneration": 1, **(status or {})},
    }


def condition(kind: str, status: str, reason: str, message: str = "") -> JsonObject:
    """Returns a condition."""
    at = "2026-01-01T00:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


def workload_pod(
    name: str, workload: str, namespace: str = "team", *, replica: int = 0, gated: bool = False, **fields: JsonObject
) -> JsonObject:
    """Returns a pod of a workload; a gated one, or one whose container runs."""
    running = {"name": "main", "ready": True, "restartCount": 0, "state": {"running": {}}}
    spec: JsonObject = {"containers": [{"name": "main"}]}
    status: JsonObject = {
        "phase": "Running",
        "containerStatuses": [running],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    if gated:
        spec["schedulingGates"] = [{"name": "gpufleet.dev/assignment"}]
        status = {"phase": "Pending"}
    owner = {
        "apiVersion": "gpufleet.dev/v1alpha1",
        "kind": "GPUWorkload",
        "name": workload,
        "uid": f"uid-{workload}",
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"gpufleet.dev/workload": workload, "gpufleet.dev/replica": str(replica)},
            "annotations": fields.pop("annotations", {}),
            "ownerReferences": [owner],
        },
        "spec": {**spec, **fields.pop("spec", {})},
        "status": fields.pop("status", status),
    }


def event(kind: str, name: str, reason: str, message: str, *, namespace: str = "team", **fields: object) -> JsonObject:
    """Returns an event."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{reason}", "namespace": namespace},
        "involvedObject": {"kind": kind, "name": name},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": "2026-01-01T00:00:05Z",
        **fields,
    }
