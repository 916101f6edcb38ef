"""`gpufleet summary`."""

from gpufleet_cli.input import fleet_files
from gpufleet_cli.input.fleet_files import FleetFiles
from gpufleet_cli.options.choices import OutputFormat
from gpufleet_cli.output import json_shapes, tables
from gpufleet_cli.output.terminal import Screen, write_json, write_notes
from gpufleet_operator.placement import Fleet, aggregate


def summary(sources: FleetFiles, output: OutputFormat) -> None:
    """Prints the aggregates of each node and of the fleet."""
    loaded = fleet_files.load(sources)
    nodes = {name: aggregate(Fleet.of([loaded.fleet.nodes[name]])) for name in sorted(loaded.fleet.nodes)}
    if output is OutputFormat.JSON:
        write_json(json_shapes.summary(nodes, aggregate(loaded.fleet), loaded.notes))
    else:
        tables.aggregates(Screen.of(), {**nodes, "all": aggregate(loaded.fleet)})
    write_notes(loaded.notes)
