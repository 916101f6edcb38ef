"""Kinds of objects that the commands read, and the paths of their lists."""

from dataclasses import dataclass
from typing import Final

from gpufleet_api.names import (
    AGENT_LEASE,
    API_VERSION,
    DEMAND_KIND,
    DEMAND_PLURAL,
    DRA_DRIVER,
    LEASE_LABEL,
    OPERATOR_LEASE,
    READS_DENIED,
    TELEMETRY_KIND,
    TELEMETRY_PLURAL,
    WORKLOAD_KIND,
    WORKLOAD_LABEL,
    WORKLOAD_PLURAL,
)


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """A kind of objects. `selector` limits a list to some of them, as the query of a URL."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = False
    selector: str = ""

    def path(self, namespace: str | None = None) -> str:
        """Returns the path of the list of one namespace, or of all objects."""
        root = "/apis" if "/" in self.api_version else "/api"
        where = f"/namespaces/{namespace}" if namespace is not None and self.namespaced else ""
        return f"{root}/{self.api_version}{where}/{self.plural}{self.selector}"


_OURS: Final = "?labelSelector=app.kubernetes.io%2Fcomponent%20in%20(agent,operator)"
"""Objects of the chart, also with overridden names; those of other charts are left out later."""
_ADMISSION: Final = "admissionregistration.k8s.io/v1"

TELEMETRY: Final = ObjectKind(API_VERSION, TELEMETRY_KIND, TELEMETRY_PLURAL)
WORKLOADS: Final = ObjectKind(API_VERSION, WORKLOAD_KIND, WORKLOAD_PLURAL, namespaced=True)
DEMANDS: Final = ObjectKind(API_VERSION, DEMAND_KIND, DEMAND_PLURAL, namespaced=True)
PODS: Final = ObjectKind("v1", "Pod", "pods", namespaced=True)
WORKLOAD_PODS: Final = ObjectKind(
    "v1", "Pod", "pods", namespaced=True, selector=f"?labelSelector={WORKLOAD_LABEL.replace('/', '%2F')}"
)
PRIORITY_CLASSES: Final = ObjectKind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses")
NODES: Final = ObjectKind("v1", "Node", "nodes")
EVENTS: Final = ObjectKind("v1", "Event", "events", namespaced=True)
DENIED_READS: Final = ObjectKind(
    "v1", "Event", "events", namespaced=True, selector=f"?fieldSelector=reason%3D{READS_DENIED}"
)
NAMESPACES: Final = ObjectKind("v1", "Namespace", "namespaces")
AGENTS: Final = ObjectKind("apps/v1", "DaemonSet", "daemonsets", namespaced=True, selector=_OURS)
OPERATORS: Final = ObjectKind("apps/v1", "Deployment", "deployments", namespaced=True, selector=_OURS)
POLICIES: Final = ObjectKind(_ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
LEASES: Final = ObjectKind(
    "coordination.k8s.io/v1",
    "Lease",
    "leases",
    namespaced=True,
    selector=f"?fieldSelector=metadata.name%3D{OPERATOR_LEASE}",
)
AGENT_LEASES: Final = ObjectKind(
    LEASES.api_version,
    LEASES.kind,
    LEASES.plural,
    namespaced=True,
    selector=f"?labelSelector={LEASE_LABEL.replace('/', '%2F')}%3D{AGENT_LEASE}",
)
BINDINGS: Final = ObjectKind(_ADMISSION, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
CRDS: Final = ObjectKind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
RUNTIME_CLASSES: Final = ObjectKind("node.k8s.io/v1", "RuntimeClass", "runtimeclasses")
SLICES: Final = ObjectKind(
    "resource.k8s.io/v1", "ResourceSlice", "resourceslices", selector=f"?fieldSelector=spec.driver%3D{DRA_DRIVER}"
)
