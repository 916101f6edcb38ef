"""An input of the publisher that is built already."""

from dataclasses import dataclass

from gpufleet_agent.publish.payload import Status


@dataclass(frozen=True, slots=True)
class BuiltStatus:
    """Implements `StatusInput` for a given status."""

    status: Status
    events: int = 0
    """Of devices with a fault or warning."""

    def build(self) -> Status:
        return self.status

    def may_differ(self, written: "BuiltStatus", stale_seconds: float) -> bool:
        return True

    def has_recurrence(self, written: "BuiltStatus") -> bool:
        return self.events != written.events
