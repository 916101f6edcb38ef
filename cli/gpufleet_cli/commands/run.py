"""What each command does: read, ask the engine, print. Everything that is slow to import begins here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from gpufleet_cli.analysis import device_checks, simulation
from gpufleet_cli.analysis import item_shares as division
from gpufleet_cli.analysis import saved_decisions as saved
from gpufleet_cli.analysis.device_checks import Verdict
from gpufleet_cli.analysis.device_details import facts
from gpufleet_cli.analysis.fleet_edits import Edits
from gpufleet_cli.errors import InputError
from gpufleet_cli.input import fleet_file, manifests
from gpufleet_cli.input.documents import STDIN
from gpufleet_cli.input.fleet_file import Sources
from gpufleet_cli.input.sample_ages import Ages
from gpufleet_cli.options.shared import By, Format
from gpufleet_cli.output import json_shapes, tables
from gpufleet_cli.output.terminal import Screen, write_json, write_notes
from gpufleet_operator.placement import Fleet, aggregate
from gpufleet_operator.placement.explain.explain import some
from gpufleet_operator.placement.model import DeviceNeeds, Request

PLACED, NOT_PLACED = 0, 1


@dataclass(frozen=True, slots=True)
class Asked:
    """What `rank` and `explain` ask for: a workload of these manifests, or one GPU with so much free memory."""

    files: Sequence[Path]
    workload: str | None
    min_free_memory_mib: int | None
    resource: str


@dataclass(frozen=True, slots=True)
class _Judged:
    fleet: Fleet
    request: Request
    verdicts: Sequence[Verdict]
    counts: json_shapes.Json
    notes: tuple[str, ...]


def sources(
    fleet: Sequence[Path],
    nodes: Sequence[Path] | None,
    pods: Sequence[Path] | None,
    now: str | None,
    stale_after: float | None,
) -> Sources:
    """The fleet's files and how their age counts. Raises InputError for a time that is none."""
    return Sources(fleet, nodes or (), pods or (), Ages.parse(now, stale_after, datetime.now(UTC)))


def edits(without: Sequence[str] | None, free: Sequence[str] | None) -> Edits:
    """What `--without` and `--free` say."""
    return Edits(without or (), free or ())


def simulate(
    files: Sequence[Path], given: Sources, resource: str, *, edits: Edits, save: Path | None, output: Format
) -> int:
    """Returns the exit code."""
    _one_stdin(files, given)
    asked = manifests.load(files, resource)
    workloads = asked.workloads
    extended = {name for m in workloads for name in m.request.pod.extended}
    loaded = fleet_file.load(given, extended)
    edits.apply(loaded.fleet)
    outcomes = simulation.simulate(loaded.fleet, workloads, nodes_known=loaded.nodes_known)
    notes = (
        *asked.notes,
        *fleet_file.unchecked(given),
        *simulation.unchecked([m.request for m in workloads], loaded.nodes_known),
        *loaded.notes,
    )
    if save is not None:
        saved.save(save, [outcome.record for outcome in outcomes])
        notes = (*notes, f"saved to {save}: {some(len(outcomes), 'decision')}, see gpufleet replay")
    if output is Format.JSON:
        write_json(json_shapes.simulation(outcomes, notes))
    else:
        tables.simulation(Screen.of(), outcomes)
    write_notes(notes)
    return PLACED if all(outcome.placed for outcome in outcomes) else NOT_PLACED


def replay(path: Path, edits: Edits, output: Format) -> int:
    """Returns the exit code."""
    replayed = saved.replay(path, edits)
    if output is Format.JSON:
        write_json(json_shapes.replay(replayed))
    else:
        tables.replay(Screen.of(), replayed, edited=bool(edits))
    fine = (not r.made.decision.unplaced if edits else r.same for r in replayed)
    return PLACED if all(fine) else NOT_PLACED


def summary(given: Sources, output: Format) -> None:
    """Aggregates of each node, and of all."""
    loaded = fleet_file.load(given)
    nodes = {name: aggregate(Fleet.of([loaded.fleet.nodes[name]])) for name in sorted(loaded.fleet.nodes)}
    if output is Format.JSON:
        write_json(json_shapes.summary(nodes, aggregate(loaded.fleet), loaded.notes))
    else:
        tables.aggregates(Screen.of(), {**nodes, "all": aggregate(loaded.fleet)})
    write_notes(loaded.notes)


