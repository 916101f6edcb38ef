"""Writes nodes, devices and debits into the arrays: the only place that defines their encoding."""

from collections.abc import Sequence

import numpy as np

from gpufleet_operator.placement.fleet.columns import (
    CORDONED,
    EARMARKED,
    FOREIGN,
    HEALTHY,
    HELD,
    PRESENT,
    SAMPLED,
    SHARED,
    UNKNOWN,
    UNKNOWN_CELSIUS,
    UNKNOWN_PERCENT,
    UNKNOWN_USED_MIB,
    UNLIMITED_SLOTS,
    USABLE,
    Columns,
)
from gpufleet_operator.placement.fleet.terms import (
    MEMORY,
    NEUTRAL,
    UTILIZATION,
    memory_millionths,
    millionths,
    utilization_millionths,
)
from gpufleet_operator.placement.fleet.validate_sample import MAX_INT32
from gpufleet_operator.placement.model import MAX_RESOURCE_AMOUNT, DeviceState, NodeState, PodNeeds, Share

DEVICE_MILLI = 1000
"""Thousandths of a device."""

_MIN_RESOURCE_AMOUNT = -(2**61)
"""Free resources of a node are clamped to this bound and `MAX_RESOURCE_AMOUNT`, see there."""


def write_device(columns: Columns, row: int, column: int, device: DeviceState, model: int) -> None:
    """Writes one device into every device array."""
    at = (row, column)
    usable, used = device.memory_usable_mib, device.memory_in_use_mib
    compute = device.compute_in_use_percent
    columns.state[at] = _state(device)
    columns.total_mib[at] = UNKNOWN if usable is None else usable
    columns.used_mib[at] = UNKNOWN_USED_MIB if used is None else min(used, UNKNOWN_USED_MIB - 1)
    columns.compute[at] = UNKNOWN_PERCENT if compute is None else compute
    columns.temperature[at] = UNKNOWN_CELSIUS if device.temperature_celsius is None else device.temperature_celsius
    columns.capability[at] = capability_code(device.compute_capability)
    columns.model[at] = model
    columns.numa[at] = UNKNOWN if device.numa_node is None else device.numa_node
    columns.promised_mib[at] = min(MAX_INT32, device.counted_memory_mib + device.in_flight_memory_mib)
    columns.promised_compute[at] = device.promised_compute_percent + device.in_flight_compute_percent
    columns.share_slots[at] = UNLIMITED_SLOTS if device.free_slots is None else min(device.free_slots, UNLIMITED_SLOTS)
    terms = millionths(device)
    columns.known[at] = sum(1 << bit for bit, term in enumerate(terms) if term is not None)
    columns.terms[at] = [NEUTRAL if term is None else term for term in terms]
    columns.free_milli[at] = _free_milli(columns, row, column)


def write_node(columns: Columns, row: int, node: NodeState) -> None:
    """Writes one node into every node array except `link_graph` and `rank`, which the fleet assigns."""
    columns.fresh[row] = node.stale_reason is None
    columns.stale[row] = node.stale_reason is not None
    blocked = node.unschedulable or node.not_ready is not None
    columns.plain[row] = not blocked and not any(t.prevents_scheduling for t in node.taints)
    columns.cpu[row] = _clamp(node.free_cpu_milli)
    columns.memory[row] = _clamp(node.free_memory_bytes)
    columns.pods[row] = _clamp(node.free_pods)
    for name in node.free_extended:
        if name not in columns.extended:
            columns.extended[name] = np.zeros(columns.rows, np.int64)
    for name, room in columns.extended.items():
        room[row] = _clamp(node.free_extended.get(name, 0))


def clear_row(columns: Columns, row: int) -> None:
    """Removes the node of a row."""
    columns.fresh[row] = columns.stale[row] = False
    columns.state[row] = 0
    columns.free_milli[row] = 0


