"""The part of the cluster that one pass looks at: what changed, and everything that depends on it."""

from dataclasses import dataclass, field, replace

from gpufleet_operator.decide.incremental.region_map import RegionMap
from gpufleet_operator.decide.incremental.region_state import StateKeys, restricted
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.report_actions import explain_key, node_condition_key, telemetry_conditions_key
from gpufleet_operator.model.snapshot import Snapshot


@dataclass(slots=True)
class Seeds:
    """Subjects that a pass must look at, before their dependents are added."""

    workloads: set[str] = field(default_factory=set)
    """Uids."""
    pods: set[str] = field(default_factory=set)
    """Uids."""
    nodes: set[str] = field(default_factory=set)
    """Names of nodes; all workloads with pods or reservations there are looked at."""
    rows: set[str] = field(default_factory=set)
    """Names of nodes of which only the reservations and the free capacity are looked at."""

    def add(self, other: "Seeds") -> None:
        self.workloads |= other.workloads
        self.pods |= other.pods
        self.nodes |= other.nodes
        self.rows |= other.rows


@dataclass(frozen=True, slots=True)
class Region:
    """Workloads with all of their pods, the nodes that these are on, and all pods and reservations there.

    The pods include those of other workloads on these nodes, which the ledger needs, and uids of pods that are gone.
    """

    workloads: frozenset[str]
    pods: frozenset[str]
    nodes: frozenset[str]

    def state_keys(self, snapshot: Snapshot) -> StateKeys:
        """Returns the keys of the state that belong to the region."""
        reports = {explain_key(uid) for uid in self.pods}
        for name in self.nodes:
            if (telemetry := snapshot.telemetry.get(name)) is not None:
                reports.add(telemetry_conditions_key(telemetry.uid))
            if (node := snapshot.nodes.get(name)) is not None:
                reports.add(node_condition_key(node.uid))
        return StateKeys(self.workloads, self.pods, self.nodes, reports)

    def view(self, snapshot: Snapshot, index: ClusterIndex, keys: StateKeys) -> Snapshot:
        """Returns the snapshot with this part of its maps and of the state."""
        services = {service for uid in self.workloads for service in index.services_of.get(uid, ())}
        return replace(
            snapshot,
            templates=RegionMap(snapshot.templates, self.workloads),
            workloads=RegionMap(snapshot.workloads, self.workloads),
            telemetry=RegionMap(snapshot.telemetry, self.nodes),
            pods=RegionMap(snapshot.pods, self.pods),
            services=RegionMap(snapshot.services, services),
            other_requests=RegionMap(snapshot.other_requests, self.nodes),
            previous_state=restricted(snapshot.previous_state, keys),
            part=self.nodes,
        )


def close(seeds: Seeds, snapshot: Snapshot, index: ClusterIndex) -> Region:
    """Returns the region of these seeds."""
    return _Closure(snapshot, index).of(seeds)


class _Closure:
    def __init__(self, snapshot: Snapshot, index: ClusterIndex) -> None:
        self._snapshot, self._index = snapshot, index
        self._workloads: set[str] = set()
        self._pods: set[str] = set()
        self._nodes: set[str] = set()

    def of(self, seeds: Seeds) -> Region:
        for uid in seeds.workloads:
            self._add_workload(uid)
        for uid in seeds.pods:
            self._add_pod(uid, with_owner=True)
        for name in seeds.rows:
            self._add_node(name)
        for name in seeds.nodes:
            self._add_node(name)
            for uid in tuple(self._index.pods_on.get(name, ())):
                self._add_pod(uid, with_owner=True)
            telemetry = self._snapshot.telemetry.get(name)
            for assignment in telemetry.model.spec.assignments if telemetry else ():
                self._add_workload(assignment.workload_uid)
        return Region(frozenset(self._workloads), frozenset(self._pods), frozenset(self._nodes))

    def _add_workload(self, uid: str) -> None:
        if uid in self._workloads:
            return
        self._workloads.add(uid)
        for name in self._index.nodes_reserved_by.get(uid, ()):
            self._add_node(name)
        workload = self._snapshot.workloads.get(uid)
        namespaces = self._index.pods_of if workload is None else (workload.namespace,)
        for namespace in namespaces:
            for pod in self._index.pods_of_workload(namespace, uid) if uid else ():
                self._add_pod(pod)
        for pod in tuple(self._index.labeled_pods.get(workload.full_name, ())) if workload is not None else ():
            self._add_pod(pod)

    def _add_pod(self, uid: str, *, with_owner: bool = False) -> None:
        pod = self._snapshot.pods.get(uid)
        if uid not in self._pods:
            self._pods.add(uid)
            for name in self._index.nodes_reserved_for.get(uid, ()):
                self._add_node(name)
            foreign = self._snapshot.other_pods.get(uid)  # evicted from a drained device
            node = pod.target_node if pod is not None else foreign.node if foreign is not None else None
            if node is not None:
                self._add_node(node)
        # A gated pod is explained with its workload, also if it is only here because of its reservation.
        if pod is not None and (with_owner or pod.gates):
            self._add_workload(self._index.workload_of(pod))

    def _add_node(self, name: str) -> None:
        if name in self._nodes:
            return
        self._nodes.add(name)
        for uid in self._index.pods_on.get(name, ()):
            self._add_pod(uid)
        telemetry = self._snapshot.telemetry.get(name)
        for assignment in telemetry.model.spec.assignments if telemetry else ():
            self._add_pod(assignment.pod_uid)
