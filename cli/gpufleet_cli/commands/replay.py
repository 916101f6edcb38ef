"""`gpufleet replay`."""

from pathlib import Path

from gpufleet_cli.analysis import saved_decisions
from gpufleet_cli.analysis.fleet_edits import FleetEdits
from gpufleet_cli.exit_codes import NOT_PLACED, SUCCESS
from gpufleet_cli.options.choices import OutputFormat
from gpufleet_cli.output import json_shapes, tables
from gpufleet_cli.output.terminal import Screen, write_json


def replay(path: Path, edits: FleetEdits, output: OutputFormat) -> int:
    """Prints the decisions made again and returns the exit code."""
    replayed = saved_decisions.replay(path, edits)
    if output is OutputFormat.JSON:
        write_json(json_shapes.replay(replayed))
    else:
        tables.replay(Screen.of(), replayed, edited=bool(edits))
    succeeded = (not one.made.decision.unplaced if edits else one.same for one in replayed)
    return SUCCESS if all(succeeded) else NOT_PLACED
