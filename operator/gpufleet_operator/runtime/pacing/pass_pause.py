"""The pause between two passes."""

import time
from collections.abc import Callable

BURST_SECONDS = 0.05
MAX_PAUSE_SECONDS = 0.5


class PassPause:
    """Limits passes to half of the processor's time, so that events coalesce, except for the first passes.

    The next write of a replica often depends on the next pass, so after an idle time there is no pause until passes
    have used `BURST_SECONDS`.

    Args:
        clock: Returns seconds, and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left, self._at = BURST_SECONDS, clock()

    def after(self, used: float) -> float:
        """Returns the seconds to pause after a pass that has used so much processor time."""
        now = self._clock()
        idle = max(0.0, now - self._at - used)
        left = min(BURST_SECONDS, self._left + idle) - used
        self._left, self._at = max(-MAX_PAUSE_SECONDS, left), now
        return max(0.0, -self._left)
