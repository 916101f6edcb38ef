"""Intervals and deadlines of the sampler."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All in seconds, all positive."""

    sample: float = 1.0
    """Interval of reads of a device."""
    slow: float = 5.0
    """Interval of slow reads of a device."""
    window: float = 60.0
    """Length of a device's window."""
    deadline: float = 5.0
    """A call that takes longer counts as stuck. `close` waits this long for calls in flight."""
    event_wait: float = 1.0
    """How long one call waits for an event. `close` may take that long."""
    opening: float = 60.0
    """How long `start` waits for the driver before it continues without it."""
    retry_first: float = 1.0
    """Wait before the second attempt to open a missing driver; doubles each time..."""
    retry_max: float = 30.0
    """...up to this."""
    reopen_first: float = 60.0
    """How long a device is lost before the driver is reopened, which may list it again..."""
    reopen_max: float = 960.0
    """...doubling up to this while it does not."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name}: {getattr(self, field.name)} must be greater than 0")
