"""How often the file is written: at once when it matters, and bounded whatever the devices do."""

from collections import deque

LAZY_SECONDS = 10.0
BURST, BURST_SECONDS = 6, 60.0
SPACING_SECONDS = 0.25


class SlidingWindowLimiter:
    """Six urgent writes in any minute, a quarter of a second apart; else one in ten seconds. All by one clock."""

    def __init__(self) -> None:
        self._urgent: deque[float] = deque(maxlen=BURST)
        self._last: float | None = None

    def due(self, *, urgent: bool) -> float:
        """From when on it may be written, in seconds of the clock that `wrote` is told."""
        if self._last is None:
            return 0.0
        if urgent:
            # What else comes in the same moment (eight devices that fall off the bus) is one write.
            spent = len(self._urgent) == BURST
            soon = max(self._last + SPACING_SECONDS, self._urgent[0] + BURST_SECONDS if spent else 0.0)
            return min(soon, self._last + LAZY_SECONDS)
        return self._last + LAZY_SECONDS

    def wrote(self, now: float, *, urgent: bool) -> None:
        """A write began."""
        self._last = now
        if urgent:
            self._urgent.append(now)

    def failed(self, now: float) -> None:
        """It failed: whatever makes it fail isn't gone at once. The next one is due as if it had not been urgent."""
        self._last = now
        self._urgent.extend([now] * BURST)
