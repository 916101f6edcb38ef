"""`gpufleet distribute`."""

from collections.abc import Sequence
from functools import partial

from gpufleet_cli.analysis import device_checks, item_shards
from gpufleet_cli.commands.sources import fleet_documents
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.fleet_files import load
from gpufleet_cli.options.choices import DeviceCapacity, OutputFormat
from gpufleet_cli.options.target import Target
from gpufleet_cli.output import json_shapes, tables
from gpufleet_cli.output.rendering import Rendering, write
from gpufleet_cli.output.terminal import Screen, write_notes
from gpufleet_operator.placement.model import Request


def distribute(
    items: int,
    *,
    named: Sequence[str],
    target: Target,
    by: DeviceCapacity | None,
    maxima: Sequence[str],
    now: str | None,
    stale_after: float | None,
    output: OutputFormat,
    headers: bool = True,
) -> None:
    """Divides the items among `named` capacities (`NAME=NUMBER`) or among the usable devices of a fleet."""
    if named and target.saved:
        raise InputError("--capacity and --from are mutually exclusive")
    if named and (by, now, stale_after) != (None, None, None):
        raise InputError("--by, --now and --stale-after may not be given with --capacity")
    notes: tuple[str, ...] = ()
    if named:
        capacities = item_shards.parse_capacities(named)
    else:
        loaded = load(fleet_documents(target, now, stale_after))
        checks = device_checks.check_devices(loaded.fleet, Request("fleet", (0,)))
        usable = [check.device for check in checks if check.reason is None]
        capacities = item_shards.capacities_of_devices(usable, by or DeviceCapacity.FREE_MEMORY)
        notes = (*item_shards.notes(device_checks.count_rejections(checks)), *loaded.notes)
    divided = item_shards.divide(items, capacities, maxima)

    def draw(screen: Screen, _wide: bool) -> None:
        tables.shards(screen, divided, capacities)

    write(Rendering(partial(json_shapes.shards, divided), lambda: list(divided.items), draw), output, headers=headers)
    write_notes(notes)
