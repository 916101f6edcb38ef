"""A rate limit that allows bursts."""

import time
from collections.abc import Callable


class TokenBucket:
    """Counts tokens, which are refilled with time.

    Args:
        rate: Tokens per second.
        burst: Maximum number of tokens, which is also the initial number.
        clock: Returns seconds, and never goes back.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens, self._at = float(burst), clock()

    def available(self) -> int:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return int(self._tokens)

    def take(self, number: int) -> None:
        """Removes tokens. They must be available."""
        self._tokens -= number
