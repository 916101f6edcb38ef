"""Decides when a missing device justifies reopening the driver.

Reopening disturbs all devices, and a device that comes back by itself is read again without it.
"""


class ReopenTimer:
    """Measures how long devices are missing, or how long all are present.

    Args:
        wait: Seconds that devices must be missing. Longer than `first` if reopening did not help before.
        first: Becomes `wait` once all devices were present for `wait` seconds.
        now: Monotonic seconds.
    """

    def __init__(self, wait: float, first: float, now: float) -> None:
        self.wait = wait
        self._first = first
        self._since = now
        self._missing: bool | None = None

    def is_due(self, now: float, *, missing: bool) -> bool:
        """Records whether devices are missing now; returns whether they were for long enough."""
        if missing is not self._missing:
            if self._missing is not None:
                self._since = now
            self._missing = missing
        if now - self._since < self.wait:
            return False
        if not missing:
            self.wait, self._since = self._first, now
        return missing
