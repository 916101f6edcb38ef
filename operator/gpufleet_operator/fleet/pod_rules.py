"""Compiles a pod's host ports, pod affinity and topology spread into rules of the engine.

The pods on the nodes are those that kube-scheduler counts: bound ones, and those that the operator has pinned or
reserved devices for. kube-scheduler checks the rules again, except topology spread: with the default
`nodeAffinityPolicy` it considers the pinned node only.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gpufleet_api.workload import Requirements
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.pod_traits import HostPort, LabelSelector, PodTerm, PodTraits, SpreadConstraint
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.placement.model import DomainRule, FilterReason, PodNeeds, Request, RuleKind, Taint
from gpufleet_operator.placement.search.constraints import matches, selected, untolerated


@dataclass(frozen=True, slots=True)
class DomainNode:
    """A node as topology domains see it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    has_devices: bool = True


class PlacedPod(NamedTuple):
    """A pod and the node that it is bound, pinned or reserved to."""

    node: str
    traits: PodTraits
    deleting: bool = False


class PlacedPods:
    """The pods on the nodes; `add` records a pick. They are indexed when the first rule needs them.

    Args:
        nodes: All nodes, also those without devices.
        pods: The pods on the nodes.
        restrict: False if none of the pods restricts where it or others may run: then they are not read before a pod to
            place does.
    """

    def __init__(self, nodes: Iterable[DomainNode], pods: Iterable[PlacedPod] = (), *, restrict: bool = True) -> None:
        self._given_nodes, self._unread = nodes, pods
        self._pods: list[PlacedPod] = []
        self._nodes: tuple[DomainNode, ...] = ()
        self._by_namespace: dict[str, list[PlacedPod]] = {}
        self._ports_in_use: dict[tuple[int, str], list[tuple[int, HostPort]]] = {}
        """Number and protocol -> host ports, each with the position of its pod."""
        self._indexed = 0
        """Number of pods in the index."""
        if restrict:
            self._read()
        self._has_anti_affinity = any(pod.traits.anti_affinity for pod in self._pods)

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        ledger: Ledger,
        stored: Mapping[str, Collection[str]] | None = None,
        *,
        restrict: bool = True,
    ) -> "PlacedPods":
        """Returns the pods that are bound, pinned, or have a reservation in `ledger`.

        Args:
            snapshot: The cluster.
            ledger: The reservations; of a part of the cluster if `stored` is given.
            stored: The nodes with a stored reservation, by uid of the pod, for pods that are not in the ledger.
            restrict: As above.
        """
        nodes = (
            DomainNode(node.name, node.labels, node.taints, has_devices=_has_devices(snapshot, node.name))
            for node in snapshot.nodes.values()
        )
        return cls(nodes, _placed(snapshot, ledger, stored or {}), restrict=restrict)

    def add(self, node: str, traits: PodTraits) -> None:
        self._pods.append(PlacedPod(node, traits))
        self._has_anti_affinity = self._has_anti_affinity or bool(traits.anti_affinity)

    def _read(self) -> None:
        self._pods = [*self._unread, *self._pods]
        self._unread = ()

    def _index(self) -> None:
        self._read()
        self._nodes = self._nodes or tuple(self._given_nodes)
        for at, pod in enumerate(self._pods[self._indexed :], self._indexed):
            self._by_namespace.setdefault(pod.traits.namespace, []).append(pod)
            for port in pod.traits.ports:
                self._ports_in_use.setdefault((port.port, port.protocol), []).append((at, port))
        self._indexed = len(self._pods)

    def restrict(self, requested: Request, requirements: Requirements | None, pod: Pod) -> Request:
        """Returns the request with what restricts this pod.

        The pod after admission (LimitRanges, defaults) counts, not the template. The extended resource of devices
        counts as well, because kube-scheduler will compare it with the node's allocatable.

        Args:
            requested: The request of its workload.
            requirements: Of the workload; its node selector is added.
            pod: A pod of a replica to place.
        """
        labels = requirements.node_selector if requirements else {}
        needs = replace(pod.needs, node_selector={**pod.needs.node_selector, **labels})
        return replace(requested, pod=needs, rules=self.rules(pod.traits, needs))

    def rules(self, pod: PodTraits, needs: PodNeeds) -> tuple[DomainRule, ...]:
        """Returns the rules for a pod; empty if neither it nor a placed pod restricts where it may run.

        Args:
            pod: The pod to place.
            needs: Its node selector, node affinity and tolerations.
        """
        if not pod.restricts_domains and not self._has_anti_affinity:
            return ()
        self._index()
        return (
            *self._ports(pod),
            *self._own_anti_affinity(pod),
            *self._anti_affinity_of_others(pod),
            *self._affinity(pod),
            *self._spread(pod, needs),
        )

    def _ports(self, pod: PodTraits) -> Iterator[DomainRule]:
        domains = {node.name: node.name for node in self._nodes} if pod.ports else {}
        for wanted in pod.ports:
            in_use = self._ports_in_use.get((wanted.port, wanted.protocol), ())
            pods = dict.fromkeys(at for at, port in in_use if wanted.conflicts(port))
            yield DomainRule(
                RuleKind.APART,
                FilterReason.HOST_PORT,
                f"host port {wanted} is in use on the node",
                domains,
                _total(self._pods[at].node for at in pods),
                counts_replicas=True,
            )

    def _own_anti_affinity(self, pod: PodTraits) -> Iterator[DomainRule]:
        for term in pod.anti_affinity:
            domains = _domains(self._nodes, term.topology_key)
            yield DomainRule(
                RuleKind.APART,
                FilterReason.POD_ANTI_AFFINITY,
                f"a pod in the same {term.topology_key} matches the pod's required anti-affinity",
                domains,
                _per_domain(domains, (p.node for p in self._selected(term))),
                counts_replicas=_selects(term, pod),
            )

    def _anti_affinity_of_others(self, pod: PodTraits) -> Iterator[DomainRule]:
        against: dict[str, list[str]] = {}
        for placed in self._pods:
            for term in placed.traits.anti_affinity:
                if _selects(term, pod):
                    against.setdefault(term.topology_key, []).append(placed.node)
        for key, found in against.items():
            domains = _domains(self._nodes, key)
            message = f"the required anti-affinity of a pod in the same {key} matches the pod"
            counts = _per_domain(domains, found)
            yield DomainRule(RuleKind.APART, FilterReason.POD_ANTI_AFFINITY, message, domains, counts)

    def _affinity(self, pod: PodTraits) -> Iterator[DomainRule]:
        """Yields one rule per term. A pod counts if it matches all terms; the first pod of a group may match itself."""
        if any(term.by_namespace_labels for term in pod.affinity):
            return  # only kube-scheduler knows the labels of namespaces
        selected_by_all = [
            p for p in (self._selected(pod.affinity[0]) if pod.affinity else ()) if _all_select(pod.affinity, p.traits)
        ]
        for term in pod.affinity:
            domains = _domains(self._nodes, term.topology_key)
            yield DomainRule(
                RuleKind.TOGETHER,
                FilterReason.POD_AFFINITY,
                f"no pod in the same {term.topology_key} matches the pod's required affinity",
                domains,
                _per_domain(domains, (p.node for p in selected_by_all)),
                counts_replicas=_all_select(pod.affinity, pod),
                outside_message=f"node has no label {term.topology_key}",
            )

    def _spread(self, pod: PodTraits, needs: PodNeeds) -> Iterator[DomainRule]:
        keys = {constraint.topology_key for constraint in pod.spread}
        candidates = [node for node in self._nodes if keys <= node.labels.keys()]
        for constraint in pod.spread:
            counted = [node for node in candidates if _is_counted(node, constraint, needs)]
            domains = _domains(counted, constraint.topology_key)
            matching = (
                p.node
                for p in self._by_namespace.get(pod.namespace, ())
                if not p.deleting and _matches(constraint.selector, p.traits)
            )
            yield DomainRule(
                RuleKind.SPREAD,
                FilterReason.TOPOLOGY_SPREAD,
                f"another pod in this {constraint.topology_key} would exceed maxSkew {constraint.max_skew}",
                domains,
                _per_domain(domains, matching),
                counts_replicas=_matches(constraint.selector, pod),
                max_skew=constraint.max_skew,
                min_domains=constraint.min_domains,
                outside_message=f"node has no label {' or '.join(sorted(keys))}",
            )

    def _selected(self, term: PodTerm) -> Iterator[PlacedPod]:
        namespaces = self._by_namespace.keys() if term.namespaces is None else sorted(term.namespaces)
        for namespace in namespaces:
            yield from (p for p in self._by_namespace.get(namespace, ()) if _matches(term.selector, p.traits))


