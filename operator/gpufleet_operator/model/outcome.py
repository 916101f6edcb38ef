"""Outcome of a workload."""

from dataclasses import dataclass

from gpufleet_api.condition import ConditionStatus
from gpufleet_operator.model.objects import Workload


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a workload. `reason` and `message` are those of its condition Complete or Failed."""

    complete: bool
    reason: str
    message: str

    @classmethod
    def success(cls, reason: str, message: str) -> "Outcome":
        return cls(complete=True, reason=reason, message=message)

    @classmethod
    def failure(cls, reason: str, message: str) -> "Outcome":
        return cls(complete=False, reason=reason, message=message)


def stored_outcome(workload: Workload) -> Outcome | None:
    """Returns the outcome in the stored status; None before the end. A workload that ended never restarts."""
    for condition in workload.status.conditions if workload.status else ():
        if condition.type in ("Complete", "Failed") and condition.status is ConditionStatus.TRUE:
            return Outcome(complete=condition.type == "Complete", reason=condition.reason, message=condition.message)
    return None
