"""Waits for a condition; the failure's text contains the state that was seen last."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

from gpufleet_e2e.proof import EvidenceError

T = TypeVar("T")

POLL_SECONDS = 0.2


def eventually(check: Callable[[], T], *, within: float, every: float = POLL_SECONDS) -> T:
    """Calls `check` until it raises neither AssertionError nor EvidenceError, and returns its result.

    The last call is made at the deadline, so that a condition that became true in time is not missed between two calls.

    Args:
        check: Asserts the condition.
        within: Seconds until it must hold.
        every: Seconds between two calls.

    Raises:
        AssertionError: It does not hold in time; the text contains the last failure.
    """
    begin = monotonic()
    while True:
        left = begin + within - monotonic()
        try:
            return check()
        except (AssertionError, EvidenceError) as failure:
            if left <= 0:
                raise AssertionError(f"not within {within:g} s: {failure}") from failure
        sleep(min(every, max(0.0, left)))


def never(check: Callable[[], None], *, for_seconds: float, every: float = POLL_SECONDS) -> None:
    """Calls `check` repeatedly for a time; it raises AssertionError when the unwanted state is seen."""
    end = monotonic() + for_seconds
    while monotonic() < end:
        check()
        sleep(every)
    check()
