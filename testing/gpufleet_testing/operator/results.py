"""What a decision says, in short: for the assertions of tests."""

from gpufleet_api.workload_status import Explanation, WorkloadStatus
from gpufleet_operator.model.actions import Actions, WriteStatus


def status(actions: Actions) -> WorkloadStatus:
    """The first status that is written."""
    return actions.statuses[0].status


def states(actions: Actions) -> list[str]:
    """The replicas' states in the first status that is written."""
    return [str(p.state) for p in status(actions).placements]


def explanation(actions: Actions) -> Explanation:
    """The explanation in the first status that is written."""
    found = status(actions).explanation
    assert found is not None
    return found


def condition(write: WriteStatus | None, kind: str) -> tuple[str, str]:
    """(status, reason) of a condition in a written status."""
    assert write is not None
    return next((str(c.status), c.reason) for c in write.status.conditions if c.type == kind)


def message(write: WriteStatus | None, kind: str) -> str:
    """Message of a condition in a written status."""
    assert write is not None
    return next(c.message for c in write.status.conditions if c.type == kind)
