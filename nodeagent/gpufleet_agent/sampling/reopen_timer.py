"""How long a device must be gone, without a break, before the driver is opened anew for it.

Opening disturbs all devices, and one that comes back by itself is read again at once unless it was left out meanwhile.
"""


class ReopenTimer:
    """Counts the time since devices are gone, or since all are there again.

    Args:
        wait: Seconds that devices must be gone. Longer than `first` when opening did not bring them back before.
        first: The same once all devices were there for `wait` seconds.
        now: A monotonic time, in seconds.
    """

    def __init__(self, wait: float, first: float, now: float) -> None:
        self.wait = wait
        self._first = first
        self._since = now
        self._gone: bool | None = None

    def is_over(self, now: float, *, gone: bool) -> bool:
        """Note whether devices are gone now; True when they have been for long enough."""
        if gone is not self._gone:
            if self._gone is not None:
                self._since = now
            self._gone = gone
        if now - self._since < self.wait:
            return False
        if not gone:
            self.wait, self._since = self._first, now
        return gone