def _placed(snapshot: Snapshot, ledger: Ledger, stored: Mapping[str, Collection[str]]) -> Iterator[PlacedPod]:
    for other in snapshot.other_pods.values():
        yield PlacedPod(other.node, other.traits, other.deleting)
    for uid, pod in snapshot.pods.items():
        reservation = ledger.active.get(uid)
        node = pod.target_node or (reservation.node if reservation else min(stored.get(uid, ()), default=None))
        if node is not None and not pod.terminal:
            yield PlacedPod(node, pod.traits, pod.deleting)


def _has_devices(snapshot: Snapshot, name: str) -> bool:
    telemetry = snapshot.telemetry.get(name)
    return telemetry is not None and telemetry.status is not None and bool(telemetry.status.devices)


def _is_counted(node: DomainNode, constraint: SpreadConstraint, needs: PodNeeds) -> bool:
    """Returns whether a node is a domain: with `nodeAffinityPolicy: Ignore`, nodes without devices are as well."""
    if constraint.honors_affinity and not (node.has_devices and selected(node.name, node.labels, needs)):
        return False
    return not constraint.honors_taints or untolerated(node.taints, needs.tolerations) is None


def _selects(term: PodTerm, pod: PodTraits) -> bool:
    return (term.namespaces is None or pod.namespace in term.namespaces) and _matches(term.selector, pod)


def _all_select(terms: Iterable[PodTerm], pod: PodTraits) -> bool:
    return all(_selects(term, pod) for term in terms)


def _matches(selector: LabelSelector | None, pod: PodTraits) -> bool:
    return selector is not None and all(matches(expression, pod.labels) for expression in selector.expressions)


def _domains(nodes: Iterable[DomainNode], key: str) -> dict[str, str]:
    return {node.name: node.labels[key] for node in nodes if key in node.labels}


def _per_domain(domains: Mapping[str, str], nodes: Iterable[str]) -> dict[str, int]:
    return _total(domains[node] for node in nodes if node in domains)


def _total(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
