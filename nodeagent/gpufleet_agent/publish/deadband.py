"""Which difference between two statuses is worth a write."""

from enum import IntEnum
from typing import Any

from gpufleet_agent.publish.payload import Status
from gpufleet_common import timestamps

UTILIZATION_POINTS = 10
MEMORY_MIB = 256
MEMORY_SHARE = 0.02
"""Of the device's memory, where that is less than `MEMORY_MIB`."""
TEMPERATURE_CELSIUS = 3
POWER_SHARE = 0.10
"""Of the device's power limit, or of the last value where the limit isn't known: idle power flickers by 10 %."""
STALE_SECONDS = 5.0
"""A sample this much older than the status that carries it holds the device back from being picked, sooner or later.
Unless samples are taken more rarely: see `stale_after`."""


class Significance(IntEnum):
    """How much a difference matters."""

    NONE = 0
    CHANGE = 1
    """A reading of a device that one container holds as a whole left its dead band."""
    PICKABLE = 2
    """The same for a device that could be picked: a workload may wait for just that."""
    URGENT = 3
    """The operator waits for it: devices, health, holders, fresh samples, or the reservations that the agent read."""


_STEADY = (
    "uuid",
    "index",
    "model",
    "computeCapability",
    "pciBusId",
    "numaNode",
    "nvlinkPeers",
    "memoryTotalMiB",
    "migMode",
    "withheld",
)


def stale_after(sample_seconds: float) -> float:
    """From which age on a sample is old, in seconds, where one is taken every `sample_seconds`.

    Between two samples the age goes up to `sample_seconds`, and that it falls again is no news.
    """
    return max(STALE_SECONDS, 2 * sample_seconds)


def significance(published: Status, current: Status, old_seconds: float = STALE_SECONDS) -> Significance:
    """Compare the status as last written with the one that would be written now.

    Args:
        published: The former.
        current: The latter.
        old_seconds: From which age on a sample is old.
    """
    if _node_facts(published) != _node_facts(current):
        return Significance.URGENT
    pairs = list(zip(published["devices"], current["devices"], strict=True))
    if any(_facts(before) != _facts(after) for before, after in pairs):
        return Significance.URGENT
    # After a stuck driver or a frozen process the readings may be what they were: that they are new is the news.
    if any(_age(published, before) > old_seconds >= _age(current, after) for before, after in pairs):
        return Significance.URGENT
    moved = [after for before, after in pairs if _left_dead_band(before, after)]
    if any(_pickable(device) for device in moved):
        return Significance.PICKABLE
    return Significance.CHANGE if moved else Significance.NONE


def _node_facts(status: Status) -> tuple[Any, ...]:
    return status.get("assignmentsGeneration"), status.get("driverVersion"), len(status["devices"])


def _facts(device: Status) -> tuple[Any, ...]:
    steady = tuple(map(device.get, _STEADY))
    return steady, device["health"]["state"], _codes(device, "reasons"), _held(device)


def _held(device: Status) -> list[Status]:
    # How much a holder uses beyond its promise goes up and down; that it does is the news.
    return [{**holder, "overuse": "overuse" in holder} for holder in device.get("allocatedTo", ())]


def _codes(device: Status, which: str) -> list[str]:
    return [reason["code"] for reason in device["health"].get(which, ())]


def _pickable(device: Status) -> bool:
    return all(holder.get("shared", False) for holder in device.get("allocatedTo", ()))


def _age(status: Status, device: Status) -> float:
    if "sampleTime" not in device:
        return 0.0
    age = timestamps.parse(status["observedAt"]) - timestamps.parse(device["sampleTime"])
    return age.total_seconds()


def _left_dead_band(before: Status, after: Status) -> bool:
    total, limit = after.get("memoryTotalMiB"), after.get("powerLimitMilliwatts")
    memory_band = MEMORY_MIB if total is None else min(MEMORY_MIB, MEMORY_SHARE * total)
    power_band = POWER_SHARE * (before.get("powerMilliwatts", 0) if limit is None else limit)
    return (
        _moved(before, after, "utilizationPercent", UTILIZATION_POINTS)
        or _moved(before, after, "memoryUtilizationPercent", UTILIZATION_POINTS)
        or _moved(before, after, "memoryUsedMiB", memory_band)
        or _moved(before, after, "temperatureCelsius", TEMPERATURE_CELSIUS)
        or _moved(before, after, "memoryTemperatureCelsius", TEMPERATURE_CELSIUS)
        or _moved(before, after, "powerMilliwatts", power_band)
        or _codes(before, "warnings") != _codes(after, "warnings")
        # That the last process has left the device, or the first one has come, counts; how many there are doesn't.
        or bool(before.get("processCount")) != bool(after.get("processCount"))
    )


def _moved(before: Status, after: Status, field: str, band: float) -> bool:
    old, new = before.get(field), after.get(field)
    if old is None or new is None:
        return old is not new
    return bool(old != new and abs(new - old) >= band)
