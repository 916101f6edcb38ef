"""Results as tables."""

from collections.abc import Iterable, Mapping, Sequence

from gpufleet_cli.analysis.device_checks import DeviceCheck, ScoredDevice, count_rejections
from gpufleet_cli.analysis.item_shards import ReceiverCapacity
from gpufleet_cli.analysis.saved_decisions import ReplayedDecision
from gpufleet_cli.analysis.simulation import SimulatedWorkload
from gpufleet_cli.output.terminal import Column, Screen
from gpufleet_operator.distribution import Shards
from gpufleet_operator.placement import Aggregates, PreemptionProposal
from gpufleet_operator.placement.explain.diagnosis import quantity
from gpufleet_operator.placement.explain.phrases import PHRASES
from gpufleet_operator.placement.model import ReasonCount, Share, Terms

_TERMS = (
    Column("SCORE", number=True),
    Column("MEMORY", number=True, spare=1),
    Column("UTIL", number=True, spare=1),
    Column("TEMP", number=True, spare=1),
    Column("POWER", number=True, spare=1),
)
_NODE_AND_INDEX = (Column("NODE", firm=True), Column("GPU", number=True))
_MODEL = Column("MODEL", spare=5, firm=True)
_DEVICE = (*_NODE_AND_INDEX, Column("UUID", firm=True), _MODEL)
_MEASUREMENTS = (
    Column("FREE-MIB", number=True, spare=2),
    Column("UTIL%", number=True, spare=3),
    Column("TEMP-C", number=True, spare=3),
)
_AGGREGATES = (
    "GPUS",
    "HEALTHY",
    "IDLE",
    "HELD",
    "SHARED",
    "TOTAL-MIB",
    "USED-MIB",
    "FREE-MIB",
    "UTIL%",
    "TEMP-C",
    "WATTS",
    "SAMPLE-AGE",
)
_MAX_NODES = 16
"""Nodes listed for a workload that is not placed."""


def simulation(screen: Screen, workloads: Iterable[SimulatedWorkload]) -> None:
    """Prints one paragraph per workload: its placements, and why replicas are not placed."""
    for position, workload in enumerate(workloads):
        if position:
            screen.line("")
        screen.line(_headline(workload), "bold green" if workload.placed else "bold red")
        if workload.decision.picks:
            _placements(screen, workload)
        why = workload.decision.diagnosis
        if why is not None:
            screen.line(why.message)
            if why.rejected:
                _rejections(screen, why.rejected)
                _rejections_by_node(screen, workload)
        if workload.preemption is not None:
            _preemption(screen, workload.preemption)
        if workload.unassigned:
            screen.line(f"{quantity(workload.unassigned, 'item')} unassigned because of maxPerReplica")


def _preemption(screen: Screen, proposal: PreemptionProposal) -> None:
    if not proposal.victims:
        screen.line("Pods that are ending already make room for it.")
        return
    screen.line(f"Fits after the eviction of {quantity(len(proposal.victims), 'pod')} of lower priority:")
    rows = [[victim.node, victim.holder.name, str(victim.holder.priority)] for victim in proposal.victims]
    screen.table((Column("NODE", firm=True), Column("POD", firm=True), Column("PRIORITY", number=True)), rows)


def replay(screen: Screen, replayed: Iterable[ReplayedDecision], *, edited: bool) -> None:
    """Prints for each decision whether it is the same, and the new one if it differs or the fleet was edited."""
    for one in replayed:
        request, decision = one.made.request, one.made.decision
        how = f", byte for byte ({one.size:,} bytes)" if not edited else " on the edited fleet"
        state = f"same decision{how}" if one.same else "different decision"
        screen.line(f"{request.name}: {state}", "bold green" if one.same else "bold")
        if one.same and not edited:
            continue
        rows = [[str(p.replica), p.node, uuid] for p in decision.picks for uuid in p.devices]
        screen.table((Column("REPLICA", number=True), Column("NODE", firm=True), Column("UUID", firm=True)), rows)
        if decision.diagnosis is not None:
            screen.line(decision.diagnosis.message)


def ranking(screen: Screen, best: Iterable[ScoredDevice]) -> None:
    """Prints devices, best first."""
    rows = [
        [str(rank), *_device(one.check), *_measurements(one.check), *_terms(one.terms)]
        for rank, one in enumerate(best, start=1)
    ]
    screen.table((Column("RANK", number=True), *_DEVICE, *_MEASUREMENTS, *_TERMS), rows)


def aggregates(screen: Screen, found: Mapping[str, Aggregates]) -> None:
    """Prints one line for each node, and for the fleet."""
    rows = []
    for name, one in found.items():
        watts = None if one.power_milliwatts is None else one.power_milliwatts / 1000
        counts = (one.devices, one.healthy, one.idle, one.held, one.shared)
        memory = (one.memory_total_mib, one.memory_used_mib, one.memory_available_mib)
        means = (one.mean_utilization_percent, one.mean_temperature_celsius, watts)
        cells = [*counts, *memory, *(None if value is None else round(value) for value in means)]
        age = "-" if one.oldest_sample_seconds is None else f"{one.oldest_sample_seconds:.0f}s"
        rows.append([name, *("-" if cell is None else str(cell) for cell in cells), age])
    columns = [Column(header, number=True) for header in _AGGREGATES]
    screen.table((Column("NODE", firm=True), *columns), rows)


