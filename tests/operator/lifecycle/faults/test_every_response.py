"""Each kind of error at each kind of write leads to the end state without errors (I6), and breaks no invariant (I1)."""

from collections.abc import Callable
from datetime import datetime

import pytest

from gpufleet_operator.kube.errors import (
    ApiError,
    ConflictError,
    InvalidWriteError,
    PatchConflictError,
    UnavailableError,
)
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.faults.clusters import FlakyCluster, LateCommitCluster
from gpufleet_testing.operator.process import OperatorProcess, RestartingOperator, moment

SPEC = {
    "replicas": 2,
    "devices": {"count": 2},
    "placement": {"gang": True, "strategy": "Spread"},
    "network": {"enableDNSHostnames": True},
}
WRITTEN = {"create_pod", "create_service", "patch_pod", "patch_telemetry", "patch_workload_status", "delete_pod"}


def conflict(method: str, current: Json | None) -> ApiError | None:
    if current is not None:
        return PatchConflictError("a test failed", current)
    # A creation is answered with AlreadyExists only, which the writer resolves; a status conflicts if another object
    # has the name.
    return ConflictError("changed", 409) if method.startswith(("delete", "evict")) else None


def answer(kind: type[ApiError], code: int) -> Callable[[str, Json | None], ApiError]:
    return lambda method, current: kind("no", code)


CASES = {  # 429 is the same error as 500, and 401 is handled as 302 is
    "409": (conflict, False),
    "500": (answer(UnavailableError, 500), False),
    "time-out after the commit": (answer(UnavailableError, 0), True),
    "403": (answer(InvalidWriteError, 403), False),
    "302": (answer(ApiError, 302), False),
}


class Successor(RestartingOperator):
    """Has the late write of its predecessor stored after its own first pass."""

    def __init__(self, cluster: LateCommitCluster) -> None:
        super().__init__(cluster)
        self._late = cluster

    async def act(self) -> datetime | None:
        is_late = self._late.late is not None
        due = await super().act()
        if is_late:
            await self._late.commit()
        return due


async def life(cluster: FakeCluster, operator: OperatorProcess | RestartingOperator) -> None:
    """A gang and a single pod run; a pod of the gang is deleted, the gang suspended and resumed."""
    cluster.submit("gang", **SPEC)
    cluster.submit("single")
    for _ in range(6):
        await moment(cluster, operator)
    pods = [pod["metadata"]["name"] for pod in cluster.of("pods") if pod["metadata"]["name"].startswith("gang")]
    for name in pods[:1]:
        cluster.delete_gracefully(f"ml/{name}")
    for _ in range(4):
        await moment(cluster, operator)
    cluster.edit("gang", suspend=True)
    for _ in range(6):
        await moment(cluster, operator)
    cluster.edit("gang", suspend=False)
    for _ in range(4):
        await moment(cluster, operator)


async def ended_well(cluster: FakeCluster, operator: OperatorProcess | RestartingOperator) -> None:
    await invariants.settle(cluster, operator, rounds=40)
    invariants.check_always(cluster)
    invariants.check_settled(cluster)
    assert len(cluster.of("pods")) == 3
    assert {pod["status"]["phase"] for pod in cluster.of("pods")} == {"Running"}


@pytest.mark.parametrize("case", CASES)
async def test_error_at_every_second_attempt_leads_to_the_same_end(case: str) -> None:
    error, after = CASES[case]
    cluster = FlakyCluster(error, after=after, dra=1)
    operator = OperatorProcess(cluster)
    await life(cluster, operator)
    await ended_well(cluster, operator)
    unanswered = {"create_pod", "create_service", "patch_workload_status"} if case == "409" else set()
    assert cluster.failed >= WRITTEN - unanswered, "a kind of write did not fail"


@pytest.mark.parametrize(
    ("method", "number"),
    [
        ("create_pod", 0),
        ("patch_telemetry", 0),
        ("patch_telemetry", 2),
        ("patch_pod", 0),
        ("delete_pod", 0),
        ("patch_workload_status", 2),
    ],
)
async def test_write_that_is_stored_after_a_takeover_leads_to_the_same_end(method: str, number: int) -> None:
    """The process ends while the write is on its way. Its successor lists, and decides, before it is stored."""
    cluster = LateCommitCluster(method, number)
    operator = Successor(cluster)
    await life(cluster, operator)
    assert cluster.calls[method] > number, "there is no such write"
    await ended_well(cluster, operator)
