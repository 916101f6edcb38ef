"""Explains why a replica cannot be placed: rejected devices by reason, and the device closest to passing."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload_placement import Topology
from gpufleet_operator.placement.explain.nearest import nearest_of
from gpufleet_operator.placement.explain.phrases import PHRASES
from gpufleet_operator.placement.fleet.columns import PRESENT, RowWindow, count_true
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Diagnosis, FilterReason, ReasonCount, Request
from gpufleet_operator.placement.search import filters
from gpufleet_operator.placement.search.constraints import untolerated
from gpufleet_operator.placement.search.domain_rules import RuleState
from gpufleet_operator.placement.search.filters import CODES, REASONS
from gpufleet_operator.placement.search.node_scores import NodeScores, changed_rows, node_scores
from gpufleet_operator.placement.search.query import Query
from gpufleet_operator.placement.search.tentative import TentativePlacement

Codes = NDArray[np.uint8]
_Names = Mapping[FilterReason, list[str]]
"""What a phrase names, by reason."""

_MAX_TAINTS = 3


def diagnose(
    tentative: TentativePlacement, query: Query, replica: int, partial: int, rules: RuleState | None = None
) -> Diagnosis:
    """Returns why `replica` cannot be placed.

    Args:
        tentative: The picks of the request so far, `partial` of them.
        query: The request as a query.
        replica: The replica that has no devices.
        partial: How many replicas of the request were placed.
        rules: The request's rules after these picks, if it has any.
    """
    fleet, request = tentative.fleet, tentative.request
    if tentative.taken or request.excluded_nodes or rules is not None:
        return _explain(tentative, query, replica, partial, rules)
    # The answer depends on the query and the fleet only, so a waiting request gets it from the memo until a change.
    key = (query, len(request.replicas), request.gang, partial, fleet.version)
    return fleet.memo.get(Diagnosis, key, lambda: _explain(tentative, query, replica, partial))


def rejections_by_node(
    fleet: Fleet, request: Request, replica: int, picked_nodes: Iterable[str] = ()
) -> dict[str, tuple[ReasonCount, ...]]:
    """Returns the rejected devices of each node with devices, by node name and reason; empty if all devices pass.

    Args:
        fleet: The fleet after the picks of the request's other replicas.
        request: The request.
        replica: The replica that has no devices.
        picked_nodes: The nodes of these picks.
    """
    columns = fleet.ranked()
    rules = RuleState(fleet, request.rules) if request.rules else None
    for row in map(fleet.row, picked_nodes):
        if rules is not None and row is not None:
            rules.add(row)
    codes = rejection_codes(fleet, Query.of(request), request.excluded_nodes.get(replica, frozenset()), rules)
    present = (columns.state & PRESENT) != 0
    rows = {fleet.name(row): row for row in present.any(axis=1).nonzero()[0].tolist()}
    alone = np.zeros(columns.width, np.intp)
    return {name: _count(codes[row][present[row]], alone[present[row]]) for name, row in sorted(rows.items())}


def _explain(
    tentative: TentativePlacement, query: Query, replica: int, partial: int, rules: RuleState | None = None
) -> Diagnosis:
    fleet, request = tentative.debited(), tentative.request
    columns = fleet.ranked()
    codes = rejection_codes(fleet, query, request.excluded_nodes.get(replica, frozenset()), rules)
    rows, cells = (columns.state & PRESENT).nonzero()
    given = codes[rows, cells]
    rejected = _count(given, rows)
    considered = len(fleet.where)
    eligible = considered - sum(r.devices for r in rejected)
    closest = nearest_of(fleet, query, rows, cells, given)
    lacking = _lacking_resources(fleet, query, rows[given == CODES[FilterReason.INSUFFICIENT_EXTENDED_RESOURCE]])
    taints = _untolerated_taints(fleet, query, rows[given == CODES[FilterReason.TAINT]])
    names = {FilterReason.INSUFFICIENT_EXTENDED_RESOURCE: lacking, FilterReason.TAINT: taints}
    if closest is not None and rules is not None and closest.reason in rules.reasons:
        closest = replace(closest, lacks=rules.message(fleet.row(closest.node)) or closest.lacks)
    sentences = _sentences(request, fleet, rejected, partial, names)
    if closest is not None:
        sentences.append(closest.sentence())
    message = ". ".join(sentences) + "."
    return Diagnosis(message, considered, eligible, rejected, closest.as_closest_device() if closest else None)


def rejection_codes(fleet: Fleet, query: Query, excluded: frozenset[str], rules: RuleState | None = None) -> Codes:
    """Returns (rows, width): the code of the first test that each device fails; GANG if it passes all of them.

    Cells without a device have no meaningful code. The caller must not change the array.
    """
    codes = fleet.memo.get(_Reasons, query, lambda: _Reasons(query)).update(fleet)
    if rules is not None:
        of_rules = rules.codes()[:, None]
        codes = np.where((of_rules != 0) & (of_rules < codes), of_rules, codes)
    if excluded:
        codes = codes.copy()
        codes[[row for row in map(fleet.row, excluded) if row is not None]] = CODES[FilterReason.NODE_BACKOFF]
    return codes


class _Reasons:
    """Rejection codes of one query, updated row by row."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._codes: Codes = np.zeros((0, 0), np.uint8)
        self._version = -1

    def update(self, fleet: Fleet) -> Codes:
        if self._version != fleet.version:
            found = node_scores(fleet, self._query)
            window = changed_rows(fleet, self._version, len(self._codes))
            if window is None:
                self._codes = self._first(fleet, found, RowWindow.of(fleet.columns, slice(None)))
            else:
                self._codes[window.at] = self._first(fleet, found, window)
            self._version = fleet.version
        return self._codes

    def _first(self, fleet: Fleet, found: NodeScores, window: RowWindow) -> Codes:
        columns, at, query = fleet.ranked(), window.at, self._query
        codes: Codes = np.empty(columns.state[at].shape, np.uint8)
        # The tests are applied from last to first, so that the first failing test overwrites the later ones.
        codes[:] = _of_rest(fleet, query, found, window)[:, None]
        for reason, fails in reversed(list(filters.device_tests(fleet, window, query))):
            np.copyto(codes, np.uint8(CODES[reason]), where=fails)
        rejections = found.rejections[at]
        node = np.where(rejections != 0, rejections, columns.stale[at] * np.uint8(CODES[FilterReason.TELEMETRY_STALE]))
        np.copyto(codes, node[:, None], where=(node != 0)[:, None])
        return codes


