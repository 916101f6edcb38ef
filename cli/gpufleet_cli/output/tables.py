"""Results as tables for people."""

from collections.abc import Iterable, Mapping, Sequence

from gpufleet_cli.analysis.device_checks import Ranked, Verdict, rejections
from gpufleet_cli.analysis.item_shares import Capacity
from gpufleet_cli.analysis.saved_decisions import Replayed
from gpufleet_cli.analysis.simulation import Outcome
from gpufleet_cli.output.terminal import Column, Screen
from gpufleet_operator.distribution import Shares
from gpufleet_operator.placement import Aggregates
from gpufleet_operator.placement.explain.explain import some
from gpufleet_operator.placement.explain.phrases import PHRASES
from gpufleet_operator.placement.model import Rejected, Share, Terms

_TERMS = (
    Column("SCORE", number=True),
    Column("MEMORY", number=True, spare=1),
    Column("UTIL", number=True, spare=1),
    Column("TEMP", number=True, spare=1),
    Column("POWER", number=True, spare=1),
)
_WHERE = (Column("NODE", firm=True), Column("GPU", number=True))
_MOST_NODES = 16
"""A table of more isn't read by anybody."""
_MODEL = Column("MODEL", spare=5, firm=True)
_DEVICE = (*_WHERE, Column("UUID", firm=True), _MODEL)
_MEASURED = (
    Column("FREE MiB", number=True, spare=2),
    Column("UTIL %", number=True, spare=3),
    Column("TEMP C", number=True, spare=3),
)


def simulation(screen: Screen, outcomes: Iterable[Outcome]) -> None:
    """One paragraph per workload, with its placements, and why the rest has none."""
    for position, outcome in enumerate(outcomes):
        if position:
            screen.line("")
        screen.line(_headline(outcome), "bold green" if outcome.placed else "bold red")
        if outcome.decision.picks:
            _placements(screen, outcome)
        why = outcome.decision.why_not
        if why is not None:
            screen.line(why.message)
            if why.rejected:
                _reasons(screen, why.rejected)
                _by_node(screen, outcome)
        if outcome.unassigned:
            screen.line(f"{some(outcome.unassigned, 'item')} left unassigned by maxPerReplica")


def replay(screen: Screen, replayed: Iterable[Replayed], *, edited: bool) -> None:
    """Per decision whether it is the same; with an edited fleet, or where it differs, what it is now."""
    for one in replayed:
        request, decision = one.made.request, one.made.decision
        how = f"byte for byte ({one.size:,} bytes)" if not edited else "on the edited fleet as well"
        state = f"the same decision, {how}" if one.same else "another decision"
        screen.line(f"{request.name}: {state}", "bold green" if one.same else "bold")
        if one.same and not edited:
            continue
        rows = [[str(p.replica), p.node, uuid] for p in decision.picks for uuid in p.devices]
        screen.table((Column("REPLICA", number=True), Column("NODE", firm=True), Column("UUID", firm=True)), rows)
        if decision.why_not is not None:
            screen.line(decision.why_not.message)


def ranking(screen: Screen, best: Iterable[Ranked]) -> None:
    """Devices best first."""
    rows = [
        [str(rank), *_device(r.verdict), *_measured(r.verdict), *_terms(r.terms)]
        for rank, r in enumerate(best, start=1)
    ]
    screen.table((Column("RANK", number=True), *_DEVICE, *_MEASURED, *_TERMS), rows)


def aggregates(screen: Screen, found: Mapping[str, Aggregates]) -> None:
    """One line for each node, and for all of them."""
    headers = (
        "GPUS",
        "HEALTHY",
        "IDLE",
        "HELD",
        "SHARED",
        "TOTAL MiB",
        "USED MiB",
        "FREE MiB",
        "UTIL %",
        "TEMP C",
        "W",
    )
    rows = []
    for name, one in found.items():
        watts = None if one.power_milliwatts is None else one.power_milliwatts / 1000
        counts = (one.devices, one.healthy, one.idle, one.held, one.shared)
        memory = (one.memory_total_mib, one.memory_used_mib, one.memory_available_mib)
        means = (one.mean_utilization_percent, one.mean_temperature_celsius, watts, one.oldest_sample_seconds)
        cells = [*counts, *memory, *(None if value is None else round(value) for value in means)]
        rows.append([name, *("-" if cell is None else str(cell) for cell in cells)])
    columns = [Column(header, number=True) for header in (*headers, "OLDEST s")]
    screen.table((Column("NODE", firm=True), *columns), rows)


