"""The sampler's refusals. Errors of the hardware itself are in `devices.base`."""

from enum import StrEnum


class InvalidReason(StrEnum):
    """What is wrong with a sample. Also the label under which the drop is counted."""

    NOT_A_NUMBER = "NotANumber"
    INFINITE = "Infinite"
    NEGATIVE = "Negative"
    TOO_LARGE = "TooLarge"
    OVER_100_PERCENT = "Over100Percent"
    BELOW_ABSOLUTE_ZERO = "BelowAbsoluteZero"
    USED_OVER_TOTAL = "UsedOverTotal"
    UNKNOWN_DEVICE = "UnknownDevice"


class InvalidSampleError(ValueError):
    """A reading that can't be true. The sample is dropped and counted, and the last good one ages."""

    def __init__(self, uuid: str, field: str, reason: InvalidReason, message: str) -> None:
        super().__init__(f"{uuid}: {field}: {message}")
        self.uuid = uuid
        self.field = field
        self.reason = reason


class SamplerClosedError(RuntimeError):
    """The sampler was closed: nothing more is recorded or waited for."""
