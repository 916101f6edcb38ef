"""Checks every device of a fleet against one request, with the engine's own filters and score."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpufleet_api.workload_placement import Topology
from gpufleet_cli.errors import InputError
from gpufleet_operator.placement import Fleet, rank_devices
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.explain.diagnosis import rejection_codes
from gpufleet_operator.placement.explain.nearest import nearest
from gpufleet_operator.placement.model import DeviceState, FilterReason, ReasonCount, Request, Terms
from gpufleet_operator.placement.search.filters import CODES, REASONS
from gpufleet_operator.placement.search.query import Query, check_request

_PASSES = CODES[FilterReason.GANG]
"""The engine's code for a device that passes every filter."""
_MAX_LISTED = 8


@dataclass(frozen=True, slots=True)
class DeviceCheck:
    """One device and the first filter that it fails: `reason` and `message` are None and empty when it passes."""

    node: str
    device: DeviceState
    reason: FilterReason | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class ScoredDevice:
    """A device that passes, with its score."""

    check: DeviceCheck
    terms: Terms


def check_devices(fleet: Fleet, request: Request, nodes: Collection[str] = ()) -> list[DeviceCheck]:
    """Checks every device against one replica of the request, ordered by node name and index.

    Args:
        fleet: The fleet.
        request: What one of its replicas needs.
        nodes: The nodes whose devices are checked; all when empty.

    Raises:
        InputError: The request is invalid, or a node is not in the fleet.
    """
    for name in nodes:
        if name not in fleet.nodes:
            raise InputError(f"--node {name}: not found; nodes of the fleet: {_listed(sorted(fleet.nodes))}")
    if request.topology is Topology.SAME_NODE:  # a constraint among replicas, not on one device
        request = replace(request, topology=Topology.NONE)
    try:
        check_request(request)
        query = Query.of(request)
    except PlacementError as error:
        raise InputError(str(error)) from error
    return [check for name in sorted(set(nodes or fleet.nodes)) for check in _node(fleet, name, query)]


def rank(fleet: Fleet, request: Request, checks: Sequence[DeviceCheck]) -> list[ScoredDevice]:
    """Returns the devices that pass, best first by the request's weights; ties by node name and index."""
    passing = {check.device.uuid: check for check in checks if check.reason is None}
    if not passing:
        return []
    best_first = rank_devices(fleet, weights=request.weights, among=passing, share=request.devices.share)
    return [ScoredDevice(passing[device.device], device.terms) for device in best_first]


def count_rejections(checks: Sequence[DeviceCheck]) -> list[ReasonCount]:
    """Returns the number of devices and nodes by failed filter, in the order of the filters."""
    devices = Counter(check.reason for check in checks if check.reason is not None)
    nodes = Counter(reason for reason, _ in {(c.reason, c.node) for c in checks if c.reason is not None})
    return [ReasonCount(reason, devices[reason], nodes[reason]) for reason in REASONS if reason in devices]


def _node(fleet: Fleet, name: str, query: Query) -> Iterator[DeviceCheck]:
    """Checks a node by itself: what a device lacks does not depend on other nodes."""
    alone = Fleet.of([fleet.nodes[name]])
    codes = rejection_codes(alone, query, frozenset())
    for column, device in enumerate(alone.cells(0)):
        code = int(codes[0, column])
        if code == _PASSES:
            yield DeviceCheck(name, device)
            continue
        reason = REASONS[code - 1]
        if reason in (FilterReason.INSUFFICIENT_DEVICES, FilterReason.TOPOLOGY):
            # The device passes by itself, and all such devices of the node fail together: ignore the other ones.
            asked = np.where(codes == code, codes, 0).astype(np.uint8)
        else:
            asked = np.full_like(codes, _PASSES)
            asked[0, column] = code
        miss = nearest(alone, query, asked)
        yield DeviceCheck(name, device, reason, miss.lacks if miss else "")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