def _of_rest(fleet: Fleet, query: Query, found: NodeScores, window: RowWindow) -> Codes:
    """Returns (rows,): why devices that pass their own tests cannot be used."""
    feasible = found.feasible(fleet)[window.at]
    rest = np.full(len(feasible), CODES[FilterReason.GANG], np.uint8)
    split = query.topology is Topology.SAME_NODE
    rest[split | ~feasible] = CODES[FilterReason.TOPOLOGY]
    for reason, lacks in reversed(list(filters.node_resource_tests(window, query))):
        rest[lacks] = CODES[reason]
    # Takes precedence over node resources: a node with too few devices lacks them too, which explains less.
    rest[count_true(filters.usable(fleet, window, query)) < query.devices.count] = CODES[
        FilterReason.INSUFFICIENT_DEVICES
    ]
    return rest


def _count(given: Codes, rows: NDArray[np.intp]) -> tuple[ReasonCount, ...]:
    """Counts rejected devices and their nodes by reason. `rows` must be ascending."""
    devices = np.bincount(given)
    devices[CODES[FilterReason.GANG] :] = 0
    found = []
    for code in devices.nonzero()[0].tolist():
        of = rows[given == code]
        found.append(ReasonCount(REASONS[code - 1], int(devices[code]), 1 + int(np.count_nonzero(of[1:] != of[:-1]))))
    return tuple(found)


def _lacking_resources(fleet: Fleet, query: Query, rows: NDArray[np.intp]) -> list[str]:
    """Returns the extended resources of which one of these rows has too little."""
    columns = fleet.ranked()
    return sorted(
        name
        for name, amount in query.pod.extended.items()
        if len(rows) and (name not in columns.extended or bool((columns.extended[name][rows] < amount).any()))
    )


def _untolerated_taints(fleet: Fleet, query: Query, rows: NDArray[np.intp]) -> list[str]:
    """Returns the first untolerated taint of each of these rows, at most three."""
    nodes = (fleet.undebited(row) for row in np.unique(rows).tolist())
    found = (untolerated(node.taints, query.pod.tolerations) for node in nodes if node is not None)
    names = sorted({f"{t.key}{f'={t.value}' if t.value else ''}:{t.effect}" for t in found if t is not None})
    more = [f"{len(names) - _MAX_TAINTS} more"] if len(names) > _MAX_TAINTS else []
    return [*names[:_MAX_TAINTS], *more]


def _phrase(reason: FilterReason, names: _Names) -> str:
    listed = " or ".join(names.get(reason, ()))
    if reason is FilterReason.INSUFFICIENT_EXTENDED_RESOURCE:
        return f"insufficient {listed} on the node"
    return f"{PHRASES[reason]} {listed}" if listed else PHRASES[reason]


def _sentences(
    request: Request,
    fleet: Fleet,
    rejected: tuple[ReasonCount, ...],
    partial: int,
    names: _Names,
) -> list[str]:
    number, considered = len(request.replicas), len(fleet.where)
    replicas = quantity(number, "replica")
    asked = f"Each of {replicas} requests" if number > 1 else f"{replicas} requests"
    asked = f"{asked} {_requested(request)}"
    if not considered:
        no_gpu = f"0/0 GPUs are available: the fleet has no GPU ({quantity(len(fleet.nodes), 'node')})"
        return [no_gpu, asked, *_missing_telemetry(fleet)]
    eligible = considered - sum(r.devices for r in rejected)
    counts = ", ".join(f"{r.devices:,} {_phrase(r.reason, names)}" for r in rejected)
    available = f"{eligible:,}/{considered:,} GPUs are available"
    sentences = [f"{available}: {counts}" if counts else available, asked]
    unknown = sorted(request.devices.include_uuids - fleet.where.keys())
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        sentences.append(f"{unknown[0]}{more} of includeUUIDs {'are' if more else 'is'} not in the fleet")
    if partial:
        sentences.append(f"{partial} of {replicas} {'would fit' if request.gang else 'placed'}")
    return sentences


def _missing_telemetry(fleet: Fleet) -> list[str]:
    """Returns why the first node by name has no usable telemetry."""
    stale = sorted((node.name, node.stale_reason) for node in fleet.nodes.values() if node.stale_reason)
    return [f"{stale[0][0]}: {stale[0][1]}"] if stale else []


def _requested(request: Request) -> str:
    gpus, share = quantity(request.devices.count, "GPU"), request.devices.share
    if share is None:
        return gpus
    asked = [f"{share.memory_mib:,} MiB"] if share.memory_mib else []
    asked += [f"{share.compute_percent} % compute"] if share.compute_percent else []
    return f"{' and '.join(asked)} of {gpus}"


def quantity(number: int, what: str) -> str:
    """Returns `1 GPU`, `2,148 GPUs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
