"""Conditions that readings show for as long as they last: memory errors and throttled clocks.

Damaged memory is a fault, unless the hardware contained the damage and the programs that it affects have ended.
Throttled clocks and repairs that are pending until a reset are warnings: the device works.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from gpufleet_agent.devices.base import Facts, Recovery, ThrottleReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    code: str
    fault: bool
    """False: a warning."""
    recovery: Recovery
    rise: int
    """Readings in a row that must show it before it becomes active."""
    fall: int
    """Readings in a row that must not show it before it ends."""
    message: str
    """May contain `{count}`."""


ECC_UNCORRECTED = Threshold(
    code="EccUncorrected",
    fault=True,
    recovery=Recovery.RESET,
    rise=1,
    fall=3,
    message="uncorrected memory errors since the last reset: {count}",
)
_CONTAINED = "contained memory errors since the last reset, whose programs have ended: "
ECC_CONTAINED = Threshold(
    code="EccContained",
    fault=False,
    recovery=Recovery.RESET,
    rise=1,
    fall=1,
    message=f"{_CONTAINED}{{count}}",
)
ROW_REMAP_FAILED = Threshold(
    code="RowRemapFailed",
    fault=True,
    recovery=Recovery.REPLACEMENT,
    rise=1,
    fall=3,
    message="a bad memory row could not be remapped: no spare row is left",
)
ROW_REMAP_PENDING = Threshold(
    code="RowRemapPending",
    fault=False,
    recovery=Recovery.RESET,
    rise=1,
    fall=3,
    message="a bad memory row will be remapped at the next reset",
)
PAGE_RETIREMENT_PENDING = Threshold(
    code="PageRetirementPending",
    fault=False,
    recovery=Recovery.RESET,
    rise=1,
    fall=3,
    message="a bad memory page will be retired at the next reset",
)
_THROTTLING = MappingProxyType(
    {
        reason: Threshold(
            code=reason.value,
            fault=False,
            recovery=Recovery.AUTOMATIC,
            rise=3,
            fall=30,
            message=f"clocks throttled: {why}",
        )
        for reason, why in (
            (ThrottleReason.HW_SLOWDOWN, "temperature or power, as the hardware reports"),
            (ThrottleReason.HW_THERMAL_SLOWDOWN, "the device is too hot"),
            (ThrottleReason.HW_POWER_BRAKE_SLOWDOWN, "power brake of the power supply"),
        )
    }
)
"""The driver's own limits (SwPowerCap, SwThermalSlowdown) are normal for a busy device, so they are not warnings."""

_SLOW: tuple[tuple[Threshold, Callable[[Facts, int], int | None]], ...] = (
    (ECC_UNCORRECTED, lambda facts, over: None if facts.ecc_uncorrected is None else facts.ecc_uncorrected - over),
    (ECC_CONTAINED, lambda facts, over: None if facts.ecc_uncorrected is None else over),
    (ROW_REMAP_FAILED, lambda facts, _: facts.row_remap_failed),
    (ROW_REMAP_PENDING, lambda facts, _: facts.row_remap_pending),
    (PAGE_RETIREMENT_PENDING, lambda facts, _: facts.page_retirement_pending),
)
"""Read from slow readings, with the number of memory errors that are over. None: the reading does not report it."""

SLOW_THRESHOLDS = tuple(threshold for threshold, _ in _SLOW)

THRESHOLDS: dict[str, Threshold] = {
    threshold.code: threshold for threshold in (*SLOW_THRESHOLDS, *_THROTTLING.values())
}
"""By code."""

Observation = tuple[Threshold, int]
"""A threshold, and whether (or how often) a reading shows it."""


def observe_facts(facts: Facts, contained: int = 0) -> tuple[Observation, ...]:
    """Returns what a slow reading shows.

    Args:
        facts: The reading.
        contained: Uncorrected errors that are over, see `contained_errors`.
    """
    readings = ((threshold, read(facts, contained)) for threshold, read in _SLOW)
    return tuple((threshold, count) for threshold, count in readings if count is not None)


def unreported(facts: Facts) -> frozenset[str]:
    """Returns the codes of thresholds that a slow reading does not report (any more)."""
    return frozenset(threshold.code for threshold, read in _SLOW if read(facts, 0) is None)


def contained_count(message: str) -> int:
    """Returns the count in a message of `ECC_CONTAINED`; 0 for another text."""
    _, found, count = message.partition(_CONTAINED)
    return int(count) if found and count.isascii() and count.isdecimal() else 0


def observe_throttling(reasons: frozenset[ThrottleReason] | None) -> tuple[Observation, ...]:
    """Returns what the throttle reasons of a reading show; None: they are not reported."""
    if reasons is None:
        return ()
    return tuple((threshold, reason in reasons) for reason, threshold in _THROTTLING.items())
