"""Refuses measurements that can't be true, before any of them reaches a score."""

import math
from collections.abc import Iterator

from gpufleet_operator.placement.errors import InvalidSampleError
from gpufleet_operator.placement.model import DeviceState

ABSOLUTE_ZERO_CELSIUS = -273
_MOST_MEMORY_MIB = 2**31 - 1
_MOST_MILLIWATTS = 2**31 - 1
_MOST_CELSIUS = 1000
_MOST_AGE_SECONDS = 1e9


def _bounds(device: DeviceState) -> Iterator[tuple[str, float | None, float, float]]:
    """(field, value, lowest, highest) of every measurement."""
    yield "memory_total_mib", device.memory_total_mib, 0, _MOST_MEMORY_MIB
    yield "memory_used_mib", device.memory_used_mib, 0, _MOST_MEMORY_MIB
    yield "utilization_percent", device.utilization_percent, 0, 100
    yield "temperature_celsius", device.temperature_celsius, ABSOLUTE_ZERO_CELSIUS, _MOST_CELSIUS
    yield "power_milliwatts", device.power_milliwatts, 0, _MOST_MILLIWATTS
    yield "power_limit_milliwatts", device.power_limit_milliwatts, 0, _MOST_MILLIWATTS
    yield "process_count", device.process_count, 0, _MOST_MEMORY_MIB
    yield "promised_memory_mib", device.promised_memory_mib, 0, _MOST_MEMORY_MIB
    yield "promised_compute_percent", device.promised_compute_percent, 0, 100
    yield "sample_age_seconds", device.sample_age_seconds, 0, _MOST_AGE_SECONDS


def check_sample(node: str, device: DeviceState) -> None:
    """Raises InvalidSampleError that names node, device and field; returns when every value can be true."""
    for name, value, lowest, highest in _bounds(device):
        if value is None:
            continue
        if not math.isfinite(value) or not lowest <= value <= highest:
            raise InvalidSampleError(f"{node}/{device.uuid}: {name} is {value}, must be {lowest} to {highest:.0f}")
    total, used = device.memory_total_mib, device.memory_used_mib
    if total is not None and used is not None and used > total:
        raise InvalidSampleError(f"{node}/{device.uuid}: memory_used_mib is {used}, above memory_total_mib {total}")
