"""What can go wrong with the test bed, as few types as callers can act on."""

from collections.abc import Sequence
from dataclasses import dataclass


class ClusterError(Exception):
    """The test bed could not do what it was asked to do; the message is for the user."""


class NotRunningError(ClusterError):
    """No cluster is running."""


class ConflictError(ClusterError):
    """A cluster is running that differs from the one asked for, or somebody else is starting or stopping it."""


@dataclass(frozen=True)
class Problem:
    """One thing that the host lacks, and how to mend it."""

    what: str
    fix: str

    def __str__(self) -> str:
        """One line for the user."""
        return f"{self.what}. Fix: {self.fix}"


class HostError(ClusterError):
    """This machine can't run the test bed as it is; every problem found is listed with its fix."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
