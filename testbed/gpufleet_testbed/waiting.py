"""Polls for a condition of another process or machine."""

import time
from collections.abc import Callable

from gpufleet_testbed.errors import ClusterError

_POLL_SECONDS = 0.05


def nothing() -> None:
    """Never raises: the default check of a wait."""


def wait_until(
    condition: Callable[[], bool], what: str, check: Callable[[], None] = nothing, *, timeout: float
) -> None:
    """Waits for a condition.

    Args:
        condition: Called every 50 ms.
        what: The condition as text.
        check: Raises when the condition cannot become true any more, for example because a process has ended.
        timeout: Seconds to wait.

    Raises:
        ClusterError: The condition did not become true in time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise ClusterError(f"not within {timeout:g} s: {what}")
        time.sleep(_POLL_SECONDS)
