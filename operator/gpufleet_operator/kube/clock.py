"""Estimates the clock of the apiserver, by which the age of telemetry is computed.

Each response has a Date in whole seconds, taken between the sending of the request and the arrival of the response.
That bounds the difference between both clocks on both sides. The local clock is corrected only if it is outside of
these bounds, so that a wrong one neither hides stale telemetry nor rejects fresh telemetry. A slow response has wide
bounds and corrects nothing. Between two responses, a step of the machine's clock by an hour would end workloads by
their deadlines, so the local clock is one that is never set.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_SECOND = timedelta(seconds=1)
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Unlike the monotonic clock it also counts the time that the machine is suspended. Linux only."""


def unset_clock(
    wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    seconds: Callable[[], float] = lambda: time.clock_gettime(_BOOT_CLOCK),
) -> Callable[[], datetime]:
    """Returns a clock that shows the wall time of this call, and then counts seconds by a clock that is never set."""
    begin, started = wall(), seconds()
    return lambda: begin + timedelta(seconds=seconds() - started)


class ServerClock:
    """The apiserver's clock.

    Args:
        local: Returns the local time in UTC; by default by an `unset_clock`.
    """

    def __init__(self, local: Callable[[], datetime] | None = None) -> None:
        self.local = local or unset_clock()
        self.offset = timedelta(0)

    def now(self) -> datetime:
        """Returns the estimated time of the apiserver."""
        return self.local() + self.offset

    def observe(self, date: str | None, sent: datetime) -> None:
        """Corrects the clock when a response arrives.

        Args:
            date: Its Date header.
            sent: Local time at which the request was sent.
        """
        if date is None:
            return
        try:
            server = parsedate_to_datetime(date)
        except ValueError:
            return  # malformed, from a proxy
        lowest, highest = server - self.local(), server + _SECOND - sent
        self.offset = min(max(self.offset, lowest), highest)
