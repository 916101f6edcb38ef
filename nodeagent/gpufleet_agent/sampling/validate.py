"""From what the hardware said to a sample that can be believed, or a refusal that names device and field.

Hardware does answer nonsense: right after a driver starts, while a device falls off the bus, or as a sentinel that
leaked. A number that can't be true must not move a placement, so the whole sample is refused.
"""

import math
from collections.abc import Container
from dataclasses import dataclass

from gpufleet_agent.devices.base import Number, Reading, Sample
from gpufleet_agent.sampling.errors import Invalid, InvalidSampleError

ABSOLUTE_ZERO_CELSIUS = -273


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The closed range of one quantity, and what lying outside means. The upper ends are those of GPUTelemetry."""

    low: int
    high: int
    below: Invalid = Invalid.NEGATIVE
    above: Invalid = Invalid.TOO_LARGE


_MIB = _Bounds(0, 2**40)
_PERCENT = _Bounds(0, 100, above=Invalid.OVER_100_PERCENT)
_MILLIWATTS = _Bounds(0, 2**31 - 1)
_CELSIUS = _Bounds(ABSOLUTE_ZERO_CELSIUS, 1000, below=Invalid.BELOW_ABSOLUTE_ZERO)
_PROCESSES = _Bounds(0, 100_000)


def validate(
    reading: Reading, *, registered: Container[str], taken_at: float, process_count: int | None = None
) -> Sample:
    """Turn a reading into a sample; fractions are rounded.

    Args:
        reading: What the hardware answered.
        registered: UUIDs of the devices that are registered.
        taken_at: When it answered, in seconds since the epoch.
        process_count: From the last slow reading, already validated.

    Raises:
        InvalidSampleError: Of the first field that can't be true.
    """
    uuid = reading.uuid
    if uuid not in registered:
        raise InvalidSampleError(uuid, "uuid", Invalid.UNKNOWN_DEVICE, "no such device is registered")
    total = _check(uuid, "memory_total_mib", reading.memory_total_mib, _MIB)
    used = _check(uuid, "memory_used_mib", reading.memory_used_mib, _MIB)
    if total is not None and used is not None and used > total:
        message = f"{used} MiB used of {total} MiB"
        raise InvalidSampleError(uuid, "memory_used_mib", Invalid.USED_OVER_TOTAL, message)
    return Sample(
        uuid=uuid,
        taken_at=taken_at,
        memory_total_mib=total,
        memory_used_mib=used,
        utilization_percent=_check(uuid, "utilization_percent", reading.utilization_percent, _PERCENT),
        memory_utilization_percent=_check(
            uuid, "memory_utilization_percent", reading.memory_utilization_percent, _PERCENT
        ),
        temperature_celsius=_check(uuid, "temperature_celsius", reading.temperature_celsius, _CELSIUS),
        power_milliwatts=_check(uuid, "power_milliwatts", reading.power_milliwatts, _MILLIWATTS),
        power_limit_milliwatts=_check(uuid, "power_limit_milliwatts", reading.power_limit_milliwatts, _MILLIWATTS),
        process_count=process_count,
    )


def validate_process_count(uuid: str, count: Number | None) -> int | None:
    """The process count of a slow reading.

    Raises:
        InvalidSampleError: It can't be true.
    """
    return _check(uuid, "process_count", count, _PROCESSES)


def _check(uuid: str, field: str, value: Number | None, bounds: _Bounds) -> int | None:
    if value is None:
        return None
    if math.isnan(value):
        raise InvalidSampleError(uuid, field, Invalid.NOT_A_NUMBER, "is not a number")
    if math.isinf(value):
        raise InvalidSampleError(uuid, field, Invalid.INFINITE, f"is {value}")
    if value < bounds.low:
        raise InvalidSampleError(uuid, field, bounds.below, f"{value} is below {bounds.low}")
    if value > bounds.high:
        raise InvalidSampleError(uuid, field, bounds.above, f"{value} is above {bounds.high}")
    return round(value)
