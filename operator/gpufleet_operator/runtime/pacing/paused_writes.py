"""Pauses failed writes of a task that decides in each round what to write."""

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class PausedWrites(Generic[Key]):
    """Keys of failed writes, until the first round after their pause."""

    def __init__(self) -> None:
        self._until: dict[Key, float] = {}
        """By the clock of the event loop."""

    def start_round(self) -> None:
        """Removes those whose pause is over."""
        now = asyncio.get_running_loop().time()
        self._until = {key: until for key, until in self._until.items() if until > now}

    def pause(self, key: Key, seconds: float) -> None:
        """Adds a write; with 0 seconds it is paused for the rest of this round."""
        self._until[key] = asyncio.get_running_loop().time() + seconds

    def __contains__(self, key: Key) -> bool:
        return key in self._until
