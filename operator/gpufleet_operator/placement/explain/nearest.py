"""Finds the rejected device that is closest to passing, and describes what it lacks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpufleet_common.device_use import IDLE_MEMORY_MIB
from gpufleet_common.units import BYTES_PER_MIB
from gpufleet_operator.placement.fleet.columns import PRESENT, Columns
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import ClosestDevice, DeviceState, FilterReason, NodeState
from gpufleet_operator.placement.search.constraints import untolerated
from gpufleet_operator.placement.search.filters import CODES, REASONS, device_mask
from gpufleet_operator.placement.search.query import Query

Distances = NDArray[np.float64]
Indices = NDArray[np.intp]

_UNMEASURED = {
    FilterReason.TOO_MANY_PODS: 1.0,
    FilterReason.INSUFFICIENT_EXTENDED_RESOURCE: 1.0,
    FilterReason.TOPOLOGY: 1.5,
    FilterReason.TOPOLOGY_SPREAD: 1.7,
    FilterReason.COMPUTE_CAPABILITY: 2.0,
    FilterReason.MODEL: 2.0,
    FilterReason.TELEMETRY_STALE: 3.0,
    FilterReason.FOREIGN_PROCESS: 4.0,
    FilterReason.EARMARKED: 4.5,
    FilterReason.IN_USE: 5.0,
    FilterReason.HOST_PORT: 5.5,
    FilterReason.POD_ANTI_AFFINITY: 5.5,
    FilterReason.POD_AFFINITY: 5.5,
    FilterReason.NODE_BACKOFF: 6.0,
    FilterReason.UNHEALTHY: 7.0,
    FilterReason.NODE_NOT_READY: 7.5,
    FilterReason.CORDONED: 8.0,
    FilterReason.NODE_UNSCHEDULABLE: 8.0,
}
"""Distance by reason if it has no number: above every measured one; reasons that resolve by themselves are nearer."""

_MAX_MEASURED = 1.0
"""Upper bound of a measured distance."""

_MEASURED = frozenset(
    {
        FilterReason.INSUFFICIENT_FREE_MEMORY,
        FilterReason.COMPUTE,
        FilterReason.UTILIZATION,
        FilterReason.TEMPERATURE,
        FilterReason.INSUFFICIENT_CPU,
        FilterReason.INSUFFICIENT_MEMORY,
        FilterReason.INSUFFICIENT_DEVICES,
    }
)

_MAX_UNMEASURED = 10.0

_FIXED_MESSAGES = {
    FilterReason.TOO_MANY_PODS: "node has no capacity for another pod",
    FilterReason.NODE_BACKOFF: "node is in backoff for this replica",
    FilterReason.NODE_UNSCHEDULABLE: "node is unschedulable",
    FilterReason.NODE_AFFINITY: "node does not match the required node affinity",
    FilterReason.UNHEALTHY: "has a fault, or cannot be given to a container",
    FilterReason.NOT_INCLUDED: "is not in requirements.includeUUIDs",
    FilterReason.EXCLUDED: "is in requirements.excludeUUIDs",
}


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The closest device, and how many others fail the same test."""

    node: str
    device: str
    reason: FilterReason
    lacks: str
    """The unmet requirement with numbers."""
    devices: int = 1
    """Devices that fail the same test."""
    alike: bool = True
    """True if all of them lack the same amount."""

    def as_closest_device(self) -> ClosestDevice:
        return ClosestDevice(self.node, self.device, self.reason, self.lacks)

    def sentence(self) -> str:
        """Returns `3 GPUs lack 2,148 MiB of memory or more; closest is node-2/GPU-... (needs ..., has ...)`."""
        device = f"{self.node}/{self.device}"
        lack, _, numbers = self.lacks.partition(" (")
        if self.reason not in {FilterReason.INSUFFICIENT_FREE_MEMORY, FilterReason.COMPUTE}:
            return f"Closest is {device}: {self.lacks}"
        lack = lack.removeprefix("lacks ")
        subject = "1 GPU lacks" if self.devices == 1 else f"{self.devices:,} GPUs lack"
        return f"{subject} {lack}{'' if self.alike else ' or more'}; closest is {device} ({numbers}"


def nearest(fleet: Fleet, query: Query, codes: NDArray[np.uint8]) -> Shortfall | None:
    """Returns the device that is closest to passing; None if none fails a test.

    Args:
        fleet: The fleet.
        query: The query.
        codes: The code of the first test that each device fails, as `rejection_codes` returns them.
    """
    rows, cells = (fleet.columns.state & PRESENT).nonzero()
    return nearest_of(fleet, query, rows, cells, codes[rows, cells])


