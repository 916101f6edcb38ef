"""The apiserver's clock, by which the age of telemetry is judged.

Every response carries a Date, in whole seconds. Our own clock is used as long as it agrees with that; when it is
off by more than a few seconds, the difference is added, so that a wrong clock here neither hides stale telemetry nor
condemns fresh one.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_TOLERANCE = timedelta(seconds=3)
"""Date is cut to seconds and as old as the response's way here; less than this isn't worth correcting."""


class ServerClock:
    """Now, by the apiserver's clock.

    Args:
        local: our own clock, in UTC.
    """

    def __init__(self, local: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._local = local
        self.offset = timedelta(0)

    def now(self) -> datetime:
        """The apiserver's time, as well as we know it."""
        return self._local() + self.offset

    def heard(self, date: str | None) -> None:
        """A response's Date header has come in."""
        if date is None:
            return
        try:
            said = parsedate_to_datetime(date)
        except ValueError:
            return  # a proxy's own idea of a date
        difference = said + timedelta(milliseconds=500) - self._local()
        self.offset = difference if abs(difference) > _TOLERANCE else timedelta(0)
