"""The apiserver's clock, by which the age of telemetry is judged.

Every response carries a Date in whole seconds, stamped somewhere between our sending and our receiving. That bounds the
difference between the two clocks from both sides. Our own clock is used as it is while it lies within those bounds. A
wrong one is corrected, so that it neither hides stale telemetry nor condemns fresh one; a slow answer corrects nothing.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_SECOND = timedelta(seconds=1)


class ServerClock:
    """Now, by the apiserver's clock.

    Args:
        local: our own clock, in UTC.
    """

    def __init__(self, local: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.local = local
        self.offset = timedelta(0)

    def now(self) -> datetime:
        """The apiserver's time, as well as we know it."""
        return self.local() + self.offset

    def heard(self, date: str | None, sent: datetime) -> None:
        """A response has come in: its Date header, and our own clock when the request was sent."""
        if date is None:
            return
        try:
            said = parsedate_to_datetime(date)
        except ValueError:
            return  # a proxy's own idea of a date
        least, most = said - self.local(), said + _SECOND - sent
        self.offset = min(max(self.offset, least), most)
