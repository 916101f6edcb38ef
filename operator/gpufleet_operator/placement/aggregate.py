"""Aggregates of the fleet. A value that no device reports is None, never 0."""

from dataclasses import dataclass

import numpy as np

from gpufleet_operator.placement.fleet.columns import (
    HEALTHY,
    HELD,
    PRESENT,
    SHARED,
    UNKNOWN,
    UNKNOWN_CELSIUS,
    UNKNOWN_USED_MIB,
    USABLE,
)
from gpufleet_operator.placement.fleet.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Aggregates:
    """Aggregates over nodes with usable telemetry; `devices` counts all. None: no device reports the value."""

    devices: int
    healthy: int
    idle: int
    """Can be used as a whole now."""
    held: int
    """Held as a whole."""
    shared: int
    memory_total_mib: int | None
    memory_used_mib: int | None
    memory_available_mib: int | None
    """Usable minus promised or used memory, over healthy devices that are not held as a whole."""
    mean_utilization_percent: float | None
    mean_temperature_celsius: float | None
    power_milliwatts: int | None
    oldest_sample_seconds: float | None
    """Age of the oldest sample."""


def aggregate(fleet: Fleet) -> Aggregates:
    """Returns the aggregates of the fleet at its current version."""
    return fleet.memo.get(Aggregates, fleet.version, lambda: _aggregate(fleet), kept=1)


def _aggregate(fleet: Fleet) -> Aggregates:
    columns = fleet.columns
    present = (columns.state & PRESENT) != 0
    live = present & columns.fresh[:, None]
    states = [device for node in fleet.nodes.values() if node.stale_reason is None for device in node.devices]
    totals = [d.memory_total_mib for d in states if d.memory_total_mib is not None]
    used = [d.memory_used_mib for d in states if d.memory_used_mib is not None]
    busy = [d.utilization_percent for d in states if d.utilization_percent is not None]
    power = [d.power_milliwatts for d in states if d.power_milliwatts is not None]
    ages = [d.sample_age_seconds for d in states if d.sample_age_seconds is not None]
    memory = live & (columns.total_mib != UNKNOWN)
    open_ = memory & (columns.used_mib != UNKNOWN_USED_MIB) & ((columns.state & ~np.uint8(SHARED)) == USABLE)
    warm = live & (columns.temperature != UNKNOWN_CELSIUS)
    free = np.maximum(columns.total_mib - columns.used_mib, 0)
    return Aggregates(
        devices=int(present.sum()),
        healthy=int((live & ((columns.state & HEALTHY) != 0)).sum()),
        idle=int((live & (columns.state == USABLE)).sum()),
        held=int((live & ((columns.state & HELD) != 0)).sum()),
        shared=int((live & ((columns.state & SHARED) != 0)).sum()),
        memory_total_mib=sum(totals) if totals else None,
        memory_used_mib=sum(used) if used else None,
        memory_available_mib=int(free[open_].sum(dtype=np.int64)) if open_.any() else None,
        mean_utilization_percent=sum(busy) / len(busy) if busy else None,
        mean_temperature_celsius=float(columns.temperature[warm].mean()) if warm.any() else None,
        power_milliwatts=sum(power) if power else None,
        oldest_sample_seconds=max(ages) if ages else None,
    )