def explanation(screen: Screen, checks: Iterable[DeviceCheck]) -> None:
    """Prints devices with the first filter that they fail."""
    rows = [[*_device(check), check.reason or "-", check.message] for check in checks]
    # Node and index name the device as well, and the message needs the width.
    named = (*_NODE_AND_INDEX, Column("UUID", firm=True, spare=1), _MODEL)
    screen.table((*named, Column("REASON", firm=True), Column("MESSAGE")), rows)


def availability(screen: Screen, checks: Sequence[DeviceCheck]) -> None:
    """Prints how many devices pass, and how many fail each filter."""
    passing = sum(check.reason is None for check in checks)
    failed = _phrases(count_rejections(checks))
    screen.line(f"{passing:,}/{len(checks):,} GPUs are available{f': {failed}' if failed else ''}.")


def shards(screen: Screen, divided: Shards[str], capacities: Mapping[str, ReceiverCapacity]) -> None:
    """Prints the items and the range of each receiver, and the totals."""
    rows = [
        [name, capacities[name].text, str(divided.items[name]), f"[{start}, {end})"]
        for name, (start, end) in divided.ranges.items()
    ]
    headers = (Column("NAME"), Column("CAPACITY", number=True), Column("ITEMS", number=True), Column("RANGE"))
    screen.table(headers, rows)
    screen.line(f"{quantity(sum(divided.items.values()), 'item')} assigned, {divided.unassigned:,} unassigned")


def _rejections(screen: Screen, rejected: Iterable[ReasonCount]) -> None:
    rows = [[r.reason, f"{r.devices:,}", f"{r.nodes:,}"] for r in rejected]
    screen.table((Column("REASON"), Column("GPUS", number=True), Column("NODES", number=True)), rows)


def _rejections_by_node(screen: Screen, workload: SimulatedWorkload) -> None:
    """Prints the rejections of each node, up to `_MAX_NODES` nodes."""
    shown = list(workload.by_node.items())[:_MAX_NODES]
    rows = [[name, _phrases(rejected) or "-"] for name, rejected in shown]
    screen.table((Column("NODE", firm=True), Column("UNAVAILABLE")), rows)
    if len(workload.by_node) > len(shown):
        screen.line(f"and {quantity(len(workload.by_node) - len(shown), 'more node')} (all with -o json)")


def _phrases(rejected: Iterable[ReasonCount]) -> str:
    return ", ".join(f"{r.devices:,} {PHRASES[r.reason]}" for r in rejected)


def _headline(workload: SimulatedWorkload) -> str:
    request, picks = workload.manifest.request, workload.decision.picks
    how = [str(request.strategy), *(["gang"] if request.gang else []), *_share(request.devices.share)]
    how += [str(request.topology)] if request.topology != "None" else []
    state = "placed" if workload.placed else "not placed" if not picks else "partially placed"
    nodes = sorted({pick.node for pick in picks})
    taken = {(pick.node, uuid) for pick in picks for uuid in pick.devices}
    gpus, replicas = quantity(len(taken), "GPU"), quantity(len(request.replicas), "replica")
    where = f", {gpus} on {', '.join(nodes)}" if picks else ""
    return f"{workload.manifest.name}: {state}: {len(picks)}/{replicas}{where} ({', '.join(how)})"


def _share(share: Share | None) -> list[str]:
    if share is None:
        return []
    compute = f" and {share.compute_percent} %" if share.compute_percent else ""
    return [f"{share.memory_mib:,} MiB{compute} of each"]


def _placements(screen: Screen, workload: SimulatedWorkload) -> None:
    rows = []
    for pick in workload.decision.picks:
        span = workload.ranges.get(pick.replica)
        replica = [f"[{span[0]}, {span[1]})"] if span else []
        for position, device in enumerate(workload.devices[pick.replica]):
            # Items and score belong to the replica: they are shown once, next to its first device.
            score = [*replica, *_terms(pick.terms)] if position == 0 else [""] * (len(replica) + len(_TERMS))
            rows.append([str(pick.replica), pick.node, str(device.index), device.uuid, device.model, *score])
    items = (Column("ITEMS"),) if workload.ranges else ()
    screen.table((Column("REPLICA", number=True), *_DEVICE, *items, *_TERMS), rows)


def _device(check: DeviceCheck) -> list[str]:
    device = check.device
    return [check.node, str(device.index), device.uuid, device.model]


def _measurements(check: DeviceCheck) -> list[str]:
    device = check.device
    values = (device.memory_free_mib, device.utilization_percent, device.temperature_celsius)
    return ["-" if value is None else str(value) for value in values]


def _terms(terms: Terms) -> list[str]:
    values: Sequence[float | None] = (terms.total, terms.memory, terms.utilization, terms.temperature, terms.power)
    return ["-" if value is None else f"{value:.3f}" for value in values]
