"""Paths and selectors of the objects that the operator reads and writes."""

from gpufleet_api.names import (
    AGENT_LEASE,
    DEMAND_PLURAL,
    GROUP,
    LEASE_LABEL,
    TELEMETRY_PLURAL,
    VERSION,
    WORKLOAD_LABEL,
    WORKLOAD_PLURAL,
)
from gpufleet_operator.model.kueue import names as kueue
from gpufleet_operator.model.scale_up.objects import PLACEHOLDER_LABEL

WORKLOADS = f"/apis/{GROUP}/{VERSION}/{WORKLOAD_PLURAL}"
TELEMETRIES = f"/apis/{GROUP}/{VERSION}/{TELEMETRY_PLURAL}"
DEMANDS = f"/apis/{GROUP}/{VERSION}/{DEMAND_PLURAL}"
PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"
SERVICES = "/api/v1/services"
QUOTAS = "/api/v1/resourcequotas"
_DRA = "/apis/resource.k8s.io/v1"
CLAIMS = f"{_DRA}/resourceclaims"

_KUEUE = f"/apis/{kueue.VERSION}"
ADMISSION_CHECKS = f"{_KUEUE}/admissionchecks"
KUEUE_WORKLOADS = f"{_KUEUE}/workloads"

_COORDINATION = "/apis/coordination.k8s.io/v1"
NODE_LEASES = f"{_COORDINATION}/namespaces/kube-node-lease/leases"

OF_WORKLOADS = {"labelSelector": WORKLOAD_LABEL}
"""Pods, Services or ResourceClaims of workloads."""

OTHER_PODS = {
    "labelSelector": f"!{WORKLOAD_LABEL}",
    "fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
}
"""Pods without a workload that use a node. One that ends no longer matches, and is reported as deleted."""


OF_AGENTS = {"labelSelector": f"{LEASE_LABEL}={AGENT_LEASE}"}
"""Leases of agents."""

PLACEHOLDERS = {"labelSelector": PLACEHOLDER_LABEL}
"""Placeholder pods, for which autoscalers add nodes."""


def workload(namespace: str, name: str) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{WORKLOAD_PLURAL}/{name}"


def demand(namespace: str, name: str) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{DEMAND_PLURAL}/{name}"


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


def claims(namespace: str) -> str:
    return f"{_DRA}/namespaces/{namespace}/resourceclaims"


def kueue_workload(namespace: str, name: str) -> str:
    return f"{_KUEUE}/namespaces/{namespace}/workloads/{name}"


def leases(namespace: str) -> str:
    return f"{_COORDINATION}/namespaces/{namespace}/leases"


def events(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/events"


def resource(path: str) -> str:
    """Returns the plural and the group of what a path names, such as `leases.coordination.k8s.io` or `pods`."""
    root, *rest = path.strip("/").split("/")
    group, rest = (rest[0], rest[2:]) if root == "apis" else ("", rest[1:])
    if rest[0] == "namespaces" and len(rest) > 2:  # noqa: PLR2004 - followed by a name and a plural
        rest = rest[2:]
    return f"{rest[0]}.{group}" if group else rest[0]
