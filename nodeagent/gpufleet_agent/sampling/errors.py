"""Errors of the sampler. Errors of the hardware are in `devices.base`."""

from enum import StrEnum


class InvalidReason(StrEnum):
    """Why a sample is invalid. Also the label of the dropped samples' counter."""

    NOT_A_NUMBER = "NotANumber"
    INFINITE = "Infinite"
    NEGATIVE = "Negative"
    TOO_LARGE = "TooLarge"
    OVER_100_PERCENT = "Over100Percent"
    BELOW_ABSOLUTE_ZERO = "BelowAbsoluteZero"
    USED_OVER_TOTAL = "UsedOverTotal"
    IMPLAUSIBLE_PID = "ImplausiblePid"
    UNKNOWN_DEVICE = "UnknownDevice"


class ImplausibleSampleError(ValueError):
    """A value is impossible, and is dropped and counted: of a reading the whole sample, of a slow reading that value.

    After a dropped sample the last valid one stays and ages.
    """

    def __init__(self, uuid: str, field: str, reason: InvalidReason, message: str) -> None:
        super().__init__(f"{uuid}: {field}: {message}")
        self.uuid = uuid
        self.field = field
        self.reason = reason


class SamplerClosedError(RuntimeError):
    """The sampler was closed."""
