"""Pauses failed writes of a task that decides in each round what to write."""

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

_BASE_SECONDS = 0.5
_CAP_SECONDS = 60.0

Key = TypeVar("Key", bound=Hashable)


class PausedWrites(Generic[Key]):
    """Keys of failed writes, until the first round after their pause."""

    def __init__(self) -> None:
        self._until: dict[Key, float] = {}
        """By the clock of the event loop."""
        self._failures: dict[Key, tuple[int, float]] = {}
        """Number of consecutive failures, and when they are forgotten: the write may no longer be needed."""

    def start_round(self) -> None:
        """Removes those whose pause is over."""
        now = asyncio.get_running_loop().time()
        self._failures = {key: found for key, found in self._failures.items() if found[1] > now}
        self._until = {key: until for key, until in self._until.items() if until > now}

    def pause(self, key: Key, seconds: float) -> None:
        """Adds a write; with 0 seconds it is paused for the rest of this round."""
        self._until[key] = asyncio.get_running_loop().time() + seconds

    def back_off(self, key: Key) -> None:
        """Adds a write that got no response. The pause is doubled with each such failure, up to a minute."""
        count = self.failures(key) + 1
        seconds = min(_CAP_SECONDS, _BASE_SECONDS * 2 ** min(count - 1, 30))
        self.pause(key, seconds)
        self._failures[key] = count, self._until[key] + _CAP_SECONDS

    def succeeded(self, key: Key) -> None:
        """Forgets the failures of a write."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """Returns the number of consecutive failures for which the write backed off."""
        return self._failures.get(key, (0, 0.0))[0]

    def __contains__(self, key: Key) -> bool:
        return key in self._until
