"""`gpufleet rank` and `gpufleet explain`: every device against one request, by the engine's own tests and score."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpufleet_api.workload import Topology
from gpufleet_cli.errors import InputError
from gpufleet_operator.placement import Fleet, rank_devices
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.explain.explain import reasons
from gpufleet_operator.placement.explain.nearest import nearest
from gpufleet_operator.placement.model import DeviceState, Reason, Rejected, Request, Terms
from gpufleet_operator.placement.search.filters import CODES, REASONS
from gpufleet_operator.placement.search.query import Query, check_request

_PASSES = CODES[Reason.GANG]
"""What the engine writes where nothing but other replicas stands in the way."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One device. `reason` is the first test that it fails, `lacks` the same in words; None and empty: it passes."""

    node: str
    device: DeviceState
    reason: Reason | None = None
    lacks: str = ""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A device that passes, and how good it is."""

    verdict: Verdict
    terms: Terms


def judge(fleet: Fleet, request: Request, nodes: Collection[str] = ()) -> list[Verdict]:
    """Every device by node name and index.

    Args:
        fleet: what there is.
        request: what one of its replicas asks for.
        nodes: only these; empty: all.

    Raises:
        InputError: the request contradicts itself, or a node isn't in the fleet.
    """
    for name in nodes:
        if name not in fleet.nodes:
            raise InputError(f"--node {name}: is not in the fleet, which has {_listed(sorted(fleet.nodes))}")
    if request.topology is Topology.SAME_NODE:  # says where replicas go among each other, nothing of one device
        request = replace(request, topology=Topology.NONE)
    try:
        check_request(request)
        query = Query.of(request)
    except PlacementError as error:
        raise InputError(str(error)) from error
    return [verdict for name in sorted(set(nodes or fleet.nodes)) for verdict in _node(fleet, name, query)]


def ranked(fleet: Fleet, request: Request, verdicts: Sequence[Verdict]) -> list[Ranked]:
    """Those that pass, best first by the request's weights; ties by node name and index."""
    passing = {verdict.device.uuid: verdict for verdict in verdicts if verdict.reason is None}
    if not passing:
        return []
    best_first = rank_devices(fleet, weights=request.weights, among=passing, share=request.devices.share)
    return [Ranked(passing[device.device], device.terms) for device in best_first]


def rejections(verdicts: Sequence[Verdict]) -> list[Rejected]:
    """Counts by reason, in the order of the tests."""
    devices = Counter(v.reason for v in verdicts if v.reason is not None)
    nodes = Counter(reason for reason, _ in {(v.reason, v.node) for v in verdicts if v.reason is not None})
    return [Rejected(reason, devices[reason], nodes[reason]) for reason in REASONS if reason in devices]


def _node(fleet: Fleet, name: str, query: Query) -> Iterator[Verdict]:
    """The node by itself: what a device lacks doesn't depend on other nodes."""
    alone = Fleet.of([fleet.nodes[name]])
    codes = reasons(alone, query, frozenset())
    for column, device in enumerate(alone.cells(0)):
        code = int(codes[0, column])
        if code == _PASSES:
            yield Verdict(name, device)
            continue
        reason = REASONS[code - 1]
        if reason in (Reason.NODE_DEVICES, Reason.TOPOLOGY):
            # It passes by itself, and all such devices of the node fail together: the others count for nothing.
            asked = np.where(codes == code, codes, 0).astype(np.uint8)
        else:
            asked = np.full_like(codes, _PASSES)
            asked[0, column] = code
        miss = nearest(alone, query, asked)
        yield Verdict(name, device, reason, miss.lacks if miss else "")


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