def _named(fleet: Fleet, query: Query) -> NDArray[np.bool_]:
    """Returns (rows, width): the devices that the UUIDs of the request allow."""
    included, excluded = query.devices.include_uuids, query.devices.exclude_uuids
    allowed = device_mask(fleet, included) if included else np.ones(fleet.columns.state.shape, np.bool_)
    return allowed & ~device_mask(fleet, excluded) if excluded else allowed


def nearest_of(fleet: Fleet, query: Query, rows: Indices, cells: Indices, given: NDArray[np.uint8]) -> Shortfall | None:
    """As `nearest`, for devices given by row and column, each with its code."""
    columns = fleet.ranked()
    if query.devices.include_uuids or query.devices.exclude_uuids:
        # The tests of use come first, so a busy device may never have been asked whether it is one of those named.
        named = _named(fleet, query)[rows, cells]
        if named.any():
            rows, cells, given = rows[named], cells[named], given[named]
    best: tuple[float, int, int, int] | None = None
    alike: dict[FilterReason, bool] = {}
    # Measured reasons first: a device that lacks part of something is closer than one of another model.
    reasons = [REASONS[code - 1] for code in np.bincount(given).nonzero()[0].tolist()]
    for reason in sorted(reasons, key=lambda r: r not in _MEASURED):
        at_least = 0.0 if reason in _MEASURED else _UNMEASURED.get(reason, _MAX_UNMEASURED)
        if reason is FilterReason.GANG or (best is not None and best[0] < at_least):
            continue
        failing = (given == CODES[reason]).nonzero()[0]
        distance = _distances(columns, query, reason, rows[failing], cells[failing])
        least = distance.min()
        alike[reason] = bool(distance.max() == least)
        closest = failing[distance == least]
        first = closest[(columns.rank[rows[closest]] * columns.width + cells[closest]).argmin()]
        row, cell = int(rows[first]), int(cells[first])
        found = (
            min(float(least), _MAX_MEASURED) if reason in _MEASURED else float(least),
            int(columns.rank[row]),
            cell,
            row,
        )
        best = found if best is None else min(best, found)
    if best is None:
        return None
    _, _, cell, row = best
    here = rows == row
    reason = REASONS[int(given[here & (cells == cell)][0]) - 1]
    node, device = fleet.state(row), fleet.cells(row)[cell]
    passing = int((given[here] >= CODES[FilterReason.INSUFFICIENT_DEVICES]).sum())
    count = int((given == CODES[reason]).sum())
    if reason is FilterReason.EARMARKED:
        lacks = f"is earmarked for {fleet.earmarks.get(device.uuid, 'another workload')}"
    else:
        lacks = _message(node, device, reason, query, passing)
    return Shortfall(node.name, device.uuid, reason, lacks, count, alike[reason])


def _distances(columns: Columns, query: Query, reason: FilterReason, rows: Indices, cells: Indices) -> Distances:
    """Returns the missing part of the need for devices that all fail the same test; 0 is closest."""
    needs, pod = query.devices, query.pod
    share = needs.share.compute_percent if needs.share else 0
    lacking: NDArray[Any]
    match reason:
        case FilterReason.INSUFFICIENT_FREE_MEMORY:
            need = query.min_free_mib or 0
            free = columns.total_mib[rows, cells] - columns.used_mib[rows, cells]
            lacking = need - free.astype(np.int64)  # the difference of two 32-bit values needs 33 bits
        case FilterReason.COMPUTE:
            need, lacking = share, columns.compute[rows, cells] - (100 - share)
        case FilterReason.UTILIZATION:
            need, lacking = 100, columns.compute[rows, cells] - (needs.max_utilization_percent or 0)
        case FilterReason.TEMPERATURE:
            need, lacking = 100, columns.temperature[rows, cells] - (needs.max_temperature_celsius or 0)
        case FilterReason.INSUFFICIENT_CPU:
            need, lacking = pod.cpu_milli, pod.cpu_milli - columns.cpu[rows]
        case FilterReason.INSUFFICIENT_MEMORY:
            need, lacking = pod.memory_bytes, pod.memory_bytes - columns.memory[rows]
        case FilterReason.INSUFFICIENT_DEVICES:
            need, lacking = needs.count, needs.count - np.bincount(rows)[rows]
        case _:
            return np.full(len(rows), _UNMEASURED.get(reason, _MAX_UNMEASURED))
    return lacking / max(need, 1)


def _over(need: int, have: int, unit: str, what: str) -> str:
    return f"lacks {need - have:,}{unit} of {what} (needs {need:,}{unit}, has {have:,}{unit})"


