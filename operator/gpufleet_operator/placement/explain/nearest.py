"""How far a device is from passing the test that it fails, and what it lacks, in words with numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpufleet_common.device_use import IDLE_MEMORY_MIB
from gpufleet_operator.placement.fleet.columns import PRESENT, Columns
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import ClosestDevice, DeviceState, NodeState, Reason
from gpufleet_operator.placement.search.constraints import untolerated
from gpufleet_operator.placement.search.filters import CODES, REASONS
from gpufleet_operator.placement.search.query import Query

Distances = NDArray[np.float64]
Places = NDArray[np.intp]

_BY_KIND = {
    Reason.TOO_MANY_PODS: 1.0,
    Reason.INSUFFICIENT_EXTENDED_RESOURCE: 1.0,
    Reason.TOPOLOGY: 1.5,
    Reason.COMPUTE_CAPABILITY: 2.0,
    Reason.MODEL: 2.0,
    Reason.TELEMETRY_STALE: 3.0,
    Reason.FOREIGN_PROCESS: 4.0,
    Reason.IN_USE: 5.0,
    Reason.NODE_BACKOFF: 6.0,
    Reason.UNHEALTHY: 7.0,
    Reason.NODE_UNSCHEDULABLE: 8.0,
}
"""Distance of what no number measures: farther than any number, nearer what passes by itself sooner."""

_NUMBER = 1.0
"""The farthest that what a number measures counts as."""

_MEASURED = frozenset(
    {
        Reason.INSUFFICIENT_FREE_MEMORY,
        Reason.COMPUTE,
        Reason.UTILIZATION,
        Reason.TEMPERATURE,
        Reason.INSUFFICIENT_CPU,
        Reason.INSUFFICIENT_MEMORY,
        Reason.INSUFFICIENT_DEVICES,
    }
)

_FAR = 10.0

_PLAIN = {
    Reason.TOO_MANY_PODS: "its node has no room for another pod",
    Reason.NODE_BACKOFF: "its node refused this replica lately",
    Reason.NODE_UNSCHEDULABLE: "its node is cordoned",
    Reason.NODE_AFFINITY: "its node doesn't match the pod's required node affinity",
    Reason.UNHEALTHY: "has a fault, or its node can't give it to a container",
    Reason.NOT_INCLUDED: "is not one of requirements.includeUUIDs",
    Reason.EXCLUDED: "is one of requirements.excludeUUIDs",
    Reason.MEASUREMENT_MISSING: "doesn't report a value that a requirement needs",
}


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The closest device. `lacks` says of it what it fails, with numbers."""

    node: str
    device: str
    reason: Reason
    lacks: str
    devices: int = 1
    """How many fail the same test."""
    alike: bool = True
    """They all fail it by as much."""

    def as_near_miss(self) -> ClosestDevice:
        """For the answer."""
        return ClosestDevice(self.node, self.device, self.reason, self.lacks)

    def in_words(self) -> str:
        """`3 GPUs lack 2,148 MiB of free memory or more; the closest is node-2/GPU-... (needs ..., has ...)`."""
        device = f"the closest is {self.node}/{self.device}"
        lack, _, numbers = self.lacks.partition(" (")
        if self.reason not in {Reason.INSUFFICIENT_FREE_MEMORY, Reason.COMPUTE}:
            return f"{device}: {self.lacks}"
        lack = lack.removeprefix("lacks ")
        who = "1 GPU lacks" if self.devices == 1 else f"{self.devices:,} GPUs lack"
        return f"{who} {lack}{'' if self.alike else ' or more'}; {device} ({numbers}"


def nearest(fleet: Fleet, query: Query, codes: NDArray[np.uint8]) -> Shortfall | None:
    """The device that came closest by `codes` (see explain.reasons); None when none failed a test of its own."""
    rows, cells = (fleet.columns.state & PRESENT).nonzero()
    return nearest_of(fleet, query, rows, cells, codes[rows, cells])


def nearest_of(fleet: Fleet, query: Query, rows: Places, cells: Places, given: NDArray[np.uint8]) -> Shortfall | None:
    """As `nearest`, of devices by their row and cell, and the code given to each."""
    columns = fleet.ranked()
    best: tuple[float, int, int, int] | None = None
    alike: dict[Reason, bool] = {}
    # What numbers measure first: whatever lacks a part of something is closer than what lacks another model.
    reasons = [REASONS[code - 1] for code in np.bincount(given).nonzero()[0].tolist()]
    for reason in sorted(reasons, key=lambda r: r not in _MEASURED):
        at_least = 0.0 if reason in _MEASURED else _BY_KIND.get(reason, _FAR)
        if reason is Reason.GANG or (best is not None and best[0] < at_least):
            continue
        failing = (given == CODES[reason]).nonzero()[0]
        distance = _distances(columns, query, reason, rows[failing], cells[failing])
        least = distance.min()
        alike[reason] = bool(distance.max() == least)
        closest = failing[distance == least]
        first = closest[(columns.rank[rows[closest]] * columns.width + cells[closest]).argmin()]
        row, cell = int(rows[first]), int(cells[first])
        found = (min(float(least), _NUMBER) if reason in _MEASURED else float(least), int(columns.rank[row]), cell, row)
        best = found if best is None else min(best, found)
    if best is None:
        return None
    _, _, cell, row = best
    here = rows == row
    reason = REASONS[int(given[here & (cells == cell)][0]) - 1]
    node, device = fleet.state(row), fleet.cells(row)[cell]
    passing = int((given[here] >= CODES[Reason.INSUFFICIENT_DEVICES]).sum())
    count = int((given == CODES[reason]).sum())
    return Shortfall(node.name, device.uuid, reason, _words(node, device, reason, query, passing), count, alike[reason])


