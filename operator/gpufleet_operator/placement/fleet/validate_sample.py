"""Rejects impossible measurements before they reach a score."""

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from gpufleet_operator.placement.errors import InvalidSampleError
from gpufleet_operator.placement.model import DeviceState

ABSOLUTE_ZERO_CELSIUS = -273
COMPUTE_CAPABILITY = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
MAX_INT32 = 2**31 - 1
"""Largest memory, power or number of processes that the fleet's arrays hold."""

_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("index", 0, 1023),
    ("memory_total_mib", 0, MAX_INT32),
    ("memory_used_mib", 0, MAX_INT32),
    ("memory_reserved_mib", 0, MAX_INT32),
    ("utilization_percent", 0, 100),
    ("temperature_celsius", ABSOLUTE_ZERO_CELSIUS, 1000),
    ("power_milliwatts", 0, MAX_INT32),
    ("power_limit_milliwatts", 0, MAX_INT32),
    ("process_count", 0, MAX_INT32),
    ("numa_node", 0, 2**15 - 1),
    ("sharers", 0, 1000),
    ("promised_memory_mib", 0, MAX_INT32),
    ("promised_compute_percent", 0, 1000),
    ("reclaimed_memory_mib", -MAX_INT32, MAX_INT32),
    ("in_flight_memory_mib", 0, MAX_INT32),
    ("in_flight_compute_percent", 0, 1000),
    ("free_slots", 0, 1000),
    ("sample_age_seconds", 0, 1e12),
)
"""(field, lowest, highest)."""

_values: Callable[[DeviceState], tuple[Any, ...]] = attrgetter(*(name for name, _, _ in _BOUNDS))


def check_sample(node: str, device: DeviceState) -> None:
    """Raises InvalidSampleError with node, device and field if a value is impossible."""
    for value, (name, lowest, highest) in zip(_values(device), _BOUNDS, strict=True):
        if value is None:
            continue
        if not isinstance(value, (int, float)):
            raise InvalidSampleError(f"{node}/{device.uuid}: {name} is {value}, must be a number")
        if not lowest <= value <= highest:  # NaN fails every comparison, and each bound is finite
            raise InvalidSampleError(f"{node}/{device.uuid}: {name} is {value}, must be {lowest} to {highest:.0f}")
    capability = device.compute_capability
    if capability is not None and not (isinstance(capability, str) and COMPUTE_CAPABILITY.fullmatch(capability)):
        raise InvalidSampleError(f"{node}/{device.uuid}: compute_capability is {capability}, must be such as 9.0")
    total, used = device.memory_total_mib, device.memory_used_mib
    if total is not None and used is not None and used > total:
        raise InvalidSampleError(f"{node}/{device.uuid}: memory_used_mib is {used}, above memory_total_mib {total}")
