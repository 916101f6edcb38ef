"""Decides whether the report that was written last still holds, so that a renewal of the Lease may confirm it.

Whoever reads a confirmed report takes all of it as of the renewal. So more must be unchanged than for a report that is
not written, except what no decision depends on: clocks, throttle reasons, counts of ECC errors, and the exact number of
processes may be as old as the report.
"""

from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.publish.deadband import (
    Significance,
    readings_left_dead_band,
    sample_age,
    significance,
)
from gpufleet_agent.publish.payload import Status

_STATISTICS = ("mean", "max", "p95")
_READINGS = ("utilizationPercent", "memoryUsedMiB", "temperatureCelsius", "powerMilliwatts")
"""Of which the window has statistics."""
_LIMITS = ("memoryTotalMiB", "powerLimitMilliwatts")
"""On which dead bands depend."""
_STEADY_FIELDS = ("health", "rowRemap", "pageRetirementPending")
"""Of a device; equal in addition to what `significance` compares."""


def still_holds(
    published: Status, current: Status, telemetry: TelemetryObject, stale_seconds: float, heartbeat_seconds: float
) -> bool:
    """Returns whether a report may be confirmed.

    Args:
        published: The report.
        current: The status as of now.
        telemetry: The object as last read. Its UID must be that of the object with the report.
        stale_seconds: Age above which a sample is stale.
        heartbeat_seconds: Interval of heartbeats, and the largest age of a sample in a report that may be confirmed:
            readers add it to the age of the renewal.
    """
    pairs = list(zip(published["devices"], current["devices"], strict=False))
    return (
        # Another process may have written since, for example the previous agent at its end.
        telemetry.status.get("observedAt") == published["observedAt"]
        and telemetry.generation == published.get("assignmentsGeneration")
        and significance(published, current, stale_seconds) is Significance.NONE
        and published.get("processesObserved") == current.get("processesObserved")
        # A cordon ends by time, without another generation.
        and _available(published) == _available(current)
        and _is_fresh(current, stale_seconds)
        and _is_fresh(published, min(stale_seconds, heartbeat_seconds))
        and all(before.get(field) == after.get(field) for before, after in pairs for field in _STEADY_FIELDS)
        and not any(_statistics_left_dead_band(before, after) for before, after in pairs)
        and not any(_is_watched(holder) for device in published["devices"] for holder in _holders(device))
        and _reserved(telemetry) <= _held(published)
    )


def _available(status: Status) -> tuple[object, object]:
    summary = status["summary"]
    return summary["state"], summary["free"]


def _is_fresh(status: Status, stale_seconds: float) -> bool:
    return all(sample_age(status, device) <= stale_seconds for device in status["devices"])


def _holders(device: Status) -> list[Status]:
    found: list[Status] = device.get("allocatedTo", [])
    return found


def _is_watched(holder: Status) -> bool:
    """Returns whether readers expect a holder at each heartbeat: what it uses, or whether it still runs."""
    return bool(holder.get("shared") or holder.get("terminating"))


def _reserved(telemetry: TelemetryObject) -> set[tuple[str, str | None]]:
    """Returns the reserved devices with the UIDs of their pods."""
    return {(uuid, each.pod_uid) for each in telemetry.assignments for uuid in each.devices}


def _held(status: Status) -> set[tuple[str, str | None]]:
    return {(device["uuid"], holder.get("podUID")) for device in status["devices"] for holder in _holders(device)}


def _statistics_left_dead_band(before: Status, after: Status) -> bool:
    """Returns whether a statistic of the window left the dead band of its reading."""
    return any(readings_left_dead_band(_statistic(before, name), _statistic(after, name)) for name in _STATISTICS)


def _statistic(device: Status, name: str) -> Status:
    """Returns a device with this statistic of its window in place of each reading."""
    window = device.get("window", {})
    values = {reading: window[reading][name] for reading in _READINGS if reading in window}
    return {**{limit: device.get(limit) for limit in _LIMITS}, **values}