def _above(have: int | None, limit: int | None, unit: str, what: str) -> str:
    over = (have or 0) - (limit or 0)
    return f"is {over} {unit} over the {what} limit (is {have} {unit}, limit {limit} {unit})"


def _message(node: NodeState, device: DeviceState, reason: FilterReason, query: Query, passing: int) -> str:
    needs = query.devices
    match reason:
        case FilterReason.INSUFFICIENT_FREE_MEMORY:
            return _over(query.min_free_mib or 0, device.memory_free_mib or 0, " MiB", "free memory")
        case FilterReason.COMPUTE:
            share = needs.share.compute_percent if needs.share else 0
            return _over(share, 100 - (device.compute_in_use_percent or 0), " %", "compute")
        case FilterReason.UTILIZATION:
            return _above(device.compute_in_use_percent, needs.max_utilization_percent, "%", "utilization")
        case FilterReason.TEMPERATURE:
            return _above(device.temperature_celsius, needs.max_temperature_celsius, "°C", "temperature")
        case FilterReason.INSUFFICIENT_DEVICES:
            return f"node has {passing} available GPUs, needs {needs.count}"
        case FilterReason.TOPOLOGY:
            return f"node has {passing} available GPUs, but no {needs.count} of them satisfy topology {query.topology}"
        case FilterReason.COMPUTE_CAPABILITY:
            return f"has compute capability {device.compute_capability}, needs {needs.min_compute_capability}"
        case FilterReason.MODEL:
            return f"is {device.model}, must be one of: {', '.join(sorted(needs.models))}"
        case FilterReason.MEASUREMENT_MISSING:
            return f"does not report a value that a requirement needs ({device.model})"
        case _:
            return _state_message(node, device, reason, query)


def _state_message(node: NodeState, device: DeviceState, reason: FilterReason, query: Query) -> str:
    pod = query.pod
    match reason:
        case FilterReason.TELEMETRY_STALE:
            return node.stale_reason or device.stale_reason or "has never been sampled"
        case FilterReason.NODE_NOT_READY:
            return node.not_ready or "node is not ready"
        case FilterReason.CORDONED:
            return device.cordoned or "is cordoned"
        case FilterReason.TAINT:
            taint = untolerated(node.taints, pod.tolerations)
            return f"node has taint {taint.key}={taint.value}:{taint.effect}" if taint else "node has a taint"
        case FilterReason.NODE_SELECTOR:
            wrong = next(k for k, v in pod.node_selector.items() if node.labels.get(k) != v)
            return f"node has label {wrong}={node.labels.get(wrong)}, needs {pod.node_selector[wrong]}"
        case FilterReason.FOREIGN_PROCESS:
            return _foreign_process_message(device)
        case FilterReason.IN_USE:
            if device.held:
                return "is reserved or held by another pod"
            return "is shared by other pods" if query.devices.share is None else "has no free share slot"
        case (
            FilterReason.INSUFFICIENT_CPU
            | FilterReason.INSUFFICIENT_MEMORY
            | FilterReason.INSUFFICIENT_EXTENDED_RESOURCE
        ):
            return _resource_message(node, reason, query)
        case _:
            return _FIXED_MESSAGES.get(reason, f"{reason}")


def _foreign_process_message(device: DeviceState) -> str:
    if device.process_count is not None:
        return (
            f"runs {device.process_count} {'process' if device.process_count == 1 else 'processes'} outside Kubernetes"
        )
    if device.memory_model is not None:
        return "process count unknown, GPU busy or utilization unknown: possibly used outside Kubernetes"
    if device.memory_used_mib is None:
        return "process count and memory unknown: possibly used outside Kubernetes"
    return (
        f"process count unknown, {device.memory_used_mib:,} MiB in use (idle: at most {IDLE_MEMORY_MIB} MiB): "
        "possibly used outside Kubernetes"
    )


def _resource_message(node: NodeState, reason: FilterReason, query: Query) -> str:
    pod = query.pod
    if reason is FilterReason.INSUFFICIENT_CPU:
        return _over(pod.cpu_milli, node.free_cpu_milli, "m", "CPU on the node")
    if reason is FilterReason.INSUFFICIENT_MEMORY:
        return _over(
            pod.memory_bytes // BYTES_PER_MIB, node.free_memory_bytes // BYTES_PER_MIB, " MiB", "memory on the node"
        )
    name = next(n for n, v in pod.extended.items() if v > node.free_extended.get(n, 0))
    return _over(pod.extended[name], node.free_extended.get(name, 0), "", f"{name} on the node")
