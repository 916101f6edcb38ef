"""What a device's readings say about its health for as long as it lasts: errors of its memory, forced slow clocks.

Memory that is damaged is a fault. Slow clocks and repairs that wait for a reset are not: the device does what it is
asked to, so they are told and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from gpufleet_agent.devices.base import Facts, Recovery, Sample, ThrottleReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """One such condition."""

    code: str
    fault: bool
    """False: a warning."""
    recovery: Recovery
    rise: int
    """Readings in a row that must show it before it stands."""
    fall: int
    """Readings in a row that must deny it before it is gone."""
    message: str
    """With `{count}` where `shown` counts."""


ECC_UNCORRECTED = Threshold(
    code="EccUncorrected",
    fault=True,
    recovery=Recovery.RESET,
    rise=1,
    fall=3,
    message="uncorrected memory errors since the last reset: {count}",
)
ROW_REMAP_FAILED = Threshold(
    code="RowRemapFailed",
    fault=True,
    recovery=Recovery.REPLACEMENT,
    rise=1,
    fall=3,
    message="a bad row of memory could not be remapped: no spare row is left",
)
ROW_REMAP_PENDING = Threshold(
    code="RowRemapPending",
    fault=False,
    recovery=Recovery.RESET,
    rise=1,
    fall=3,
    message="a bad row of memory will be remapped at the next reset",
)
PAGE_RETIREMENT_PENDING = Threshold(
    code="PageRetirementPending",
    fault=False,
    recovery=Recovery.RESET,
    rise=1,
    fall=3,
    message="a bad page of memory will be retired at the next reset",
)
_SLOWDOWNS = MappingProxyType(
    {
        reason: Threshold(
            code=reason.value,
            fault=False,
            recovery=Recovery.AUTOMATIC,
            rise=3,
            fall=30,
            message=f"clocks forced down: {why}",
        )
        for reason, why in (
            (ThrottleReason.HW_SLOWDOWN, "heat or power, as the hardware sees it"),
            (ThrottleReason.HW_THERMAL_SLOWDOWN, "the device is too hot"),
            (ThrottleReason.HW_POWER_BRAKE_SLOWDOWN, "the power supply asks for it"),
        )
    }
)
"""Software's own limits (SwPowerCap, SwThermalSlowdown) are how a busy device works: readings, and no warnings."""

SLOW_THRESHOLDS: tuple[tuple[Threshold, Callable[[Facts], int | None]], ...] = (
    (ECC_UNCORRECTED, lambda facts: facts.ecc_uncorrected),
    (ROW_REMAP_FAILED, lambda facts: facts.row_remap_failed),
    (ROW_REMAP_PENDING, lambda facts: facts.row_remap_pending),
    (PAGE_RETIREMENT_PENDING, lambda facts: facts.page_retirement_pending),
)
"""Seen by slow readings. None: such a reading says nothing about it, either way."""

THRESHOLDS: dict[str, Threshold] = {
    level.code: level for level in (*(level for level, _ in SLOW_THRESHOLDS), *_SLOWDOWNS.values())
}
"""All of them by code."""

Observation = tuple[Threshold, int]
"""A level, and whether (or how often) a reading shows it."""


def observe_facts(facts: Facts) -> tuple[Observation, ...]:
    """What a slow reading says."""
    answers = ((level, read(facts)) for level, read in SLOW_THRESHOLDS)
    return tuple((level, count) for level, count in answers if count is not None)


def unreported(facts: Facts) -> frozenset[str]:
    """Codes of the levels that a slow reading says nothing about: the device doesn't report them, or no longer."""
    return frozenset(level.code for level, read in SLOW_THRESHOLDS if read(facts) is None)


def observe_sample(sample: Sample) -> tuple[Observation, ...]:
    """What a reading says."""
    if sample.throttle_reasons is None:
        return ()
    return tuple((level, reason in sample.throttle_reasons) for reason, level in _SLOWDOWNS.items())
