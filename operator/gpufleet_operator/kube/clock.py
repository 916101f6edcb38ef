"""Estimates the clock of the apiserver, by which the age of telemetry is computed.

Each response has a Date in whole seconds, taken between the sending of the request and the arrival of the response.
That bounds the difference between both clocks on both sides. The local clock is corrected only if it is outside of
these bounds, so that a wrong one neither hides stale telemetry nor rejects fresh telemetry. A slow response has wide
bounds and corrects nothing.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_SECOND = timedelta(seconds=1)


class ServerClock:
    """The apiserver's clock.

    Args:
        local: Returns the local time in UTC.
    """

    def __init__(self, local: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.local = local
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
