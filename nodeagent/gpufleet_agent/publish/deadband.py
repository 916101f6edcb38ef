"""Decides whether the difference between two statuses is worth a write."""

from datetime import datetime
from enum import IntEnum
from functools import lru_cache
from typing import Any

from gpufleet_agent.publish.payload import Status
from gpufleet_common import timestamps

UTILIZATION_POINTS = 10
MEMORY_MIB = 256
_MEMORY_RATIO = 0.02
"""Of the device's memory, if that is less than `MEMORY_MIB`."""
TEMPERATURE_CELSIUS = 3
_POWER_RATIO = 0.10
"""Of the device's power limit, or of the last value if the limit is unknown: idle power varies by 10 %."""
STALE_SECONDS = 5.0
"""Age above which a sample may keep the operator from placing on the device. Longer if samples are taken less often,
see `stale_after`."""


class Significance(IntEnum):
    """How urgent a difference is."""

    NONE = 0
    CHANGE = 1
    """A reading left its dead band; one container holds the whole device."""
    PICKABLE = 2
    """A reading left its dead band; the device could be placed on, and a workload may wait for that."""
    URGENT = 3
    """Devices, health, holders or fresh samples changed: the operator waits for these."""


_DESCRIPTION_FIELDS = (
    "uuid",
    "index",
    "model",
    "computeCapability",
    "pciBusId",
    "numaNode",
    "nvlinkPeers",
    "memoryTotalMiB",
    "memoryModel",
    "migMode",
    "withheld",
)


_VARYING = frozenset({"overuse", "utilizationPercent", "memoryUsedMiB", "memoryUsedMaxMiB", "observedSince"})
"""Fields of a holder."""


def stale_after(sample_seconds: float) -> float:
    """Returns the age in seconds above which a sample is stale, if one is taken every `sample_seconds`.

    Between two samples the age rises to `sample_seconds` and falls again; that is not a change.
    """
    return max(STALE_SECONDS, 2 * sample_seconds)


def significance(published: Status, current: Status, stale_seconds: float = STALE_SECONDS) -> Significance:
    """Compares two statuses, but for the generation of the reservations: see `due_cause`.

    Args:
        published: The status as last written.
        current: The status as of now.
        stale_seconds: Age above which a sample is stale.
    """
    if _node_facts(published) != _node_facts(current):
        return Significance.URGENT
    pairs = list(zip(published["devices"], current["devices"], strict=True))
    if any(_facts(before) != _facts(after) for before, after in pairs):
        return Significance.URGENT
    # After a stuck driver or a frozen process the readings may be equal; that they are fresh again is the change.
    if any(sample_age(published, before) > stale_seconds >= sample_age(current, after) for before, after in pairs):
        return Significance.URGENT
    moved = [after for before, after in pairs if _left_dead_band(before, after)]
    if any(_pickable(device) for device in moved):
        return Significance.PICKABLE
    return Significance.CHANGE if moved else Significance.NONE


def _node_facts(status: Status) -> tuple[Any, ...]:
    return status.get("driverVersion"), len(status["devices"])


def _facts(device: Status) -> tuple[Any, ...]:
    steady = tuple(map(device.get, _DESCRIPTION_FIELDS))
    return steady, device["health"]["state"], _codes(device, "reasons"), _held(device)


def _held(device: Status) -> list[Status]:
    # What a holder uses varies, and how far it exceeds its reservation; only whether it does counts.
    return [
        {**{name: value for name, value in holder.items() if name not in _VARYING}, "overuse": "overuse" in holder}
        for holder in device.get("allocatedTo", ())
    ]


def _codes(device: Status, which: str) -> list[str]:
    return [reason["code"] for reason in device["health"].get(which, ())]


def _pickable(device: Status) -> bool:
    return all(holder.get("shared", False) for holder in device.get("allocatedTo", ()))


def sample_age(status: Status, device: Status) -> float:
    """Returns the age in seconds that a device's sample had when its status was built; 0 without a sample."""
    if "sampleTime" not in device:
        return 0.0
    return (_parse(status["observedAt"]) - _parse(device["sampleTime"])).total_seconds()


@lru_cache(maxsize=128)
def _parse(text: str) -> datetime:
    """Parses a timestamp. Those of the published status are compared every second."""
    return timestamps.parse(text)


def readings_left_dead_band(before: Status, after: Status) -> bool:
    """Returns whether a reading of a device moved by at least its dead band, appeared or disappeared."""
    memory = memory_band(after.get("memoryTotalMiB"))
    power = power_band(after.get("powerLimitMilliwatts"), before.get("powerMilliwatts"))
    return (
        _moved(before, after, "utilizationPercent", UTILIZATION_POINTS)
        or _moved(before, after, "memoryUtilizationPercent", UTILIZATION_POINTS)
        or _moved(before, after, "memoryUsedMiB", memory)
        or _moved(before, after, "memoryReservedMiB", memory)
        or _moved(before, after, "temperatureCelsius", TEMPERATURE_CELSIUS)
        or _moved(before, after, "memoryTemperatureCelsius", TEMPERATURE_CELSIUS)
        or _moved(before, after, "powerMilliwatts", power)
    )


def _left_dead_band(before: Status, after: Status) -> bool:
    memory = memory_band(after.get("memoryTotalMiB"))
    return (
        readings_left_dead_band(before, after)
        or _codes(before, "warnings") != _codes(after, "warnings")
        # Only whether there are processes counts, not how many.
        or bool(before.get("processCount")) != bool(after.get("processCount"))
        or any(
            _holder_left_dead_band(old, new, memory)
            for old, new in zip(before.get("allocatedTo", ()), after.get("allocatedTo", ()), strict=False)
        )
    )


def _holder_left_dead_band(before: Status, after: Status, memory: float) -> bool:
    return (
        _moved(before, after, "utilizationPercent", UTILIZATION_POINTS)
        or _moved(before, after, "memoryUsedMiB", memory)
        or _moved(before, after, "memoryUsedMaxMiB", memory)
        or before.get("observedSince") != after.get("observedSince")
    )


def _moved(before: Status, after: Status, field: str, band: float) -> bool:
    return left_band(before.get(field), after.get(field), band)


def memory_band(total_mib: int | None) -> float:
    """Returns the dead band in MiB of memory on a device of this size."""
    return MEMORY_MIB if total_mib is None else min(MEMORY_MIB, _MEMORY_RATIO * total_mib)


def power_band(limit_milliwatts: int | None, last_milliwatts: int | None) -> float:
    """Returns the dead band in mW, by the device's limit or, without one, by the value before."""
    return _POWER_RATIO * ((last_milliwatts or 0) if limit_milliwatts is None else limit_milliwatts)


def left_band(old: int | None, new: int | None, band: float) -> bool:
    """Returns whether a value moved by at least `band`, appeared or disappeared."""
    if old is None or new is None:
        return old is not new
    return old != new and abs(new - old) >= band
