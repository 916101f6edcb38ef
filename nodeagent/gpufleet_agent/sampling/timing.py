"""How often the hardware is asked, and how long it may take."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All in seconds, all positive."""

    sample: float = 1.0
    """Between two reads of one device."""
    slow: float = 5.0
    """Between two slow reads of one device."""
    window: float = 60.0
    """How far back a device's window reaches."""
    deadline: float = 5.0
    """After this a call counts as stuck. Also how long `close` waits for calls in flight."""
    event_wait: float = 1.0
    """How long one call waits for an event. `close` may have to wait that long."""
    opening: float = 60.0
    """How long `start` waits for the driver before it goes on without."""
    retry_first: float = 1.0
    """Before the second attempt to open a driver that isn't there; doubles from there..."""
    retry_max: float = 30.0
    """...up to this."""
    reopen_first: float = 60.0
    """How long a device is lost before the driver is opened anew, in the hope that it lists the device again..."""
    reopen_max: float = 960.0
    """...which doubles up to this while it doesn't."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name}: {getattr(self, field.name)} seconds is not a time to wait")
