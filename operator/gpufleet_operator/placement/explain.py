"""Why a replica can't be placed: counts by reason, and what came closest, in words with numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

from gpufleet_api.workload import Topology
from gpufleet_operator.placement import filters
from gpufleet_operator.placement.constraints import untolerated
from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.model import (
    DeviceState,
    NearMiss,
    NodeState,
    Pick,
    Reason,
    Rejected,
    Request,
    WhyNot,
)
from gpufleet_operator.placement.topology import Candidate, best_set

_FAR = 10.0
"""Distance of a miss that no number describes: farther than any that one does."""


@dataclass(frozen=True, slots=True)
class _Miss:
    """One device's failed test: how far it is from passing (0: as good as there), and what it lacks."""

    node: str
    device: DeviceState
    reason: Reason
    distance: float
    lacks: str


def explain(fleet: Fleet, request: Request, replica: int, partial: tuple[Pick, ...]) -> WhyNot:
    """Why `replica` found no devices in `fleet`; `partial` are the picks of its siblings in the same decision."""
    misses = [miss for node in fleet.nodes.values() for miss in _misses(node, request, replica)]
    considered = sum(len(n.devices) for n in fleet.nodes.values())
    gang_short = [m for m in misses if m.reason is Reason.GANG]
    rejected = tuple(_count(misses))
    real = [m for m in misses if m.reason is not Reason.GANG]
    closest = min(real, key=lambda m: (m.distance, m.node, m.device.index), default=None)
    nearest = None
    if closest is not None:
        nearest = NearMiss(closest.node, closest.device.uuid, closest.reason, closest.lacks)
    parts = _parts(request, fleet, len(partial), misses)
    if closest is not None:
        same = _some(sum(m.reason is closest.reason for m in misses), "GPU")
        parts.append(f"{same} {closest.reason}; the closest is {closest.node}/{closest.device.uuid}: {closest.lacks}")
    return WhyNot("; ".join(parts), considered, len(gang_short), rejected, nearest)


def _misses(node: NodeState, request: Request, replica: int) -> Iterator[_Miss]:
    aside = request.set_aside.get(replica, frozenset())
    node_reason = filters.refuse_node(node, request.pod, aside)
    reasons = {d.uuid: node_reason or filters.refuse_device(d, request.devices) for d in node.devices}
    passing = [d for d in node.devices if reasons[d.uuid] is None]
    rest = filters.refuse_room(node, request.pod) or _refuse_set(passing, request) or Reason.GANG
    for device in node.devices:
        reason = reasons[device.uuid] or rest
        distance, lacks = _describe(node, device, reason, request, len(passing))
        yield _Miss(node.name, device, reason, distance, lacks)


def _refuse_set(passing: list[DeviceState], request: Request) -> Reason | None:
    if len(passing) < request.devices.count:
        return Reason.NODE_DEVICES
    candidates = [Candidate(d.uuid, d.index, 0.0, d.numa_node, d.nvlink_peers) for d in passing]
    if best_set(candidates, request.devices.count, request.topology) is None:
        return Reason.TOPOLOGY
    return Reason.TOPOLOGY if request.topology is Topology.SAME_NODE else None


def _count(misses: list[_Miss]) -> Iterator[Rejected]:
    for reason in Reason:
        found = [m for m in misses if m.reason is reason]
        if found:
            yield Rejected(reason, len(found), len({m.node for m in found}))


def _parts(request: Request, fleet: Fleet, partial: int, misses: list[_Miss]) -> list[str]:
    replicas = _some(len(request.replicas), "replica")
    asked = f"each of {replicas} needs {_some(request.devices.count, 'GPU')}"
    if not misses:
        return [asked, f"the fleet has no GPU ({_some(len(fleet.nodes), 'node')})"]
    eligible = sum(m.reason is Reason.GANG for m in misses)
    parts = [asked, f"{eligible} of {_some(len(misses), 'GPU')} could serve"]
    if partial:
        parts.append(f"{partial} of {replicas} {'would fit' if request.gang else 'placed'}")
    counts = [f"{r.devices} {r.reason}" for r in _count(misses) if r.reason is not Reason.GANG]
    return [*parts, "not usable: " + ", ".join(counts)] if counts else parts


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _over(need: float, have: float, unit: str, what: str) -> tuple[float, str]:
    lacking = need - have
    return lacking / max(need, 1), f"lacks {lacking:,}{unit} of {what} (needs {need:,}{unit}, has {have:,}{unit})"


def _above(have: int | None, limit: int | None, unit: str, what: str) -> tuple[float, str]:
    over = (have or 0) - (limit or 0)
    return over / 100, f"is {over} {unit} over the {what} limit (is {have} {unit}, limit {limit} {unit})"


def _describe(  # noqa: C901, PLR0912 - one case per reason reads best as one match
    node: NodeState, device: DeviceState, reason: Reason, request: Request, passing: int
) -> tuple[float, str]:
    """(distance, words) for one failed test."""
    needs, pod = request.devices, request.pod
    match reason:
        case Reason.FREE_MEMORY:
            return _over(needs.min_free_memory_mib or 0, filters.free_memory_mib(device) or 0, " MiB", "free memory")
        case Reason.UTILIZATION:
            return _above(device.utilization_percent, needs.max_utilization_percent, "%", "utilization")
        case Reason.TEMPERATURE:
            return _above(device.temperature_celsius, needs.max_temperature_celsius, "°C", "temperature")
        case Reason.NODE_CPU:
            return _over(pod.cpu_milli, node.free_cpu_milli, "m", "CPU on its node")
        case Reason.NODE_MEMORY:
            need, have = pod.memory_bytes // 2**20, node.free_memory_bytes // 2**20
            return _over(need, have, " MiB", "memory on its node")
        case Reason.NODE_PODS:
            return 1.0, "its node has no room for another pod"
        case Reason.NODE_RESOURCE:
            name = next(n for n, v in pod.extended.items() if v > node.free_extended.get(n, 0))
            return _over(pod.extended[name], node.free_extended.get(name, 0), "", f"{name} on its node")
        case Reason.NODE_DEVICES:
            return (needs.count - passing) / needs.count, f"its node has {passing} usable, {needs.count} are needed"
        case Reason.TOPOLOGY:
            return 1.0, f"its node has {passing} usable, but no {needs.count} of them with topology {request.topology}"
        case Reason.COMPUTE_CAPABILITY:
            return 2.0, f"has compute capability {device.compute_capability}, needs {needs.min_compute_capability}"
        case Reason.MODEL:
            return 2.0, f"is a {device.model}, accepted are {', '.join(sorted(needs.models))}"
        case Reason.TELEMETRY_STALE:
            return 3.0, node.stale_reason or "has never been sampled"
        case Reason.TAINT:
            taint = untolerated(node.taints, pod.tolerations)
            return _FAR, f"its node has the taint {taint.key}={taint.value}:{taint.effect}" if taint else "tainted"
        case Reason.FOREIGN_PROCESS:
            return 4.0, f"runs {device.process_count} processes that belong to no pod"
        case Reason.IN_USE:
            return 5.0, "is reserved or held by another pod"
        case Reason.NODE_SET_ASIDE:
            return 6.0, "its node refused this replica lately"
        case _:
            return _FAR, f"{reason}"
