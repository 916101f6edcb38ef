"""State of one device of the node: readings, window, health, counters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceInfo,
    Facts,
    Reading,
    RecoveryAction,
    Sample,
    ThrottleReason,
)
from gpufleet_agent.sampling.conditions.contained_errors import ContainedErrors
from gpufleet_agent.sampling.conditions.recovery_actions import RECOVERY_THRESHOLDS, observe_action
from gpufleet_agent.sampling.conditions.thresholds import (
    ECC_CONTAINED,
    Observation,
    contained_count,
    observe_facts,
    observe_throttling,
    unreported,
)
from gpufleet_agent.sampling.health import DeviceHealth
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, EventCount, HealthSnapshot
from gpufleet_agent.sampling.validate import NO_FACTS
from gpufleet_agent.sampling.window import SampleWindow


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment by both clocks. Windows and ages use the monotonic one."""

    monotonic: float
    wall: float
    """Seconds since the epoch."""


@dataclass(slots=True)
class DeviceRecord:
    """One device. Its owner locks. Methods that change the health return whether the snapshot changed."""

    info: DeviceInfo
    health: DeviceHealth
    window: SampleWindow
    sample: Sample | None = None
    sampled_at: float = 0.0
    facts: Facts = NO_FACTS
    facts_at: float = 0.0
    listed: bool = True
    """False if the driver does not list it, or there is no driver."""
    events: dict[tuple[str, int], EventCount] = field(default_factory=dict)
    contained: ContainedErrors = field(default_factory=ContainedErrors)

    def fresh_facts(self, now: Instant, max_age_seconds: float) -> Facts:
        """Returns the facts of the last slow reading; none if it is too old."""
        return self.facts if now.monotonic - self.facts_at <= max_age_seconds else NO_FACTS

    def observe(self, reading: Reading, now: Instant) -> bool:
        """Records the conditions that a reading shows, whether or not its values are possible."""
        return self.health.observe(_observe(reading.throttle_reasons, reading.recovery_action), now.wall)

    def add_sample(self, sample: Sample, now: Instant) -> bool:
        self.sample = sample
        # Threads may get here in another order than they read the clock.
        self.sampled_at = max(now.monotonic, self.sampled_at)
        self.window.append(sample, self.sampled_at)
        return self.health.good_read(now.monotonic, now.wall, sample.recovery_action)

    def add_facts(self, facts: Facts, now: Instant, begun: float) -> bool:
        self.facts, self.facts_at = facts, now.monotonic
        self.health.good_slow_read()
        return self.health.observe(observe_facts(facts, self.contained.over(facts, begun)), now.wall)

    def add_event(self, event: DeviceEvent, now: Instant) -> bool:
        """Counts an event, and records it in the health if it is a fault or a warning."""
        key = (event.kind, event.code)
        before = self.events.get(key)
        self.events[key] = EventCount(event.kind, event.code, 1 if before is None else before.count + 1, now.wall)
        if not event.fault and event.warning is None:
            return False
        return self.health.event(event, now.monotonic, now.wall)

    def acknowledge(self, until: float, now: Instant) -> bool:
        """Ends the faults that an administrator acknowledged, see `DeviceHealth.acknowledge`."""
        codes = unreported(self.facts)
        if self.sample is None or self.sample.recovery_action is None:
            codes |= RECOVERY_THRESHOLDS.keys()
        return self.health.acknowledge(until, now.monotonic, now.wall, codes)

    def restore(self, saved: HealthSnapshot, reported: float, now: Instant, last: Mapping[str, float]) -> bool:
        """Restores what an earlier process saved, see `DeviceHealth.restore`."""
        for warning in saved.warnings:
            if warning.code == ECC_CONTAINED.code:
                self.contained.restore(contained_count(warning.message))
        return self.health.restore(saved, reported, now.monotonic, now.wall, last)

    def snapshot(self, now: Instant) -> DeviceSnapshot:
        return DeviceSnapshot(
            info=self.info,
            health=self.health.snapshot(),
            sample=self.sample,
            sample_age_seconds=None if self.sample is None else now.monotonic - self.sampled_at,
            window=self.window.stats(now.monotonic),
            events=tuple(self.events[key] for key in sorted(self.events)),
        )


@lru_cache(maxsize=64)
def _observe(reasons: frozenset[ThrottleReason] | None, action: RecoveryAction | None) -> tuple[Observation, ...]:
    """Returns the conditions that a reading shows. They are equal for most readings of all devices."""
    return (*observe_throttling(reasons), *observe_action(action))
