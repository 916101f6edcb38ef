"""Waiting for a condition of another process or machine that can only be asked for."""

import time
from collections.abc import Callable

from gpufleet_testbed.errors import ClusterError

_PAUSE = 0.05


def nothing() -> None:
    """The check of a wait that can't become pointless."""


def wait_until(
    condition: Callable[[], bool], what: str, check: Callable[[], None] = nothing, *, timeout: float
) -> None:
    """Wait for a condition.

    Args:
        condition: asked every 50 ms.
        what: the condition in words.
        check: raises when waiting has become pointless, for example because a process has ended.
        timeout: seconds to wait.

    Raises:
        ClusterError: the condition did not come about in time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise ClusterError(f"not within {timeout:g} s: {what}")
        time.sleep(_PAUSE)