def rank(asked: Asked, given: Sources, nodes: Sequence[str], limit: int | None, output: Format) -> None:
    """Devices that pass, best first."""
    judged = _judge(asked, given, nodes)
    best = device_checks.ranked(judged.fleet, judged.request, judged.verdicts)
    if output is Format.JSON:
        write_json(json_shapes.ranking(best[:limit], judged.counts, judged.notes))
    else:
        screen = Screen.of()
        tables.ranking(screen, best[:limit])
        tables.summary(screen, judged.verdicts)
    write_notes(judged.notes)


def explain(asked: Asked, given: Sources, nodes: Sequence[str], limit: int | None, output: Format) -> None:
    """Every device, with the first test that it fails."""
    judged = _judge(asked, given, nodes)
    if output is Format.JSON:
        write_json(json_shapes.explanation(judged.verdicts[:limit], judged.counts, judged.notes))
    else:
        screen = Screen.of()
        tables.explanation(screen, judged.verdicts[:limit])
        tables.summary(screen, judged.verdicts)
    write_notes(judged.notes)


def distribute(
    items: int,
    *,
    named: Sequence[str],
    fleet: Sequence[Path],
    by: By | None,
    maxima: Sequence[str],
    ages: tuple[str | None, float | None],
    output: Format,
) -> None:
    """Divides among `named` capacities (`NAME=NUMBER`) or the usable devices of a fleet."""
    if bool(named) == bool(fleet):
        raise InputError("give either --capacity NAME=NUMBER, once or more, or --fleet FILE")
    if named and (by is not None or ages != (None, None)):
        raise InputError("--by, --now and --stale-after belong to --fleet")
    notes: tuple[str, ...] = ()
    if named:
        capacities = division.capacities(named)
    else:
        loaded = fleet_file.load(sources(fleet, None, None, *ages))
        verdicts = device_checks.judge(loaded.fleet, Request("--fleet", (0,)))
        capacities = division.of_devices([v.device for v in verdicts if v.reason is None], by or By.FREE_MEMORY)
        notes = (*division.notes(device_checks.rejections(verdicts)), *loaded.notes)
    divided = division.divide(items, capacities, maxima)
    if output is Format.JSON:
        write_json(division.as_json(divided))
    else:
        tables.division(Screen.of(), divided, capacities)
    write_notes(notes)


def _judge(asked: Asked, given: Sources, nodes: Sequence[str]) -> _Judged:
    _one_stdin(asked.files, given)
    notes = list(fleet_file.unchecked(given))
    request = _request(asked, notes)
    loaded = fleet_file.load(given, request.pod.extended)
    notes += simulation.unchecked([request], loaded.nodes_known)
    verdicts = device_checks.judge(loaded.fleet, simulation.as_asked(request, loaded.nodes_known), nodes)
    known = facts(loaded.fleet, loaded.telemetry)
    detailed = [v if v.reason is None else _detailed(v, known.get((v.device.uuid, v.reason))) for v in verdicts]
    passing = sum(v.reason is None for v in verdicts)
    counts = json_shapes.counts(len(verdicts), passing, device_checks.rejections(verdicts))
    return _Judged(loaded.fleet, request, detailed, counts, (*notes, *loaded.notes))


def _request(asked: Asked, notes: list[str]) -> Request:
    if not asked.files:
        if asked.workload is not None:
            raise InputError(f"--workload {asked.workload}: needs -f FILE")
        needs = DeviceNeeds(min_free_memory_mib=asked.min_free_memory_mib)
        return Request("one GPU", (0,), needs)
    if asked.min_free_memory_mib is not None:
        raise InputError("--min-free-memory: the manifest of -f says what is needed; give one of the two")
    found = manifests.load(asked.files, asked.resource)
    notes += found.notes
    chosen = [m for m in found.workloads if asked.workload in (None, m.name, m.model.metadata.name)]
    if len(chosen) != 1:
        names = ", ".join(m.name for m in found.workloads)
        given = "is needed" if asked.workload is None else f"{asked.workload}: names {len(chosen)} of them"
        raise InputError(f"--workload {given}: the manifests hold {names}")
    return chosen[0].request


def _detailed(verdict: Verdict, detail: str | None) -> Verdict:
    return replace(verdict, lacks=detail) if detail else verdict


def _one_stdin(files: Sequence[Path], given: Sources) -> None:
    if [*files, *given.fleet, *given.nodes, *given.pods].count(STDIN) > 1:
        raise InputError("'-' can be given once: there is one stdin")
