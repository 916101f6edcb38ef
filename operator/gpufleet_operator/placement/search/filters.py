"""Filters in the order of `FilterReason`: the first one that a device fails is reported.

Each filter is a mask over the given rows, True where the device or node fails. A requirement on an unreported value
fails with MEASUREMENT_MISSING.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import (
    CORDONED,
    EARMARKED,
    FOREIGN,
    HEALTHY,
    HELD,
    SAMPLED,
    SHARED,
    UNKNOWN,
    UNKNOWN_CELSIUS,
    UNKNOWN_PERCENT,
    UNKNOWN_USED_MIB,
    USABLE,
    Columns,
    Mask,
    RowWindow,
)
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import FilterReason
from gpufleet_operator.placement.search import constraints
from gpufleet_operator.placement.search.query import Query

REASONS = tuple(FilterReason)
"""The code of a reason is its position plus one; 0: none."""
CODES = {reason: code for code, reason in enumerate(REASONS, start=1)}

_NOT_SHARED = np.uint8(~SHARED & 0xFF)


def usable(fleet: Fleet, window: RowWindow, query: Query) -> Mask:
    """Returns (rows, width): whether the device passes all device filters.

    Args:
        fleet: The fleet, for models and UUIDs.
        window: The rows.
        query: The query.
    """
    state = window.take_rows(window.columns.state)
    if query.devices.share is not None:
        state = state & _NOT_SHARED
    passes: Mask = state == USABLE
    if query.devices.share is not None:
        passes &= window.take_rows(window.columns.share_slots) > 0
    for _, fails in _demands(fleet, window, query):
        np.greater(passes, fails, out=passes)  # passes and does not fail
    return passes


def device_tests(fleet: Fleet, window: RowWindow, query: Query) -> Iterator[tuple[FilterReason, Mask]]:
    """Yields (rows, width) per filter, in order. Arguments as for `usable`, which is equivalent but faster."""
    taken = HELD | SHARED if query.devices.share is None else HELD
    state = window.columns.state[window.at]
    yield FilterReason.CORDONED, (state & CORDONED) != 0
    yield FilterReason.UNHEALTHY, (state & HEALTHY) == 0
    yield FilterReason.TELEMETRY_STALE, (state & SAMPLED) == 0
    in_use: Mask = (state & taken) != 0
    if query.devices.share is not None:
        in_use |= window.columns.share_slots[window.at] < 1
    yield FilterReason.IN_USE, in_use
    yield FilterReason.FOREIGN_PROCESS, (state & FOREIGN) != 0
    yield FilterReason.EARMARKED, (state & EARMARKED) != 0
    missing = dict(_missing(window, query))
    for reason, fails in _demands(fleet, window, query):
        if reason in missing:
            yield FilterReason.MEASUREMENT_MISSING, missing[reason]
        yield reason, fails


def fits_node(window: RowWindow, query: Query) -> Mask:
    """Returns (rows,): whether the node passes `node_resource_tests`."""
    single = window.single
    if single is not None:
        return np.array([_row_has_room(window.columns, single, query)])
    columns, pod, rows = window.columns, query.pod, window.take_rows
    room: Mask = rows(columns.cpu) >= pod.cpu_milli
    room &= rows(columns.memory) >= pod.memory_bytes
    room &= rows(columns.pods) >= 1
    if pod.extended:
        for _, lacks in node_resource_tests(window, query):
            room &= ~lacks
    return room


def node_resource_tests(window: RowWindow, query: Query) -> Iterator[tuple[FilterReason, Mask]]:
    """Yields (rows,) per resource that the node lacks, as kube-scheduler counts it."""
    pod, columns, at = query.pod, window.columns, window.at
    yield FilterReason.INSUFFICIENT_CPU, columns.cpu[at] < pod.cpu_milli
    yield FilterReason.INSUFFICIENT_MEMORY, columns.memory[at] < pod.memory_bytes
    yield FilterReason.TOO_MANY_PODS, columns.pods[at] < 1
    for name, amount in pod.extended.items():
        room = columns.extended.get(name)
        yield (
            FilterReason.INSUFFICIENT_EXTENDED_RESOURCE,
            np.full(columns.cpu[at].shape, amount > 0) if room is None else room[at] < amount,
        )


def _row_has_room(columns: Columns, row: int, query: Query) -> bool:
    """As `fits_node` for one row in plain integers: the usual case when scores are updated."""
    pod = query.pod
    if columns.cpu[row] < pod.cpu_milli or columns.memory[row] < pod.memory_bytes or columns.pods[row] < 1:
        return False
    return all(
        amount <= (columns.extended[name][row] if name in columns.extended else 0)
        for name, amount in pod.extended.items()
    )


def node_constraint_codes(fleet: Fleet, at: NDArray[np.intp], query: Query) -> NDArray[np.uint8]:
    """Returns (rows,): the code of the label or taint filter that the node fails, 0 if none."""
    codes = np.zeros(len(at), np.uint8)
    columns, pod = fleet.columns, query.pod
    if pod.node_selector or pod.affinity_terms is not None:
        asked = list(range(len(at)))
    else:
        asked = np.flatnonzero((columns.fresh[at] | columns.stale[at]) & ~columns.plain[at]).tolist()
    for position in asked:
        node = fleet.undebited(int(at[position]))
        reason = None if node is None else constraints.rejection(node, pod)
        codes[position] = 0 if reason is None else CODES[reason]
    return codes


def _demands(fleet: Fleet, window: RowWindow, query: Query) -> Iterator[tuple[FilterReason, Mask]]:
    """Yields only the filters that the request needs."""
    needs, columns, rows = query.devices, window.columns, window.take_rows
    if needs.include_uuids:
        yield FilterReason.NOT_INCLUDED, ~device_mask(fleet, needs.include_uuids)[window.origin]
    if needs.exclude_uuids:
        yield FilterReason.EXCLUDED, device_mask(fleet, needs.exclude_uuids)[window.origin]
    if needs.models:
        yield FilterReason.MODEL, _other_model(fleet, needs.models)[rows(columns.model)]
    if query.min_capability is not None:
        yield FilterReason.COMPUTE_CAPABILITY, rows(columns.capability) < query.min_capability
    if query.min_free_mib is not None:
        yield (
            FilterReason.INSUFFICIENT_FREE_MEMORY,
            rows(columns.total_mib) - rows(columns.used_mib) < query.min_free_mib,
        )
    if needs.share is not None and needs.share.compute_percent:
        yield FilterReason.COMPUTE, rows(columns.compute) > 100 - needs.share.compute_percent
    if needs.max_utilization_percent is not None:
        yield FilterReason.UTILIZATION, rows(columns.compute) > needs.max_utilization_percent
    if needs.max_temperature_celsius is not None:
        yield FilterReason.TEMPERATURE, rows(columns.temperature) > needs.max_temperature_celsius


class _OtherModel:
    """By model index: True if the model is not accepted."""

    def __init__(self, fleet: Fleet, models: frozenset[str]) -> None:
        self.mask = np.array([*(model not in models for model in fleet.models), True])


def _other_model(fleet: Fleet, models: frozenset[str]) -> Mask:
    # Models are never removed, so their number identifies the mask.
    return fleet.memo.get(_OtherModel, (models, len(fleet.models)), lambda: _OtherModel(fleet, models)).mask


def _missing(window: RowWindow, query: Query) -> Iterator[tuple[FilterReason, Mask]]:
    """Yields where a requirement fails because the device does not report the value."""
    columns, at = window.columns, window.at
    if query.min_capability is not None:
        yield FilterReason.COMPUTE_CAPABILITY, columns.capability[at] == UNKNOWN
    if query.min_free_mib is not None:
        unknown: Mask = (columns.total_mib[at] == UNKNOWN) | (columns.used_mib[at] == UNKNOWN_USED_MIB)
        yield FilterReason.INSUFFICIENT_FREE_MEMORY, unknown
    yield FilterReason.COMPUTE, columns.compute[at] == UNKNOWN_PERCENT
    yield FilterReason.UTILIZATION, columns.compute[at] == UNKNOWN_PERCENT
    if query.devices.max_temperature_celsius is not None:
        yield FilterReason.TEMPERATURE, columns.temperature[at] == UNKNOWN_CELSIUS


def device_mask(fleet: Fleet, uuids: Iterable[str]) -> Mask:
    """Returns (rows, width): the devices with these UUIDs; unknown UUIDs are ignored."""
    mask = np.zeros(fleet.columns.state.shape, np.bool_)
    for uuid in uuids:
        if uuid in fleet.where:
            mask[fleet.where[uuid]] = True
    return mask