def _distances(columns: Columns, query: Query, reason: Reason, rows: Places, cells: Places) -> Distances:
    """Of devices that all fail the same test: the part of the need that is lacking, 0: as good as there."""
    needs, pod = query.devices, query.pod
    share = needs.share.compute_percent if needs.share else 0
    lacking: NDArray[Any]
    match reason:
        case Reason.INSUFFICIENT_FREE_MEMORY:
            need = query.min_free_mib or 0
            free = columns.total_mib[rows, cells] - columns.used_mib[rows, cells]
            lacking = need - free.astype(np.int64)  # two such numbers of 32 bits may differ by more than 31
        case Reason.COMPUTE:
            need, lacking = share, columns.compute[rows, cells] - (100 - share)
        case Reason.UTILIZATION:
            need, lacking = 100, columns.compute[rows, cells] - (needs.max_utilization_percent or 0)
        case Reason.TEMPERATURE:
            need, lacking = 100, columns.temperature[rows, cells] - (needs.max_temperature_celsius or 0)
        case Reason.INSUFFICIENT_CPU:
            need, lacking = pod.cpu_milli, pod.cpu_milli - columns.cpu[rows]
        case Reason.INSUFFICIENT_MEMORY:
            need, lacking = pod.memory_bytes, pod.memory_bytes - columns.memory[rows]
        case Reason.INSUFFICIENT_DEVICES:
            need, lacking = needs.count, needs.count - np.bincount(rows)[rows]
        case _:
            return np.full(len(rows), _BY_KIND.get(reason, _FAR))
    return lacking / max(need, 1)


def _over(need: int, have: int, unit: str, what: str) -> str:
    return f"lacks {need - have:,}{unit} of {what} (needs {need:,}{unit}, has {have:,}{unit})"


def _above(have: int | None, limit: int | None, unit: str, what: str) -> str:
    over = (have or 0) - (limit or 0)
    return f"is {over} {unit} over the {what} limit (is {have} {unit}, limit {limit} {unit})"


def _words(node: NodeState, device: DeviceState, reason: Reason, query: Query, passing: int) -> str:
    needs = query.devices
    match reason:
        case Reason.INSUFFICIENT_FREE_MEMORY:
            return _over(query.min_free_mib or 0, device.memory_free_mib or 0, " MiB", "free memory")
        case Reason.COMPUTE:
            share = needs.share.compute_percent if needs.share else 0
            return _over(share, 100 - (device.compute_in_use_percent or 0), " %", "compute")
        case Reason.UTILIZATION:
            return _above(device.compute_in_use_percent, needs.max_utilization_percent, "%", "utilization")
        case Reason.TEMPERATURE:
            return _above(device.temperature_celsius, needs.max_temperature_celsius, "°C", "temperature")
        case Reason.INSUFFICIENT_DEVICES:
            return f"its node has {passing} usable, {needs.count} are needed"
        case Reason.TOPOLOGY:
            return f"its node has {passing} usable, but not {needs.count} of them with topology {query.topology}"
        case Reason.COMPUTE_CAPABILITY:
            return f"has compute capability {device.compute_capability}, needs {needs.min_compute_capability}"
        case Reason.MODEL:
            return f"is a {device.model}, accepted are {', '.join(sorted(needs.models))}"
        case _:
            return _words_of_state(node, device, reason, query)


def _words_of_state(node: NodeState, device: DeviceState, reason: Reason, query: Query) -> str:
    pod = query.pod
    match reason:
        case Reason.TELEMETRY_STALE:
            return node.stale_reason or device.stale_reason or "has never been sampled"
        case Reason.TAINT:
            taint = untolerated(node.taints, pod.tolerations)
            return f"its node has the taint {taint.key}={taint.value}:{taint.effect}" if taint else "is tainted"
        case Reason.NODE_SELECTOR:
            wrong = next(k for k, v in pod.node_selector.items() if node.labels.get(k) != v)
            return f"its node has {wrong}={node.labels.get(wrong)}, needs {pod.node_selector[wrong]}"
        case Reason.FOREIGN_PROCESS:
            return _words_of_use(device)
        case Reason.IN_USE:
            if device.held:
                return "is reserved or held by another pod"
            return "is shared by other pods" if query.devices.share is None else "has no slot left for another sharer"
        case Reason.INSUFFICIENT_CPU | Reason.INSUFFICIENT_MEMORY | Reason.INSUFFICIENT_EXTENDED_RESOURCE:
            return _words_of_room(node, reason, query)
        case _:
            return _PLAIN.get(reason, f"{reason}")


def _words_of_use(device: DeviceState) -> str:
    if device.process_count is not None:
        one = device.process_count == 1
        return f"runs {device.process_count} {'process that belongs' if one else 'processes that belong'} to no pod"
    if device.memory_used_mib is None:
        return "may run processes that belong to no pod: it tells neither their number nor the memory in use"
    return (
        "may run processes that belong to no pod: it doesn't tell their number, and "
        f"{device.memory_used_mib:,} MiB are in use (idle: {IDLE_MEMORY_MIB} MiB at most)"
    )


def _words_of_room(node: NodeState, reason: Reason, query: Query) -> str:
    pod = query.pod
    if reason is Reason.INSUFFICIENT_CPU:
        return _over(pod.cpu_milli, node.free_cpu_milli, "m", "CPU on its node")
    if reason is Reason.INSUFFICIENT_MEMORY:
        return _over(pod.memory_bytes // 2**20, node.free_memory_bytes // 2**20, " MiB", "memory on its node")
    name = next(n for n, v in pod.extended.items() if v > node.free_extended.get(n, 0))
    return _over(pod.extended[name], node.free_extended.get(name, 0), "", f"{name} on its node")
