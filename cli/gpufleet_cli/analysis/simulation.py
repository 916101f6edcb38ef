"""`gpufleet simulate`: places workloads one after the other, as the operator would; each pick counts for the next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from gpufleet_cli.errors import InputError
from gpufleet_cli.input.manifests import Manifest
from gpufleet_operator.decide import shards
from gpufleet_operator.distribution import unassigned_items
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.errors import InvalidCapacityError, PlacementError
from gpufleet_operator.placement.explain.explain import by_node
from gpufleet_operator.placement.model import Decision, DeviceState, Pick, Rejected, Request, WhyNot
from gpufleet_operator.placement.replay import Record, record


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one workload."""

    manifest: Manifest
    record: Record
    """What the engine was told, and what it answered."""
    decision: Decision
    """The answer, or none of it when the items can't be divided."""
    devices: Mapping[int, tuple[DeviceState, ...]]
    """Per replica: its devices as they were when they were picked."""
    ranges: Mapping[int, tuple[int, int]]
    """Per replica: its share [start, end) of the items; empty without a distribution."""
    unassigned: int | None = None
    """Items that nobody can take; None without a distribution."""
    by_node: Mapping[str, tuple[Rejected, ...]] = field(default_factory=dict)
    """What keeps the devices of each node from taking the replicas that are left; empty when all are placed."""

    @property
    def placed(self) -> bool:
        """True when every replica has devices."""
        return self.decision.why_not is None


def simulate(fleet: Fleet, manifests: Sequence[Manifest], *, nodes_known: bool) -> list[Outcome]:
    """Place the workloads in this order. The fleet is debited.

    Args:
        fleet: what there is.
        manifests: what is asked for.
        nodes_known: False: nobody knows the nodes' labels, so they aren't tested.

    Raises:
        InputError: a workload contradicts itself.
    """
    return [_place(fleet, manifest, as_asked(manifest.request, nodes_known)) for manifest in manifests]


def as_asked(request: Request, nodes_known: bool) -> Request:
    """The request without its demands on labels when these aren't known."""
    if nodes_known:
        return request
    return replace(request, pod=replace(request.pod, node_selector={}, affinity_terms=None))


def unchecked(requests: Sequence[Request], nodes_known: bool) -> Iterator[str]:
    """What to tell the user of demands that `as_asked` takes away."""
    for request in requests:
        pod = request.pod
        if not nodes_known and (pod.node_selector or pod.affinity_terms is not None):
            yield f"{request.name} selects nodes by label, which isn't checked: no --nodes file"


def _place(fleet: Fleet, manifest: Manifest, request: Request) -> Outcome:
    try:
        made = record(fleet, request)
    except PlacementError as error:
        raise InputError(f"{manifest.document}: {error}") from error
    decision = made.decision
    devices = {pick.replica: _devices(fleet, pick) for pick in decision.picks}
    try:
        ranges = _ranges(manifest, devices)
    except InvalidCapacityError as error:
        # As the operator has it: without a share there is no pod, so nothing is taken.
        considered = sum(len(node.devices) for node in fleet.nodes.values())
        return Outcome(manifest, made, Decision((), request.replicas, WhyNot(str(error), considered, 0)), {}, {})
    for pick in decision.picks:
        fleet.hold(pick.node, pick.devices, request.pod, request.devices.share)
    distribution = manifest.model.spec.distribution
    left = unassigned_items(distribution.items, ranges) if distribution and ranges else None
    refused = by_node(fleet, request, decision.unplaced[0]) if decision.unplaced else {}
    return Outcome(manifest, made, decision, devices, ranges, left, refused)


def _devices(fleet: Fleet, pick: Pick) -> tuple[DeviceState, ...]:
    by_uuid = {device.uuid: device for device in fleet.nodes[pick.node].devices}
    return tuple(by_uuid[uuid] for uuid in pick.devices)


def _ranges(manifest: Manifest, devices: Mapping[int, Sequence[DeviceState]]) -> Mapping[int, tuple[int, int]]:
    """By the operator's own rule. It asks for the workload as it stands in the cluster: this one is new."""
    if not devices:
        return {}
    new = Workload(
        uid="",
        namespace=manifest.model.metadata.namespace or "default",
        name=manifest.model.metadata.name,
        generation=1,
        resource_version="",
        created=datetime.fromtimestamp(0, UTC),
        deleting=False,
        model=manifest.model,
    )
    return shards.divide(new, manifest.model.spec, {}, devices)
