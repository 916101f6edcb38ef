"""Findings of a check."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """Something that is wrong."""

    check: str
    """Name of the check in CamelCase, such as TelemetryStale."""
    about: str
    """The object, such as `node/node-1`."""
    cause: str
    cure: str
