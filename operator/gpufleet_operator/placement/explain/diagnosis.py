"""Why a replica can't be placed: counts by reason, and what came closest, in words with numbers."""

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload import Topology
from gpufleet_operator.placement.explain.nearest import nearest_of
from gpufleet_operator.placement.explain.phrases import PHRASES
from gpufleet_operator.placement.fleet.columns import PRESENT, RowWindow, count_true
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Diagnosis, Reason, RejectionCount, Request
from gpufleet_operator.placement.search import filters
from gpufleet_operator.placement.search.filters import CODES, REASONS
from gpufleet_operator.placement.search.node_scores import NodeScores, changed_rows, node_scores
from gpufleet_operator.placement.search.query import Query
from gpufleet_operator.placement.search.tentative import TentativePlacement

Codes = NDArray[np.uint8]


def diagnose(draft: TentativePlacement, query: Query, replica: int, partial: int) -> Diagnosis:
    """Why `replica` found no devices after what the draft took; `partial` replicas of the request did."""
    fleet, request = draft.fleet, draft.request
    if draft.taken or request.excluded_nodes:
        return _explain(draft, query, replica, partial)
    # Nothing but question and fleet went into it: a request that waits is told the same until something changes.
    key = (query, len(request.replicas), request.gang, partial, fleet.version)
    return fleet.cache.get(Diagnosis, key, lambda: _explain(draft, query, replica, partial))


def rejections_by_node(fleet: Fleet, request: Request, replica: int) -> dict[str, tuple[RejectionCount, ...]]:
    """Counts by reason of each node that has devices, by name; empty for a node all of whose devices could serve.

    Args:
        fleet: with the picks of the request's other replicas debited.
        request: what is asked for.
        replica: the one that found no devices.
    """
    columns = fleet.ranked()
    codes = rejection_codes(fleet, Query.of(request), request.excluded_nodes.get(replica, frozenset()))
    present = (columns.state & PRESENT) != 0
    rows = {fleet.name(row): row for row in present.any(axis=1).nonzero()[0].tolist()}
    alone = np.zeros(columns.width, np.intp)
    return {name: _count(codes[row][present[row]], alone[present[row]]) for name, row in sorted(rows.items())}


def _explain(draft: TentativePlacement, query: Query, replica: int, partial: int) -> Diagnosis:
    fleet, request = draft.debited(), draft.request
    columns = fleet.ranked()
    codes = rejection_codes(fleet, query, request.excluded_nodes.get(replica, frozenset()))
    rows, cells = (columns.state & PRESENT).nonzero()
    given = codes[rows, cells]
    rejected = _count(given, rows)
    considered = len(fleet.where)
    eligible = considered - sum(r.devices for r in rejected)
    closest = nearest_of(fleet, query, rows, cells, given)
    parts = _parts(request, fleet, considered, eligible, partial)
    others = [f"{r.devices:,} {PHRASES[r.reason]}" for r in rejected]
    if others:
        parts.append("unusable are " + ", ".join(others))
    if closest is not None:
        parts.append(closest.in_words())
    return Diagnosis("; ".join(parts), considered, eligible, rejected, closest.as_near_miss() if closest else None)


def rejection_codes(fleet: Fleet, query: Query, aside: frozenset[str]) -> Codes:
    """(rows, width): the code of the first test that each device fails; GANG where it passes them all.

    Where there is no device the code means nothing. Not to be changed.
    """
    codes = fleet.cache.get(_Reasons, query, lambda: _Reasons(query)).update(fleet)
    if aside:
        codes = codes.copy()
        codes[[row for row in map(fleet.row, aside) if row is not None]] = CODES[Reason.NODE_BACKOFF]
    return codes


class _Reasons:
    """The codes for one question, kept up to date row by row."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._codes: Codes = np.zeros((0, 0), np.uint8)
        self._version = -1

    def update(self, fleet: Fleet) -> Codes:
        """Look again at the rows that changed since the last time."""
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
        """The first test that each device of these rows fails."""
        columns, at, query = fleet.ranked(), window.at, self._query
        codes: Codes = np.empty(columns.state[at].shape, np.uint8)
        # What passes by itself; then test by test from the last to the first, so that the first one that fails stands.
        codes[:] = _of_rest(fleet, query, found, window)[:, None]
        for reason, fails in reversed(list(filters.device_tests(fleet, window, query))):
            np.copyto(codes, np.uint8(CODES[reason]), where=fails)
        refusals = found.refusals[at]
        node = np.where(refusals != 0, refusals, columns.stale[at] * np.uint8(CODES[Reason.TELEMETRY_STALE]))
        np.copyto(codes, node[:, None], where=(node != 0)[:, None])
        return codes


def _of_rest(fleet: Fleet, query: Query, found: NodeScores, window: RowWindow) -> Codes:
    """(rows,): what keeps devices that pass by themselves from serving."""
    able = found.able(fleet)[window.at]
    rest = np.full(len(able), CODES[Reason.GANG], np.uint8)
    split = query.topology is Topology.SAME_NODE
    rest[split | ~able] = CODES[Reason.TOPOLOGY]
    for reason, lacks in reversed(list(filters.node_resource_tests(window, query))):
        rest[lacks] = CODES[reason]
    # Before the room: a node with too few devices also lacks room for a request of so many, and says less by that.
    rest[count_true(filters.usable(fleet, window, query)) < query.devices.count] = CODES[Reason.INSUFFICIENT_DEVICES]
    return rest


def _count(given: Codes, rows: NDArray[np.intp]) -> tuple[RejectionCount, ...]:
    """What keeps the devices that can't serve from it: the code of each, and its row, ascending."""
    devices = np.bincount(given)
    devices[CODES[Reason.GANG] :] = 0
    found = []
    for code in devices.nonzero()[0].tolist():
        of = rows[given == code]
        found.append(
            RejectionCount(REASONS[code - 1], int(devices[code]), 1 + int(np.count_nonzero(of[1:] != of[:-1])))
        )
    return tuple(found)


def _parts(request: Request, fleet: Fleet, considered: int, eligible: int, partial: int) -> list[str]:
    number = len(request.replicas)
    replicas = quantity(number, "replica")
    asked = f"{'each of ' if number > 1 else ''}{replicas} needs {_wanted(request)}"
    if not considered:
        return [asked, f"the fleet has no GPU ({quantity(len(fleet.nodes), 'node')})", *_untold(fleet)]
    parts = [asked, f"{eligible} of {quantity(considered, 'GPU')} could serve"]
    unknown = sorted(request.devices.include_uuids - fleet.where.keys())
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        parts.append(f"{unknown[0]}{more} of includeUUIDs {'are' if more else 'is'} not in the fleet")
    if partial:
        parts.append(f"{partial} of {replicas} {'would fit' if request.gang else 'placed'}")
    return parts


def _untold(fleet: Fleet) -> list[str]:
    """Why nothing is known of the first node by name that can't be used."""
    untold = sorted((node.name, node.stale_reason) for node in fleet.nodes.values() if node.stale_reason)
    return [f"{untold[0][0]}: {untold[0][1]}"] if untold else []


def _wanted(request: Request) -> str:
    gpus, share = quantity(request.devices.count, "GPU"), request.devices.share
    if share is None:
        return gpus
    asked = [f"{share.memory_mib:,} MiB"] if share.memory_mib else []
    asked += [f"{share.compute_percent} % compute"] if share.compute_percent else []
    return f"{' and '.join(asked)} of {gpus}"


def quantity(number: int, what: str) -> str:
    """`1 GPU`, `2,148 GPUs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
