"""`gpufleet distribute`."""

from collections.abc import Sequence
from pathlib import Path

from gpufleet_cli.analysis import device_checks, item_shares
from gpufleet_cli.commands.sources import fleet_files
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.fleet_files import load
from gpufleet_cli.options.choices import DeviceCapacity, OutputFormat
from gpufleet_cli.output import json_shapes, tables
from gpufleet_cli.output.terminal import Screen, write_json, write_notes
from gpufleet_operator.placement.model import Request


def distribute(
    items: int,
    *,
    named: Sequence[str],
    fleet: Sequence[Path],
    by: DeviceCapacity | None,
    maxima: Sequence[str],
    now: str | None,
    stale_after: float | None,
    output: OutputFormat,
) -> None:
    """Divides the items among `named` capacities (`NAME=NUMBER`) or among the usable devices of a fleet."""
    if not (named or fleet):
        raise InputError("--capacity or --fleet is required")
    if named and fleet:
        raise InputError("--capacity and --fleet are mutually exclusive")
    if named and (by, now, stale_after) != (None, None, None):
        raise InputError("--by, --now and --stale-after require --fleet")
    notes: tuple[str, ...] = ()
    if named:
        capacities = item_shares.parse_capacities(named)
    else:
        loaded = load(fleet_files(fleet, None, None, now, stale_after))
        checks = device_checks.check_devices(loaded.fleet, Request("--fleet", (0,)))
        usable = [check.device for check in checks if check.reason is None]
        capacities = item_shares.capacities_of_devices(usable, by or DeviceCapacity.FREE_MEMORY)
        notes = (*item_shares.notes(device_checks.count_rejections(checks)), *loaded.notes)
    divided = item_shares.divide(items, capacities, maxima)
    if output is OutputFormat.JSON:
        write_json(json_shapes.shares(divided))
    else:
        tables.shares(Screen.of(), divided, capacities)
    write_notes(notes)
