"""Notes each change of a cached object, at the cost of that object."""

from collections.abc import Iterable

from gpufleet_operator.model.claims.resource_claim import ResourceClaim
from gpufleet_operator.model.cluster.changes import Changes
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.cluster.measurements import measured_again
from gpufleet_operator.model.kueue.objects import KueueWorkload
from gpufleet_operator.model.objects import BoundPod, Node, Pod, Service, Telemetry, Workload


class ChangeTracker:
    """Notes changes of objects. Its methods take an object before and after a change; None: absent."""

    def __init__(self) -> None:
        self.index = ClusterIndex()
        self._changes = Changes(everything=True)
        self._telemetry_named: dict[str, str] = {}
        """Uid of the latest GPUTelemetry by node."""

    def take(self) -> Changes:
        """Returns what changed since the last call; the first time that is everything."""
        found, self._changes = self._changes, Changes()
        return found

    def note_everything(self) -> None:
        self._changes.everything = True

    def note_keys(self, keys: Iterable[str]) -> None:
        """Notes that these writes have ended."""
        self._changes.keys.update(keys)

    def note_workloads(self, uids: Iterable[str]) -> None:
        self._changes.workloads.update(uids)

    def note_nodes(self, names: set[str]) -> None:
        self._changes.nodes |= names

    def workload(self, old: Workload | None, new: Workload | None) -> None:
        for each in (old, new):
            if each is None:
                continue
            self._changes.workloads.add(each.uid)
            self._changes.pods |= self.index.labeled_pods.get(each.full_name, set())
            if new is not None:
                self.index.workload_named[each.full_name] = each.uid
            elif self.index.workload_named.get(each.full_name) == each.uid:
                del self.index.workload_named[each.full_name]

    def pod(self, old: Pod | None, new: Pod | None) -> None:
        index, changes = self.index, self._changes
        for each, add in ((old, False), (new, True)):
            if each is None:
                continue
            changes.pods.add(each.uid)
            changes.workloads.add(index.workload_of(each))
            if not each.workload_uid:
                _put(index.labeled_pods, each.labeled_workload, each.uid, add=add)
            _put(index.pods_of.setdefault(each.namespace, {}), each.workload_uid, each.uid, add=add)
            if each.target_node is not None:
                changes.capacities.add(each.target_node)
                _put(index.pods_on, each.target_node, each.uid, add=add)
        if old is None or new is None or _life(old) != _life(new):
            changes.nodes.update(each.target_node for each in (old, new) if each and each.target_node)
        self._note_traits(new.uid if new else "", restricts=new is not None and new.traits.restricts_domains)
        if new is None and old is not None:
            index.restricting_pods.discard(old.uid)

    def telemetry(self, old: Telemetry | None, new: Telemetry | None) -> None:
        if new is not None and measured_again(old, new):
            self._changes.measured.add(new.name)
            return
        self._node_object(old, new)
        self._note_name(old, new)
        if old is not None and new is not None and old.model.spec.assignments == new.model.spec.assignments:
            return
        for each, step in ((old, -1), (new, 1)):
            for assignment in each.assignments if each is not None else ():
                self._changes.pods.add(assignment.pod_uid)
                self._changes.workloads.add(assignment.workload_uid)
                _put(self.index.nodes_reserved_for, assignment.pod_uid, each.name if each else "", add=step > 0)
                counts = self.index.nodes_reserved_by.setdefault(assignment.workload_uid, {})
                name = each.name if each else ""
                counts[name] = counts.get(name, 0) + step
                if counts[name] <= 0:
                    del counts[name]
                if not counts:
                    del self.index.nodes_reserved_by[assignment.workload_uid]

    def _note_name(self, old: Telemetry | None, new: Telemetry | None) -> None:
        if new is not None:
            # Another object of that name whose deletion is not reported yet: its reservations count no longer, and no
            # change of it says so.
            if self._telemetry_named.get(new.name, new.uid) != new.uid:
                self.note_everything()
            self._telemetry_named[new.name] = new.uid
        elif old is not None and self._telemetry_named.get(old.name) == old.uid:
            del self._telemetry_named[old.name]

    def node(self, old: Node | None, new: Node | None) -> None:
        self._node_object(old, new)

    def _node_object(self, old: Telemetry | Node | None, new: Telemetry | Node | None) -> None:
        if old is not None:
            self._changes.nodes.add(old.name)
            self.index.node_of.pop(old.uid, None)
        if new is not None:
            self._changes.nodes.add(new.name)
            self.index.node_of[new.uid] = new.name

    def service(self, old: Service | None, new: Service | None) -> None:
        for each, add in ((old, False), (new, True)):
            if each is not None:
                self._changes.workloads.add(each.owner_uid)
                _put(self.index.services_of, each.owner_uid, each.uid, add=add)

    def claim(self, old: ResourceClaim | None, new: ResourceClaim | None) -> None:
        self._changes.pods.update(each.pod_uid for each in (old, new) if each is not None)

    def kueue_workload(self, old: KueueWorkload | None, new: KueueWorkload | None) -> None:
        with_quota = (set(each.pods) if each is not None and each.reserved_since else set() for each in (old, new))
        before, after = with_quota
        self._changes.pods |= before ^ after

    def other_pod(self, old: BoundPod | None, new: BoundPod | None) -> None:
        self._changes.capacities.update(each.node for each in (old, new) if each is not None)
        if old is not None and new is None:
            self.index.restricting_pods.discard(old.uid)
        elif new is not None:
            self._note_traits(new.uid, restricts=new.traits.restricts_domains)

    def _note_traits(self, uid: str, *, restricts: bool) -> None:
        if restricts:
            self.index.restricting_pods.add(uid)
        else:
            self.index.restricting_pods.discard(uid)


def _life(pod: Pod) -> tuple[object, ...]:
    """Returns what other pods on the node may depend on."""
    listed = any(container.devices for container in pod.containers)
    return pod.terminal, pod.deleting, pod.target_node, pod.phase, bool(pod.gates), pod.workload_uid, listed


def _put(groups: dict[str, set[str]], key: str, member: str, *, add: bool) -> None:
    if add:
        groups.setdefault(key, set()).add(member)
    elif key in groups:
        groups[key].discard(member)
        if not groups[key]:
            del groups[key]
