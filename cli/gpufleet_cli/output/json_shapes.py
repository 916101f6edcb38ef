"""Results as JSON. A name is that of GPUWorkload.status for the same value; docs/reference/cli.md lists all of them.

Score terms are 0 to 1 (1 is best), null where the hardware does not report the value.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gpufleet_cli.analysis.device_checks import DeviceCheck, ScoredDevice
from gpufleet_cli.analysis.saved_decisions import ReplayedDecision
from gpufleet_cli.analysis.simulation import SimulatedWorkload
from gpufleet_operator.distribution import Shards
from gpufleet_operator.placement import Aggregates
from gpufleet_operator.placement.model import DeviceState, Diagnosis, Pick, ReasonCount, Terms

Json = dict[str, Any]


def simulation(
    workloads: Sequence[SimulatedWorkload], notes: Sequence[str], rejections: Mapping[str, str] = MappingProxyType({})
) -> Json:
    """`gpufleet simulate -o json`. `rejections` are those of the apiserver, by workload."""
    return {
        "placed": all(workload.placed for workload in workloads),
        "workloads": [
            {**_workload(workload), "podRejection": rejections.get(workload.manifest.name)} for workload in workloads
        ],
        "notes": list(notes),
    }


def replay(replayed: Sequence[ReplayedDecision]) -> Json:
    """`gpufleet replay -o json`."""
    return {
        "same": all(one.same for one in replayed),
        "decisions": [
            {
                "name": one.saved.request.name,
                "same": one.same,
                "placements": [_placement(pick, {}) for pick in one.made.decision.picks],
                "unplaced": list(one.made.decision.unplaced),
                "explanation": None
                if one.made.decision.diagnosis is None
                else _why_not(one.made.decision.diagnosis, {}),
            }
            for one in replayed
        ],
    }


def summary(nodes: Mapping[str, Aggregates], fleet: Aggregates, notes: Sequence[str]) -> Json:
    """`gpufleet summary -o json`."""
    named = [{"name": name, **_aggregates(found)} for name, found in nodes.items()]
    return {**_aggregates(fleet), "nodes": named, "notes": list(notes)}


def _aggregates(found: Aggregates) -> Json:
    return {
        "devices": found.devices,
        "healthy": found.healthy,
        "idle": found.idle,
        "held": found.held,
        "shared": found.shared,
        "memoryTotalMiB": found.memory_total_mib,
        "memoryUsedMiB": found.memory_used_mib,
        "memoryAvailableMiB": found.memory_available_mib,
        "meanUtilizationPercent": found.mean_utilization_percent,
        "meanTemperatureCelsius": found.mean_temperature_celsius,
        "powerMilliwatts": found.power_milliwatts,
        "oldestSampleSeconds": found.oldest_sample_seconds,
    }


def ranking(best: Iterable[ScoredDevice], counts: Json, notes: Sequence[str]) -> Json:
    """`gpufleet rank -o json`."""
    return {
        "devices": [
            {"rank": rank, **_device(r.check), "score": _terms(r.terms)} for rank, r in enumerate(best, start=1)
        ],
        **counts,
        "notes": list(notes),
    }


def explanation(checks: Iterable[DeviceCheck], counts: Json, notes: Sequence[str]) -> Json:
    """`gpufleet explain -o json`."""
    devices = [{**_device(c), "usable": c.reason is None, "reason": c.reason, "message": c.message} for c in checks]
    return {"devices": devices, **counts, "notes": list(notes)}


def shards(divided: Shards[str]) -> Json:
    """`gpufleet distribute -o json`."""
    return {
        "items": dict(divided.items),
        "ranges": {name: list(span) for name, span in divided.ranges.items()},
        "unassigned": divided.unassigned,
    }


def counts(considered: int, eligible: int, rejected: Iterable[ReasonCount]) -> Json:
    """Returns the number of devices, of those that pass, and of those that fail each filter."""
    return {
        "devicesConsidered": considered,
        "devicesEligible": eligible,
        "ineligibleDevices": [{"reason": r.reason, "devices": r.devices, "nodes": r.nodes} for r in rejected],
    }


def _workload(workload: SimulatedWorkload) -> Json:
    request, decision = workload.manifest.request, workload.decision
    shape: Json = {
        "name": workload.manifest.name,
        "source": workload.manifest.document.where,
        "placed": workload.placed,
        "strategy": request.strategy,
        "topology": request.topology,
        "gang": request.gang,
        "replicas": len(request.replicas),
        "placements": [_placement(pick, workload.ranges) for pick in decision.picks],
        "unplaced": list(decision.unplaced),
        "explanation": None if decision.diagnosis is None else _why_not(decision.diagnosis, workload.by_node),
    }
    if workload.preemption is not None:
        victims = workload.preemption.victims
        shape["preemption"] = {
            "pods": [{"node": v.node, "pod": v.holder.name, "priority": v.holder.priority} for v in victims],
            "placements": [_placement(pick, {}) for pick in workload.preemption.picks],
        }
    if workload.unassigned is not None:
        shape["unassignedItems"] = workload.unassigned
    return shape


def _placement(pick: Pick, ranges: Mapping[int, tuple[int, int]]) -> Json:
    shape: Json = {
        "replica": pick.replica,
        "node": pick.node,
        "devices": list(pick.devices),
        "score": _terms(pick.terms),
    }
    if pick.replica in ranges:
        shape["shardStart"], shape["shardEnd"] = ranges[pick.replica]
    return shape


def _why_not(why: Diagnosis, by_node: Mapping[str, Sequence[ReasonCount]]) -> Json:
    near = why.nearest
    return {
        "message": why.message,
        **counts(why.considered, why.eligible, why.rejected),
        "nearestMiss": near
        and {"node": near.node, "device": near.device, "reason": near.reason, "message": near.message},
        "nodes": [
            {"name": name, "ineligibleDevices": [{"reason": r.reason, "devices": r.devices} for r in rejected]}
            for name, rejected in by_node.items()
        ],
    }


def _device(check: DeviceCheck) -> Json:
    device: DeviceState = check.device
    return {
        "node": check.node,
        "index": device.index,
        "uuid": device.uuid,
        "model": device.model,
        "memoryFreeMiB": device.memory_free_mib,
        "utilizationPercent": device.utilization_percent,
        "temperatureCelsius": device.temperature_celsius,
        "powerMilliwatts": device.power_milliwatts,
    }


def _terms(terms: Terms) -> Json:
    return {
        "total": terms.total,
        "memory": terms.memory,
        "utilization": terms.utilization,
        "temperature": terms.temperature,
        "power": terms.power,
    }
