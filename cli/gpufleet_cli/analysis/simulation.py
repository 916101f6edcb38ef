"""Places workloads one after another, as the operator does. Each placement reduces what the next one can get."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpufleet_cli.errors import InputError
from gpufleet_cli.input.manifests import Manifest, as_stored
from gpufleet_operator.decide import shards
from gpufleet_operator.distribution import unassigned_items
from gpufleet_operator.fleet.pod_rules import DomainNode, PlacedPod, PlacedPods
from gpufleet_operator.model.objects import BoundPod
from gpufleet_operator.model.pod_traits import PodTraits
from gpufleet_operator.placement import Fleet, PreemptionProposal, propose
from gpufleet_operator.placement.errors import InvalidCapacityError, PlacementError
from gpufleet_operator.placement.explain.diagnosis import rejections_by_node
from gpufleet_operator.placement.model import Decision, DeviceState, Diagnosis, Pick, ReasonCount, Request
from gpufleet_operator.placement.replay import SavedDecision, capture

_HOSTNAME = "kubernetes.io/hostname"
"""The label that every node has with its own name, or one that belongs to it alone."""


@dataclass(frozen=True, slots=True)
class SimulatedWorkload:
    manifest: Manifest
    record: SavedDecision
    """The engine's input and decision."""
    decision: Decision
    """The engine's decision, or an empty one when the items cannot be divided."""
    devices: Mapping[int, tuple[DeviceState, ...]]
    """By replica: its devices as they were before it was placed."""
    ranges: Mapping[int, tuple[int, int]]
    """By replica: its shard [start, end) of the items; empty without a distribution."""
    unassigned: int | None = None
    """Items that no replica gets; None without a distribution."""
    by_node: Mapping[str, tuple[ReasonCount, ...]] = field(default_factory=dict)
    """By node: why its devices cannot serve the replicas that are not placed; empty when all are placed."""
    preemption: PreemptionProposal | None = None
    """The pods that would be evicted for replicas that are not placed; None: no pod, or `--preempt` is not set."""

    @property
    def placed(self) -> bool:
        """True when every replica has devices."""
        return self.decision.diagnosis is None


def simulate(
    fleet: Fleet,
    manifests: Sequence[Manifest],
    pods: Sequence[BoundPod] = (),
    *,
    nodes_known: bool,
    preempt_at: float | None = None,
) -> list[SimulatedWorkload]:
    """Places the workloads in this order and debits the fleet.

    Args:
        fleet: The fleet.
        manifests: The workloads.
        pods: The pods on the nodes, if they are known.
        nodes_known: Whether the nodes' labels are known. If not, they are not checked.
        preempt_at: Time in seconds since the epoch at which pods are proposed for eviction; None: no pod is.

    Raises:
        InputError: A workload's request is invalid.
    """
    domains = (
        DomainNode(node.name, node.labels if nodes_known else {_HOSTNAME: node.name}, node.taints)
        for node in fleet.nodes.values()
    )
    placed = PlacedPods(domains, (PlacedPod(pod.node, pod.traits, pod.deleting) for pod in pods))
    return [_place(fleet, manifest, placed, nodes_known=nodes_known, at=preempt_at) for manifest in manifests]


def checkable(request: Request, nodes_known: bool) -> Request:
    """Returns the request, without its constraints on node labels when these are not known."""
    if nodes_known:
        return request
    return replace(request, pod=replace(request.pod, node_selector={}, affinity_terms=None))


def unchecked(requests: Sequence[Request], nodes_known: bool) -> Iterator[str]:
    """Yields a note for each request whose constraints `checkable` drops."""
    for request in requests:
        pod = request.pod
        if not nodes_known and (pod.node_selector or pod.affinity_terms is not None):
            yield f"{request.name}: node selector and node affinity not checked: no Nodes known"


def unchecked_pods(manifests: Sequence[Manifest], *, nodes_known: bool, pods_known: bool) -> Iterator[str]:
    """Yields a note for each workload whose rules on other pods cannot be checked."""
    for manifest in manifests:
        keys = _other_keys(manifest.traits)
        if keys and not nodes_known:
            yield f"{manifest.name}: topology key {', '.join(keys)} not checked: no Nodes known"
        if manifest.traits.restricts_domains and not pods_known:
            yield (
                f"{manifest.name}: host ports, pod affinity and topology spread checked among the workloads only: "
                "no Pods known"
            )


def _other_keys(traits: PodTraits) -> list[str]:
    keys = {term.topology_key for term in (*traits.anti_affinity, *traits.affinity)}
    return sorted((keys | {constraint.topology_key for constraint in traits.spread}) - {_HOSTNAME})


def _without_other_keys(traits: PodTraits) -> PodTraits:
    return replace(
        traits,
        anti_affinity=tuple(t for t in traits.anti_affinity if t.topology_key == _HOSTNAME),
        affinity=tuple(t for t in traits.affinity if t.topology_key == _HOSTNAME),
        spread=tuple(t for t in traits.spread if t.topology_key == _HOSTNAME),
    )


def _place(
    fleet: Fleet, manifest: Manifest, placed: PlacedPods, *, nodes_known: bool, at: float | None
) -> SimulatedWorkload:
    request = checkable(manifest.request, nodes_known)
    traits = manifest.traits if nodes_known else _without_other_keys(manifest.traits)
    request = replace(request, rules=placed.rules(traits, request.pod))
    try:
        made = capture(fleet, request)
    except PlacementError as error:
        raise InputError(f"{manifest.document}: {error}") from error
    decision = made.decision
    devices = {pick.replica: _devices(fleet, pick) for pick in decision.picks}
    try:
        ranges = _ranges(manifest, devices)
    except InvalidCapacityError as error:
        # As in the operator: without a shard there is no pod, so nothing is reserved.
        considered = sum(len(node.devices) for node in fleet.nodes.values())
        empty = Decision((), request.replicas, Diagnosis(str(error), considered, 0))
        return SimulatedWorkload(manifest, made, empty, {}, {})
    for pick in decision.picks:
        fleet.hold(pick.node, pick.devices, request.pod, request.devices.share)
        placed.add(pick.node, traits)
    distribution = manifest.model.spec.distribution
    left = unassigned_items(distribution.items, ranges) if distribution and ranges else None
    nodes = [pick.node for pick in decision.picks]
    rejected = rejections_by_node(fleet, request, decision.unplaced[0], nodes) if decision.unplaced else {}
    proposal = None
    if decision.unplaced and at is not None:
        proposal = propose(fleet, replace(request, replicas=decision.unplaced), now=at)
    return SimulatedWorkload(manifest, made, decision, devices, ranges, left, rejected, proposal)


def _devices(fleet: Fleet, pick: Pick) -> tuple[DeviceState, ...]:
    by_uuid = {device.uuid: device for device in fleet.nodes[pick.node].devices}
    return tuple(by_uuid[uuid] for uuid in pick.devices)


def _ranges(manifest: Manifest, devices: Mapping[int, Sequence[DeviceState]]) -> Mapping[int, tuple[int, int]]:
    """Divides the items with the operator's own code."""
    if not devices:
        return {}
    return shards.divide(as_stored(manifest.model), manifest.model.spec, {}, devices)