def explanation(screen: Screen, verdicts: Iterable[Verdict]) -> None:
    """Devices with the first test that they fail."""
    rows = [[*_device(v), v.reason or "passes", v.lacks] for v in verdicts]
    # Node and index name the device as well, and the words need the room.
    named = (*_WHERE, Column("UUID", firm=True, spare=1), _MODEL)
    screen.table((*named, Column("FIRST FAILED TEST", firm=True), Column("IN WORDS")), rows)


def summary(screen: Screen, verdicts: Sequence[Verdict]) -> None:
    """How many could serve, and by which test the others fail."""
    passing = sum(v.reason is None for v in verdicts)
    text = f"{passing:,} of {some(len(verdicts), 'GPU')} could serve"
    failed = [f"{r.devices:,} {PHRASES[r.reason]}" for r in rejections(verdicts)]
    screen.line(f"{text}; unusable are {', '.join(failed)}" if failed else text)


def _reasons(screen: Screen, rejected: Iterable[Rejected]) -> None:
    """Counts by reason."""
    rows = [[r.reason, f"{r.devices:,}", f"{r.nodes:,}"] for r in rejected]
    screen.table((Column("REASON"), Column("GPUS", number=True), Column("NODES", number=True)), rows)


def _by_node(screen: Screen, outcome: Outcome) -> None:
    """The same of each node; of a large fleet the first ones."""
    shown = list(outcome.by_node.items())[:_MOST_NODES]
    rows = [[name, ", ".join(f"{r.devices:,} {PHRASES[r.reason]}" for r in counts) or "-"] for name, counts in shown]
    screen.table((Column("NODE", firm=True), Column("UNUSABLE")), rows)
    if len(outcome.by_node) > len(shown):
        screen.line(f"and {some(len(outcome.by_node) - len(shown), 'more node')} (all with -o json)")


def division(screen: Screen, divided: Shares[str], capacities: Mapping[str, Capacity]) -> None:
    """Shares and ranges, and what is left."""
    rows = [
        [name, capacities[name].text, str(divided.items[name]), f"[{start}, {end})"]
        for name, (start, end) in divided.ranges.items()
    ]
    headers = (Column("NAME"), Column("CAPACITY", number=True), Column("ITEMS", number=True), Column("RANGE"))
    screen.table(headers, rows)
    screen.line(f"{some(sum(divided.items.values()), 'item')} assigned, {divided.unassigned:,} unassigned")


def _headline(outcome: Outcome) -> str:
    request, picks = outcome.manifest.request, outcome.decision.picks
    how = [str(request.strategy), *(["gang"] if request.gang else []), *_part(request.devices.share)]
    how += [str(request.topology)] if request.topology != "None" else []
    state = "placed" if outcome.placed else "not placed" if not picks else "placed in part"
    nodes = sorted({pick.node for pick in picks})
    taken = {(pick.node, uuid) for pick in picks for uuid in pick.devices}
    gpus, replicas = some(len(taken), "GPU"), some(len(request.replicas), "replica")
    where = f", {gpus} on {', '.join(nodes)}" if picks else ""
    return f"{outcome.manifest.name}: {state}: {len(picks)} of {replicas}{where} ({', '.join(how)})"


def _part(share: Share | None) -> list[str]:
    """What a replica gets of each device, when not all of it."""
    if share is None:
        return []
    compute = f" and {share.compute_percent} %" if share.compute_percent else ""
    return [f"{share.memory_mib:,} MiB{compute} of each"]


def _placements(screen: Screen, outcome: Outcome) -> None:
    rows = []
    for pick in outcome.decision.picks:
        span = outcome.ranges.get(pick.replica)
        replica = [f"[{span[0]}, {span[1]})"] if span else []
        for position, device in enumerate(outcome.devices[pick.replica]):
            # Items and score are the replica's, so they stand once, beside its first device.
            score = [*replica, *_terms(pick.terms)] if position == 0 else [""] * (len(replica) + len(_TERMS))
            rows.append([str(pick.replica), pick.node, str(device.index), device.uuid, device.model, *score])
    items = (Column("ITEMS"),) if outcome.ranges else ()
    screen.table((Column("REPLICA", number=True), *_DEVICE, *items, *_TERMS), rows)


def _device(verdict: Verdict) -> list[str]:
    device = verdict.device
    return [verdict.node, str(device.index), device.uuid, device.model]


def _measured(verdict: Verdict) -> list[str]:
    device = verdict.device
    values = (device.memory_free_mib, device.utilization_percent, device.temperature_celsius)
    return ["-" if value is None else str(value) for value in values]


def _terms(terms: Terms) -> list[str]:
    values: Sequence[float | None] = (terms.total, terms.memory, terms.utilization, terms.temperature, terms.power)
    return ["-" if value is None else f"{value:.3f}" for value in values]
