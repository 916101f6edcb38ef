"""Results as JSON. The names are those of GPUWorkload.status where it has the same thing; see docs/reference/cli.md.

Score terms are 0..1 (1 is best), null where the hardware doesn't report the value.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpufleet_cli.analysis.device_checks import Ranked, Verdict
from gpufleet_cli.analysis.saved_decisions import Replayed
from gpufleet_cli.analysis.simulation import Outcome
from gpufleet_operator.placement import Aggregates
from gpufleet_operator.placement.model import DeviceState, Pick, Rejected, Terms, WhyNot

Json = dict[str, Any]


def simulation(outcomes: Sequence[Outcome], notes: Sequence[str]) -> Json:
    """`gpufleet simulate -o json`."""
    return {
        "placed": all(outcome.placed for outcome in outcomes),
        "workloads": [_workload(outcome) for outcome in outcomes],
        "notes": list(notes),
    }


def replay(replayed: Sequence[Replayed]) -> Json:
    """`gpufleet replay -o json`."""
    return {
        "same": all(one.same for one in replayed),
        "decisions": [
            {
                "name": one.saved.request.name,
                "same": one.same,
                "placements": [_placement(pick, {}) for pick in one.made.decision.picks],
                "unplaced": list(one.made.decision.unplaced),
                "explanation": None if one.made.decision.why_not is None else _why_not(one.made.decision.why_not, {}),
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


def ranking(best: Iterable[Ranked], counts: Json, notes: Sequence[str]) -> Json:
    """`gpufleet rank -o json`."""
    return {
        "devices": [
            {"rank": rank, **_device(r.verdict), "score": _terms(r.terms)} for rank, r in enumerate(best, start=1)
        ],
        **counts,
        "notes": list(notes),
    }


def explanation(verdicts: Iterable[Verdict], counts: Json, notes: Sequence[str]) -> Json:
    """`gpufleet explain -o json`."""
    devices = [{**_device(v), "usable": v.reason is None, "reason": v.reason, "message": v.lacks} for v in verdicts]
    return {"devices": devices, **counts, "notes": list(notes)}


def counts(considered: int, eligible: int, rejected: Iterable[Rejected]) -> Json:
    """How many devices there are, how many pass, and how many fail which test."""
    return {
        "devicesConsidered": considered,
        "devicesEligible": eligible,
        "rejections": [{"reason": r.reason, "devices": r.devices, "nodes": r.nodes} for r in rejected],
    }


def _workload(outcome: Outcome) -> Json:
    request, decision = outcome.manifest.request, outcome.decision
    shape: Json = {
        "name": outcome.manifest.name,
        "source": outcome.manifest.document.where,
        "placed": outcome.placed,
        "strategy": request.strategy,
        "topology": request.topology,
        "gang": request.gang,
        "replicas": len(request.replicas),
        "placements": [_placement(pick, outcome.ranges) for pick in decision.picks],
        "unplaced": list(decision.unplaced),
        "explanation": None if decision.why_not is None else _why_not(decision.why_not, outcome.by_node),
    }
    if outcome.unassigned is not None:
        shape["unassignedItems"] = outcome.unassigned
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


def _why_not(why: WhyNot, by_node: Mapping[str, Sequence[Rejected]]) -> Json:
    near = why.nearest
    return {
        "message": why.message,
        **counts(why.considered, why.eligible, why.rejected),
        "nearestMiss": near
        and {"node": near.node, "device": near.device, "reason": near.reason, "message": near.message},
        "nodes": [
            {"name": name, "rejections": [{"reason": r.reason, "devices": r.devices} for r in rejected]}
            for name, rejected in by_node.items()
        ],
    }


def _device(verdict: Verdict) -> Json:
    device: DeviceState = verdict.device
    return {
        "node": verdict.node,
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