def debit(columns: Columns, row: int, cells: Sequence[int], pod: PodNeeds | None, share: Share | None) -> None:
    """Debits one pick: its devices (`cells`), and the pod's requests from the node's free resources."""
    for column in cells:
        if share is None:
            columns.state[row, column] |= HELD
        else:
            _take_share(columns, row, column, share)
        columns.free_milli[row, column] = _free_milli(columns, row, column)
    if pod is not None:
        columns.cpu[row] = _clamp(int(columns.cpu[row]) - pod.cpu_milli)
        columns.memory[row] = _clamp(int(columns.memory[row]) - pod.memory_bytes)
        columns.pods[row] = _clamp(int(columns.pods[row]) - 1)
        for name, amount in pod.extended.items():
            if name in columns.extended:
                columns.extended[name][row] = _clamp(int(columns.extended[name][row]) - amount)


def earmark(columns: Columns, row: int, column: int, *, earmarked: bool) -> None:
    """Sets or removes the mark of an earmarked device."""
    state = int(columns.state[row, column])
    columns.state[row, column] = state | EARMARKED if earmarked else state & ~EARMARKED
    columns.free_milli[row, column] = _free_milli(columns, row, column)


def share_milli(share: Share, total_mib: int) -> int:
    """Returns the larger of the share's fractions of the device, in thousandths, rounded up."""
    by_memory = -(-share.memory_mib * DEVICE_MILLI // total_mib) if total_mib > 0 else 0
    return max(by_memory, share.compute_percent * (DEVICE_MILLI // 100))


def capability_code(text: str | None) -> int:
    """Returns 9000 for `9.0`, so that 10.0 is above 9.0; UNKNOWN for None."""
    if text is None:
        return UNKNOWN
    major, _, minor = text.partition(".")
    return int(major) * 1000 + int(minor or 0)


def _take_share(columns: Columns, row: int, column: int, share: Share) -> None:
    at = (row, column)
    columns.state[at] |= SHARED
    columns.share_slots[at] -= 1
    columns.promised_mib[at] = min(MAX_INT32, int(columns.promised_mib[at]) + share.memory_mib)
    columns.promised_compute[at] += share.compute_percent
    if columns.used_mib[at] != UNKNOWN_USED_MIB:
        columns.used_mib[at] = min(int(columns.used_mib[at]) + share.memory_mib, UNKNOWN_USED_MIB - 1)
        total = int(columns.total_mib[at])
        if total > 0:
            columns.terms[row, column, MEMORY] = memory_millionths(total - int(columns.used_mib[at]), total)
    if columns.compute[at] != UNKNOWN_PERCENT:
        columns.compute[at] += share.compute_percent
        columns.terms[row, column, UTILIZATION] = utilization_millionths(int(columns.compute[at]))


def _clamp(amount: int) -> int:
    return max(_MIN_RESOURCE_AMOUNT, min(MAX_RESOURCE_AMOUNT, amount))


def _state(device: DeviceState) -> int:
    shared = bool(device.sharers or device.promised_memory_mib or device.promised_compute_percent)
    shared = shared or bool(device.in_flight_memory_mib or device.in_flight_compute_percent)
    bits = PRESENT
    bits |= SAMPLED if device.sample_age_seconds is not None and device.stale_reason is None else 0
    bits |= HEALTHY if device.healthy else 0
    bits |= CORDONED if device.cordoned is not None else 0
    bits |= HELD if device.held else 0
    bits |= SHARED if shared else 0
    return bits | (FOREIGN if device.in_use and not device.held and not shared else 0)


def _free_milli(columns: Columns, row: int, column: int) -> int:
    at = (row, column)
    state = int(columns.state[at])
    if state & ~SHARED != USABLE:
        return 0
    if not state & SHARED:
        return DEVICE_MILLI
    promised = Share(int(columns.promised_mib[at]), int(columns.promised_compute[at]))
    # A device is not whole as long as it has a sharer, however small its share.
    return max(0, min(DEVICE_MILLI - 1, DEVICE_MILLI - share_milli(promised, int(columns.total_mib[at]))))
