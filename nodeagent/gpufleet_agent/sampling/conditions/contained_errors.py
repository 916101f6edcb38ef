"""Uncorrected memory errors that the hardware contained: they affect only programs that ran when they occurred.

The driver counts them with all others until the next reset. The count up to which they are over is known once those
programs have ended. The driver does not report which program had the error, so all that ran must have ended.
"""

from gpufleet_agent.devices.base import Facts

_MAX_LAG_READINGS = 12
"""Slow readings after the event within which the driver's count rises. A later rise has another cause."""


class ContainedErrors:
    """The contained errors of one device. Its owner locks."""

    __slots__ = ("_left", "_over", "_programs")

    def __init__(self) -> None:
        self._over = 0
        """Errors whose programs have ended."""
        self._programs: frozenset[int] = frozenset()
        self._left = 0
        """Readings in which a rise of the count is due to the last event; 0: none, or it is settled."""

    def occurred(self, programs: frozenset[int]) -> None:
        """Records an event.

        Args:
            programs: PIDs of the programs that may have had the error.
        """
        self._programs = self._programs | programs if self._left else programs
        self._left = _MAX_LAG_READINGS

    def over(self, facts: Facts) -> int:
        """Returns how many of the uncorrected errors that a slow reading counts no longer concern a program."""
        count = facts.ecc_uncorrected
        if count is None:
            return 0
        self._over = min(self._over, count)  # a reset cleared the count
        if self._left and not self._may_run(facts):
            if count > self._over:
                self._over, self._left = count, 0
            else:
                self._left -= 1
        return self._over

    def restore(self, over: int) -> None:
        """Restores the number that an earlier process returned last."""
        self._over = max(self._over, over)

    def _may_run(self, facts: Facts) -> bool:
        if facts.processes is None:
            return True
        return not self._programs.isdisjoint(process.pid for process in facts.processes)
