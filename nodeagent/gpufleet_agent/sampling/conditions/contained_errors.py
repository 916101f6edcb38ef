"""Uncorrected memory errors that the hardware contained: they affect only programs that ran when they occurred.

The driver counts them with all others until the next reset. Only the first rise of the count after the event is due to
it. These errors are over once the programs that ran at the event have ended; all others remain faults. The driver does
not report which program had the error, so all that ran must have ended.
"""

import math

from gpufleet_agent.devices.base import Facts

_MAX_LAG_SECONDS = 60.0
"""Time after the event in which the driver's count rises. A later rise has another cause."""


class ContainedErrors:
    """The contained errors of one device. Times are monotonic seconds. The caller holds the lock."""

    __slots__ = ("_at", "_count", "_due", "_lasting", "_over", "_programs")

    def __init__(self) -> None:
        self._over = 0
        """Errors whose programs have ended."""
        self._lasting = 0
        """Errors whose programs may still run."""
        self._programs: frozenset[int] | None = frozenset()
        """PIDs that may have been affected and still run; None: the driver has not listed processes since the event."""
        self._count: int | None = None
        """The driver's count in the last slow reading; None: unknown."""
        self._at = -math.inf
        """Time of the last event."""
        self._due = False
        """Whether the count has not risen since the last event."""

    def occurred(self, before: Facts, at: float, *, elsewhere: bool = False) -> None:
        """Records an event.

        Args:
            before: The last slow reading; without values if it is too old to show the count before the event.
            at: Now.
            elsewhere: Another partition had the error. This one's count rises as well, but none of its programs is
                affected.
        """
        self._count, self._at, self._due = before.ecc_uncorrected, at, True
        if not elsewhere:
            self._programs = None  # a program may have started since the last reading

    def over(self, facts: Facts, begun: float) -> int:
        """Returns the number of uncorrected errors in a slow reading that no longer affect a program.

        Args:
            facts: The reading.
            begun: When the read began. A list of processes that was read before the event may lack a program.
        """
        if facts.processes is not None:
            running = frozenset(process.pid for process in facts.processes)
            if self._programs is not None:
                self._programs &= running
            elif begun > self._at:
                self._programs = running  # all that ran at the event and have not ended
        count = facts.ecc_uncorrected
        if count is None:
            return 0
        if count < max(self._count or 0, self._over + self._lasting):  # a reset cleared the count
            self._over = self._lasting = 0
            self._due = False
        elif self._due and self._count is not None and count > self._count:
            self._due = False
            if begun - self._at <= _MAX_LAG_SECONDS:
                self._lasting += count - self._count
        self._count = count
        if self._programs == frozenset():
            self._over, self._lasting = self._over + self._lasting, 0
        return self._over

    def restore(self, over: int) -> None:
        """Restores the number that an earlier process returned last."""
        self._over = max(self._over, over)
