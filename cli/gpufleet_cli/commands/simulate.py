"""`gpufleet simulate`."""

from collections.abc import Sequence
from pathlib import Path

from gpufleet_cli.analysis import saved_decisions, simulation
from gpufleet_cli.analysis.fleet_edits import FleetEdits
from gpufleet_cli.commands.sources import check_stdin
from gpufleet_cli.exit_codes import NOT_PLACED, SUCCESS
from gpufleet_cli.input import fleet_files, manifests
from gpufleet_cli.input.fleet_files import FleetFiles
from gpufleet_cli.input.manifests import ClusterRules
from gpufleet_cli.options.choices import OutputFormat
from gpufleet_cli.output import json_shapes, tables
from gpufleet_cli.output.terminal import Screen, write_json, write_notes
from gpufleet_operator.placement.explain.diagnosis import quantity


def simulate(
    files: Sequence[Path],
    sources: FleetFiles,
    rules: ClusterRules,
    *,
    edits: FleetEdits,
    save: Path | None,
    output: OutputFormat,
) -> int:
    """Prints the placements and returns the exit code."""
    check_stdin(files, sources)
    requested = manifests.load(files, rules)
    workloads = requested.workloads
    extended = {name for workload in workloads for name in workload.request.pod.extended}
    loaded = fleet_files.load(sources, extended)
    edits.apply(loaded.fleet)
    simulated = simulation.simulate(loaded.fleet, workloads, loaded.pods, nodes_known=loaded.nodes_known)
    notes = (
        *requested.notes,
        *fleet_files.unchecked(sources),
        *simulation.unchecked([workload.request for workload in workloads], loaded.nodes_known),
        *simulation.unchecked_pods(
            workloads, nodes_known=loaded.nodes_known, pods_known=bool(sources.nodes and sources.pods)
        ),
        *loaded.notes,
    )
    if save is not None:
        saved_decisions.save(save, [workload.record for workload in simulated])
        notes = (*notes, f"{quantity(len(simulated), 'decision')} saved to {save} (see gpufleet replay)")
    if output is OutputFormat.JSON:
        write_json(json_shapes.simulation(simulated, notes))
    else:
        tables.simulation(Screen.of(), simulated)
    write_notes(notes)
    return SUCCESS if all(workload.placed for workload in simulated) else NOT_PLACED
