"""Validates readings: returns a sample, or raises an error that names device and field.

Hardware reports nonsense at times: right after a driver starts, while a device falls off the bus, or as a sentinel. An
impossible number must not influence placements, so the whole reading is rejected. The values of a slow reading don't
depend on each other, and faults are among them: only the impossible value is dropped.
"""

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from gpufleet_agent.devices.base import (
    DeviceInfo,
    Facts,
    Number,
    ProcessMemory,
    ProcessUtilization,
    Reading,
    Sample,
    SlowReading,
)
from gpufleet_agent.sampling.errors import ImplausibleSampleError, InvalidReason

ABSOLUTE_ZERO_CELSIUS = -273
MAX_PID = 2**22
"""The kernel's own limit."""
NO_FACTS = Facts()


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The closed range of one quantity. The upper bounds are those of GPUTelemetry."""

    low: int
    high: int
    below: InvalidReason = InvalidReason.NEGATIVE
    above: InvalidReason = InvalidReason.TOO_LARGE


_MIB = _Bounds(0, 2**24)  # 16 TiB: the sum of 64 such devices is within GPUTelemetry's bound
_NUMA_NODE = _Bounds(0, 1023)
_PERCENT = _Bounds(0, 100, above=InvalidReason.OVER_100_PERCENT)
_MILLIWATTS = _Bounds(0, 2**31 - 1)
_CELSIUS = _Bounds(ABSOLUTE_ZERO_CELSIUS, 1000, below=InvalidReason.BELOW_ABSOLUTE_ZERO)
_MEGAHERTZ = _Bounds(0, 100_000)
_PROCESSES = _Bounds(0, 100_000)
_COUNTER = _Bounds(0, 2**53)

_READING: Mapping[str, _Bounds] = MappingProxyType(
    {
        "memory_total_mib": _MIB,
        "memory_used_mib": _MIB,
        "memory_reserved_mib": _MIB,
        "utilization_percent": _PERCENT,
        "memory_utilization_percent": _PERCENT,
        "temperature_celsius": _CELSIUS,
        "memory_temperature_celsius": _CELSIUS,
        "power_milliwatts": _MILLIWATTS,
        "power_limit_milliwatts": _MILLIWATTS,
        "sm_clock_mhz": _MEGAHERTZ,
        "memory_clock_mhz": _MEGAHERTZ,
    }
)
_SLOW_READING: Mapping[str, _Bounds] = MappingProxyType(
    {
        "process_count": _PROCESSES,
        "encoder_percent": _PERCENT,
        "decoder_percent": _PERCENT,
        "energy_millijoules": _COUNTER,
        "pcie_replays": _COUNTER,
        "ecc_corrected": _COUNTER,
        "ecc_uncorrected": _COUNTER,
        "remapped_correctable": _COUNTER,
        "remapped_uncorrectable": _COUNTER,
        "requested_power_limit_milliwatts": _MILLIWATTS,
    }
)
_FACTS = tuple(field.name for field in fields(Facts))
# Every reading of every device is checked: getting all attributes with one call takes half the time.
_reading_values = attrgetter(*_READING)
_facts_values = attrgetter(*_FACTS)


def validate(reading: Reading, *, registered: Container[str], taken_at: float, facts: Facts = NO_FACTS) -> Sample:
    """Returns a reading as a sample, with rounded numbers.

    Args:
        reading: Of the hardware.
        registered: UUIDs of the registered devices.
        taken_at: When it was read, in seconds since the epoch.
        facts: Of the last slow reading.

    Raises:
        ImplausibleSampleError: The first field that is impossible.
    """
    uuid = reading.uuid
    _check_registered(uuid, registered)
    values: dict[str, Any] = {
        name: _check(uuid, name, value, bounds)
        for (name, bounds), value in zip(_READING.items(), _reading_values(reading), strict=True)
    }
    total, used = values["memory_total_mib"], values["memory_used_mib"]
    if total is not None and used is not None and used > total:
        message = f"{used} MiB used of {total} MiB"
        raise ImplausibleSampleError(uuid, "memory_used_mib", InvalidReason.USED_OVER_TOTAL, message)
    values.update(zip(_FACTS, _facts_values(facts), strict=True))
    return Sample(
        uuid=uuid,
        taken_at=taken_at,
        throttle_reasons=reading.throttle_reasons,
        recovery_action=reading.recovery_action,
        **values,
    )


def validate_facts(
    reading: SlowReading, *, registered: Container[str]
) -> tuple[Facts, tuple[ImplausibleSampleError, ...]]:
    """Returns the possible values of a slow reading as facts, and an error for each value that is impossible.

    Raises:
        ImplausibleSampleError: The device is not registered.
    """
    _check_registered(reading.uuid, registered)
    dropped: list[ImplausibleSampleError] = []

    def checked(field: str, value: Number | None, bounds: _Bounds) -> int | None:
        try:
            return _check(reading.uuid, field, value, bounds)
        except ImplausibleSampleError as error:
            dropped.append(error)
            return None

    values: dict[str, Any] = {
        name: checked(name, getattr(reading, name), bounds) for name, bounds in _SLOW_READING.items()
    }
    processes = reading.processes
    impossible = next((process.pid for process in processes or () if not 0 < process.pid <= MAX_PID), None)
    if impossible is not None:
        # The driver's list has entries of another size, so none of them is known.
        message = f"{impossible} is not a PID: the driver's list has another format"
        dropped.append(ImplausibleSampleError(reading.uuid, "processes", InvalidReason.IMPLAUSIBLE_PID, message))
        processes = values["process_count"] = None
    if processes is not None:
        processes = tuple(
            ProcessMemory(process.pid, checked("processes", process.memory_mib, _MIB)) for process in processes
        )
    parts = None if processes is None else reading.process_utilization
    if parts is not None:
        parts = tuple(
            ProcessUtilization(part.pid, checked("process_utilization", part.percent, _PERCENT)) for part in parts
        )
    facts = Facts(
        row_remap_pending=reading.row_remap_pending,
        row_remap_failed=reading.row_remap_failed,
        page_retirement_pending=reading.page_retirement_pending,
        mig_enabled=reading.mig_enabled,
        processes=processes,
        process_utilization=parts,
        **values,
    )
    return facts, tuple(dropped)


def without_invalid(info: DeviceInfo) -> DeviceInfo:
    """Returns a description without impossible numbers: one of them would make the whole status invalid."""
    return replace(
        info,
        memory_total_mib=_within(_MIB, info.memory_total_mib),
        numa_node=_within(_NUMA_NODE, info.numa_node),
    )


def _within(bounds: _Bounds, value: int | None) -> int | None:
    return value if value is not None and bounds.low <= value <= bounds.high else None


def _check_registered(uuid: str, registered: Container[str]) -> None:
    if uuid not in registered:
        raise ImplausibleSampleError(uuid, "uuid", InvalidReason.UNKNOWN_DEVICE, "no such device is registered")


def _check(uuid: str, field: str, value: Number | None, bounds: _Bounds) -> int | None:
    if value is None:
        return None
    if bounds.low <= value <= bounds.high:  # false for NaN and infinity
        return round(value)
    if math.isnan(value):
        raise ImplausibleSampleError(uuid, field, InvalidReason.NOT_A_NUMBER, "is not a number")
    if math.isinf(value):
        raise ImplausibleSampleError(uuid, field, InvalidReason.INFINITE, f"is {value}")
    if value < bounds.low:
        raise ImplausibleSampleError(uuid, field, bounds.below, f"{value} is below {bounds.low}")
    raise ImplausibleSampleError(uuid, field, bounds.above, f"{value} is above {bounds.high}")
