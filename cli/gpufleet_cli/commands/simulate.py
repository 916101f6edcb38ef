"""`gpufleet simulate`."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gpufleet_cli.analysis import saved_decisions, simulation
from gpufleet_cli.analysis.fleet_edits import FleetEdits
from gpufleet_cli.analysis.simulation import SimulatedWorkload
from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.commands.admission import PodAdmission, admission
from gpufleet_cli.commands.convert import in_namespace
from gpufleet_cli.commands.sources import check_stdin, fleet_documents, namespace_of
from gpufleet_cli.exit_codes import NOT_PLACED, SUCCESS
from gpufleet_cli.input import fleet_files, manifests, priority_files
from gpufleet_cli.input.demand_files import KnownDemands, learns
from gpufleet_cli.input.fleet_files import FleetDocuments, LoadedFleet
from gpufleet_cli.input.manifests import ClusterRules, Manifest
from gpufleet_cli.input.priority_files import PriorityClasses
from gpufleet_cli.options.choices import OutputFormat
from gpufleet_cli.options.target import Target
from gpufleet_cli.output import json_shapes, tables
from gpufleet_cli.output.rendering import Rendering, write
from gpufleet_cli.output.terminal import Screen, write_notes
from gpufleet_operator.placement.explain.diagnosis import quantity


def simulate(
    files: Sequence[Path],
    target: Target,
    ages: tuple[str | None, float | None],
    rules: ClusterRules,
    *,
    edits: FleetEdits,
    save: Path | None,
    preempt: bool = False,
    output: OutputFormat,
    headers: bool = True,
) -> int:
    """Prints the placements and returns the exit code.

    Args:
        files: The manifests.
        target: The cluster or the saved objects.
        ages: `--now` and `--stale-after`.
        rules: What the operator is configured with.
        edits: Changes of the fleet.
        save: File for the decisions.
        preempt: Whether pods of lower priority are proposed for eviction.
        output: The format.
        headers: Whether tables have a header.
    """
    check_stdin(files, target)
    requested = manifests.load(files, rules, in_namespace(namespace_of(target)))
    workloads, notes = requested.workloads, requested.notes
    extended = {name for workload in workloads for name in workload.request.pod.extended}
    learning = any(map(learns, workloads))
    objects = fleet_documents(target, *ages, preempt=preempt, learns=learning)
    demands = KnownDemands(objects.demands if learning else ())
    notes = (*notes, *demands.notes(workloads))
    workloads = tuple(map(demands.apply, workloads))
    loaded = fleet_files.load(objects, extended)
    now = datetime.now(UTC)
    if preempt:
        classes = PriorityClasses.of(objects.classes)
        priority_files.add_holders(loaded, objects, now)
        workloads = tuple(map(classes.apply, workloads))
        notes = (*classes.unknown(workloads), *notes)
    edits.apply(loaded.fleet)
    simulated = simulation.simulate(
        loaded.fleet,
        workloads,
        loaded.pods,
        nodes_known=loaded.nodes_known,
        preempt_at=now.timestamp() if preempt else None,
    )
    admitted = PodAdmission() if target.saved else admission(Kubectl(target.connection), workloads, rules)
    notes = (*notes, *_unchecked(objects, loaded, workloads), *admitted.notes)
    if save is not None:
        saved_decisions.save(save, [workload.record for workload in simulated])
        notes = (*notes, f"{quantity(len(simulated), 'decision')} saved to {save} (see gpufleet replay)")
    _print(simulated, admitted, notes, output, headers=headers)
    placed = all(workload.placed for workload in simulated) and not admitted.rejections
    return SUCCESS if placed else NOT_PLACED


def _unchecked(objects: FleetDocuments, loaded: LoadedFleet, workloads: Sequence[Manifest]) -> Iterator[str]:
    """Yields notes on requirements that are not checked."""
    yield from fleet_files.unchecked(objects)
    yield from simulation.unchecked([workload.request for workload in workloads], loaded.nodes_known)
    pods_known = bool(objects.nodes) and objects.pods_known
    yield from simulation.unchecked_pods(workloads, nodes_known=loaded.nodes_known, pods_known=pods_known)
    yield from loaded.notes


def _print(
    simulated: Sequence[SimulatedWorkload],
    admitted: PodAdmission,
    notes: Sequence[str],
    output: OutputFormat,
    *,
    headers: bool,
) -> None:
    def draw(screen: Screen, _wide: bool) -> None:
        tables.simulation(screen, simulated)
        for name, why in admitted.rejections.items():
            screen.line(f"{name}: the apiserver rejects its pods: {why}", "bold red")

    def shape() -> json_shapes.Json:
        return json_shapes.simulation(simulated, notes, admitted.rejections)

    names = [workload.manifest.name for workload in simulated]
    write(Rendering(shape, lambda: names, draw), output, headers=headers)
    write_notes(notes)
