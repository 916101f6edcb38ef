"""Minimal objects that the accounts try to write."""

from collections.abc import Mapping

from gpufleet_e2e.identities.client import JsonObject
from gpufleet_e2e.identities.paths import NAMESPACE

API_VERSION = "gpufleet.dev/v1alpha1"

TEMPLATE: JsonObject = {
    "spec": {"restartPolicy": "Always", "containers": [{"name": "main", "image": "localhost/busybox:1"}]}
}

ASSIGNMENT: JsonObject = {
    "podUID": "uid-a",
    "namespace": "ml",
    "pod": "train-0-abcde",
    "container": "main",
    "workload": "train",
    "workloadUID": "uid-w",
    "replica": 0,
    "replicas": 1,
    "resource": "gpufleet.dev/gpu",
    "devices": ["GPU-1"],
    "decidedAt": "2026-01-01T00:00:00.123456Z",
}
"""A reservation for a pod that does not exist."""

STATUS: JsonObject = {
    "observedAt": "2026-01-01T00:00:00Z",
    "agentVersion": "0.1.0",
    "summary": {"devices": 0, "healthy": 0, "allocated": 0},
}
"""The status of a node without GPUs."""


def workload(name: str = "train", **spec: object) -> JsonObject:
    """Builds a workload, by default suspended, so that the operator ignores it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "GPUWorkload",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"suspend": True, "template": TEMPLATE, **spec},
    }


def telemetry(name: str = "e2e-no-such-node", **fields: object) -> JsonObject:
    """Builds a GPUTelemetry, by default of a node that does not exist."""
    return {"apiVersion": API_VERSION, "kind": "GPUTelemetry", "metadata": {"name": name}, **fields}


def lease(name: str) -> JsonObject:
    """Builds a Lease."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"holderIdentity": "e2e"},
    }


def pod(
    name: str, *, account: str = "user", annotations: Mapping[str, str] | None = None, **spec: object
) -> JsonObject:
    """Builds a pod that sleeps, with the test bed's small image."""
    container = {
        "name": "main",
        "image": "localhost/busybox:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "exec sleep 1000000"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": dict(annotations or {})},
        "spec": {
            "serviceAccountName": account,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            **spec,
        },
    }
