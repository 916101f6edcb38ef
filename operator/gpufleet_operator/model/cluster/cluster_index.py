"""Indexes objects of the cluster by the objects that they belong to."""

from dataclasses import dataclass, field

from gpufleet_operator.model.objects import Pod


@dataclass(slots=True)
class ClusterIndex:
    """Objects by those that they belong to."""

    pods_of: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    """Namespace -> uid of the workload that controls them (empty: none) -> uids of pods."""
    pods_on: dict[str, set[str]] = field(default_factory=dict)
    """Name of the node that they are bound or released to -> uids of pods of workloads."""
    nodes_reserved_for: dict[str, set[str]] = field(default_factory=dict)
    """Uid of a pod -> nodes with an assignment for it."""
    nodes_reserved_by: dict[str, dict[str, int]] = field(default_factory=dict)
    """Uid of a workload -> node -> number of its assignments there."""
    services_of: dict[str, set[str]] = field(default_factory=dict)
    """Uid of a workload -> uids of Services."""
    restricting_pods: set[str] = field(default_factory=set)
    """Uids of pods of all kinds that restrict which other pods run in their topology domain, or depend on them."""
    node_of: dict[str, str] = field(default_factory=dict)
    """Uid of a Node or GPUTelemetry -> name."""

    labeled_pods: dict[str, set[str]] = field(default_factory=dict)
    """Namespace/name of the GPUWorkload in their label -> uids of pods that no GPUWorkload controls."""
    workload_named: dict[str, str] = field(default_factory=dict)
    """Namespace/name of a workload -> uid."""

    def workload_of(self, pod: Pod) -> str:
        """Returns the uid of the workload that controls a pod, or of the one in its label; empty: there is none."""
        return pod.workload_uid or self.workload_named.get(pod.labeled_workload, "")

    def pods_of_workload(self, namespace: str, uid: str) -> set[str]:
        return self.pods_of.get(namespace, {}).get(uid, set())
