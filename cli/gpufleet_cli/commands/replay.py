"""`gpufleet replay`."""

from functools import partial
from pathlib import Path

from gpufleet_cli.analysis import saved_decisions
from gpufleet_cli.analysis.fleet_edits import FleetEdits
from gpufleet_cli.exit_codes import NOT_PLACED, SUCCESS
from gpufleet_cli.options.choices import OutputFormat
from gpufleet_cli.output import json_shapes, tables
from gpufleet_cli.output.rendering import Rendering, write
from gpufleet_cli.output.terminal import Screen


def replay(path: Path, edits: FleetEdits, output: OutputFormat, *, headers: bool = True) -> int:
    """Prints the decisions made again and returns the exit code."""
    replayed = saved_decisions.replay(path, edits)

    def draw(screen: Screen, _wide: bool) -> None:
        tables.replay(screen, replayed, edited=bool(edits))

    names = [one.saved.request.name for one in replayed]
    write(Rendering(partial(json_shapes.replay, replayed), lambda: names, draw), output, headers=headers)
    succeeded = (not one.made.decision.unplaced if edits else one.same for one in replayed)
    return SUCCESS if all(succeeded) else NOT_PLACED
