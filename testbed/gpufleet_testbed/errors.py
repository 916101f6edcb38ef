"""Errors of the test bed."""

from collections.abc import Sequence
from dataclasses import dataclass


class ClusterError(Exception):
    """An operation failed; the message is for the user."""


class NotRunningError(ClusterError):
    """No cluster is running."""


class ConflictError(ClusterError):
    """A different cluster is running, or another process is starting or stopping it."""


@dataclass(frozen=True)
class Problem:
    """Something that the machine lacks, and its fix."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}. Fix: {self.fix}"


class HostError(ClusterError):
    """The machine cannot run the test bed; the message lists every problem with its fix."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
