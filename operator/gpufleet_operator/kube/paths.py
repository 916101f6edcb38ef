"""Where our objects live in the API."""

from gpufleet_api.names import GROUP, TELEMETRY_PLURAL, VERSION, WORKLOAD_LABEL, WORKLOAD_PLURAL

WORKLOADS = f"/apis/{GROUP}/{VERSION}/{WORKLOAD_PLURAL}"
TELEMETRIES = f"/apis/{GROUP}/{VERSION}/{TELEMETRY_PLURAL}"
PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"

OUR_PODS = {"labelSelector": WORKLOAD_LABEL}

OTHER_PODS = {
    "labelSelector": f"!{WORKLOAD_LABEL}",
    "fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
}
"""Pods of others that take room on a node. One that ends no longer matches and arrives as deleted."""


def workload(namespace: str, name: str) -> str:
    """A GPUWorkload."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{WORKLOAD_PLURAL}/{name}"


def telemetry(node: str) -> str:
    """A GPUTelemetry."""
    return f"{TELEMETRIES}/{node}"


def pods(namespace: str) -> str:
    """A namespace's pods."""
    return f"/api/v1/namespaces/{namespace}/pods"


def pod(namespace: str, name: str) -> str:
    """A pod."""
    return f"{pods(namespace)}/{name}"


def events(namespace: str) -> str:
    """A namespace's events."""
    return f"/api/v1/namespaces/{namespace}/events"
