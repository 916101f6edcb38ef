"""Waiting for something to become true, with what was seen last in the failure's text."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

from gpufleet_e2e.proof import EvidenceError

T = TypeVar("T")

EVERY_SECONDS = 0.2


def eventually(look: Callable[[], T], *, within: float, every: float = EVERY_SECONDS) -> T:
    """Call `look` until it returns instead of raising AssertionError or EvidenceError, and pass its answer on.

    The last look is taken at the deadline, so that a condition that came true in time is never missed for the pause
    between two looks.

    Args:
        look: Asserts what is waited for.
        within: Seconds until it must hold.
        every: Seconds between two looks.

    Raises:
        AssertionError: It doesn't hold in time; with what the last look said.
    """
    begin = monotonic()
    while True:
        left = begin + within - monotonic()
        try:
            return look()
        except (AssertionError, EvidenceError) as not_yet:
            if left <= 0:
                raise AssertionError(f"not within {within:g} s: {not_yet}") from not_yet
        sleep(min(every, max(0.0, left)))


def never(look: Callable[[], None], *, for_seconds: float, every: float = EVERY_SECONDS) -> None:
    """Call `look` over and over for a time; it raises AssertionError when what must not happen has happened."""
    end = monotonic() + for_seconds
    while monotonic() < end:
        look()
        sleep(every)
    look()
