"""Observation of the agent's state at one time: the input of a status.

Most observations differ from the one that was written last only within dead bands. This module detects that without
building the status, which takes several times as long.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from gpufleet_agent.devices.base import Sample
from gpufleet_agent.overuse.container_usage import ContainerUsage
from gpufleet_agent.overuse.episodes import OveruseEpisode
from gpufleet_agent.overuse.memory_usage import HolderKey
from gpufleet_agent.overuse.memory_windows import ObservedMemory
from gpufleet_agent.podresources.holdings import Holders
from gpufleet_agent.publish.deadband import (
    TEMPERATURE_CELSIUS,
    UTILIZATION_POINTS,
    left_band,
    memory_band,
    power_band,
)
from gpufleet_agent.publish.payload import Status, build_status
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, NodeSnapshot
from gpufleet_api.names import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Arguments of `build_status`."""

    snapshot: NodeSnapshot
    holders: Holders
    generation: int | None
    observed_at: float
    agent_version: str
    boot_id: str | None
    transport: Transport | None
    processes_observed: bool
    overuse: tuple[OveruseEpisode, ...]
    usages: tuple[ContainerUsage, ...]
    memory: Mapping[HolderKey, ObservedMemory]
    withheld: Mapping[str, str]
    cordoned: Collection[str]

    def build(self) -> Status:
        return build_status(
            self.snapshot,
            self.holders,
            generation=self.generation,
            observed_at=self.observed_at,
            agent_version=self.agent_version,
            boot_id=self.boot_id,
            transport=self.transport,
            processes_observed=self.processes_observed,
            overuse=self.overuse,
            usages=self.usages,
            memory=self.memory,
            withheld=self.withheld,
            cordoned=self.cordoned,
        )

    def may_differ(self, written: "Observation", stale_seconds: float) -> bool:
        """Returns False only if `deadband.significance` of the two statuses is certainly NONE."""
        before, after = written.snapshot, self.snapshot
        if (
            before.driver_version != after.driver_version
            or len(before.devices) != len(after.devices)
            or self.withheld != written.withheld
            or (self.holders is not written.holders and self.holders != written.holders)
        ):
            return True
        return self._use_may_differ(written) or any(
            _device_may_differ(old, new, stale_seconds) for old, new in zip(before.devices, after.devices, strict=True)
        )

    def has_recurrence(self, written: "Observation") -> bool:
        """Returns whether a device with a fault or warning had another event since `written`."""
        return any(
            (after.health.reasons or after.health.warnings) and before.events != after.events
            for before, after in zip(written.snapshot.devices, self.snapshot.devices, strict=False)
        )

    def _use_may_differ(self, written: "Observation") -> bool:
        """Compares the use of holders."""
        if self.overuse != written.overuse and _exceeding(self.overuse) != _exceeding(written.overuse):
            return True
        if self.usages != written.usages and _differs(
            {(usage.uuid, usage.key): usage.utilization_percent for usage in written.usages},
            {(usage.uuid, usage.key): usage.utilization_percent for usage in self.usages},
            lambda old, new, _: left_band(old, new, UTILIZATION_POINTS),
        ):
            return True
        if self.memory == written.memory:
            return False
        totals = {device.info.uuid: _total_mib(device) for device in self.snapshot.devices}
        return _differs(written.memory, self.memory, lambda old, new, of: _memory_differs(old, new, totals.get(of[0])))


Key = TypeVar("Key")
Value = TypeVar("Value")


def _differs(
    before: Mapping[Key, Value], after: Mapping[Key, Value], differ: Callable[[Value, Value, Key], bool]
) -> bool:
    return before.keys() != after.keys() or any(differ(before[key], new, key) for key, new in after.items())


def _exceeding(episodes: tuple[OveruseEpisode, ...]) -> frozenset[HolderKey]:
    return frozenset(episode.usage.holder for episode in episodes)


def _memory_differs(old: ObservedMemory, new: ObservedMemory, total_mib: int | None) -> bool:
    band = memory_band(total_mib)
    return (
        old.since != new.since
        or left_band(old.used_mib, new.used_mib, band)
        or left_band(old.max_mib, new.max_mib, band)
    )


def _device_may_differ(before: DeviceSnapshot, after: DeviceSnapshot, stale_seconds: float) -> bool:
    if (before.info is not after.info and before.info != after.info) or before.health != after.health:
        return True
    old, new = before.sample, after.sample
    if old is None or new is None:
        return old is not new
    if (before.sample_age_seconds or 0.0) > stale_seconds >= (after.sample_age_seconds or 0.0):
        return True
    return old is not new and _sample_may_differ(old, new, memory_band(_total_mib(after)))


def _total_mib(device: DeviceSnapshot) -> int | None:
    """Returns the memory that the status has, of the sample or of the description."""
    total = None if device.sample is None else device.sample.memory_total_mib
    return device.info.memory_total_mib if total is None else total


def _sample_may_differ(old: Sample, new: Sample, memory: float) -> bool:
    return (
        old.memory_total_mib != new.memory_total_mib
        or old.mig_enabled != new.mig_enabled
        or bool(old.process_count) != bool(new.process_count)
        or left_band(old.memory_used_mib, new.memory_used_mib, memory)
        or left_band(old.memory_reserved_mib, new.memory_reserved_mib, memory)
        or left_band(old.utilization_percent, new.utilization_percent, UTILIZATION_POINTS)
        or left_band(old.memory_utilization_percent, new.memory_utilization_percent, UTILIZATION_POINTS)
        or left_band(old.temperature_celsius, new.temperature_celsius, TEMPERATURE_CELSIUS)
        or left_band(old.memory_temperature_celsius, new.memory_temperature_celsius, TEMPERATURE_CELSIUS)
        or left_band(
            old.power_milliwatts,
            new.power_milliwatts,
            power_band(new.power_limit_milliwatts, old.power_milliwatts),
        )
    )
