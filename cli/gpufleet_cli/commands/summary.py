"""`gpufleet summary`."""

from functools import partial

from gpufleet_cli.input import fleet_files
from gpufleet_cli.input.fleet_files import FleetDocuments
from gpufleet_cli.options.choices import OutputFormat
from gpufleet_cli.output import json_shapes, tables
from gpufleet_cli.output.rendering import Rendering, write
from gpufleet_cli.output.terminal import Screen, write_notes
from gpufleet_operator.placement import Fleet, aggregate


def summary(objects: FleetDocuments, output: OutputFormat, *, headers: bool = True) -> None:
    """Prints the aggregates of each node and of the fleet."""
    loaded = fleet_files.load(objects)
    nodes = {name: aggregate(Fleet.of([loaded.fleet.nodes[name]])) for name in sorted(loaded.fleet.nodes)}

    def draw(screen: Screen, _wide: bool) -> None:
        tables.aggregates(screen, {**nodes, "all": aggregate(loaded.fleet)})

    shape = partial(json_shapes.summary, nodes, aggregate(loaded.fleet), loaded.notes)
    write(Rendering(shape, lambda: list(nodes), draw), output, headers=headers)
    write_notes(loaded.notes)
