"""Status, reason and message of a condition, before they are written."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConditionFinding:
    true: bool
    reason: str
    message: str
    unknown: bool = False
    """The status is Unknown; `true` does not matter."""


def is_true(reason: str, message: str = "") -> ConditionFinding:
    return ConditionFinding(true=True, reason=reason, message=message)


def is_false(reason: str, message: str = "") -> ConditionFinding:
    return ConditionFinding(true=False, reason=reason, message=message)


def is_unknown(reason: str, message: str = "") -> ConditionFinding:
    return ConditionFinding(true=False, reason=reason, message=message, unknown=True)
