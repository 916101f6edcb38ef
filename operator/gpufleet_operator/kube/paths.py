"""Paths and selectors of the objects that the operator reads and writes."""

from gpufleet_api.names import GROUP, TELEMETRY_PLURAL, VERSION, WORKLOAD_LABEL, WORKLOAD_PLURAL

WORKLOADS = f"/apis/{GROUP}/{VERSION}/{WORKLOAD_PLURAL}"
TELEMETRIES = f"/apis/{GROUP}/{VERSION}/{TELEMETRY_PLURAL}"
PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"
NODE_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

SERVICES = "/api/v1/services"

OF_WORKLOADS = {"labelSelector": WORKLOAD_LABEL}
"""Pods or Services of workloads."""

OTHER_PODS = {
    "labelSelector": f"!{WORKLOAD_LABEL}",
    "fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
}
"""Pods without a workload that use a node. One that ends no longer matches, and is reported as deleted."""


def workload(namespace: str, name: str) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{WORKLOAD_PLURAL}/{name}"


def telemetry(node: str) -> str:
    return f"{TELEMETRIES}/{node}"


def node(name: str) -> str:
    return f"{NODES}/{name}"


def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def pod(namespace: str, name: str) -> str:
    return f"{pods(namespace)}/{name}"


def quotas(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/resourcequotas"


def services(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services"


def events(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/events"
