"""Limits how often the fault file is written: immediately for urgent changes, but bounded in any case."""

from collections import deque

INTERVAL_SECONDS = 10.0
MAX_URGENT, WINDOW_SECONDS = 6, 60.0
SPACING_SECONDS = 0.25


class SlidingWindowLimiter:
    """Allows six urgent writes in any minute, 0.25 s apart, and otherwise one write in ten seconds.

    All times are of one clock, in seconds.
    """

    def __init__(self) -> None:
        self._urgent: deque[float] = deque(maxlen=MAX_URGENT)
        self._last: float | None = None

    def due(self, *, urgent: bool) -> float:
        """Returns the time from which the next write is allowed."""
        if self._last is None:
            return 0.0
        if urgent:
            # The spacing combines changes of the same moment, such as eight devices that fall off the bus.
            exhausted = len(self._urgent) == MAX_URGENT
            soon = max(self._last + SPACING_SECONDS, self._urgent[0] + WINDOW_SECONDS if exhausted else 0.0)
            return min(soon, self._last + INTERVAL_SECONDS)
        return self._last + INTERVAL_SECONDS

    def started(self, now: float, *, urgent: bool) -> None:
        """Counts a write that has begun."""
        self._last = now
        if urgent:
            self._urgent.append(now)

    def failed(self, now: float) -> None:
        """Delays the next write as if it were not urgent, because the cause of a failure does not go away quickly."""
        self._last = now
        self._urgent.extend([now] * MAX_URGENT)
