"""Each kind of error at each kind of write leads to the end state without errors (I6), and breaks no invariant (I1)."""

from collections.abc import Callable
from datetime import datetime

import pytest

from gpufleet_api.names import Transport
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
from gpufleet_testing.operator.faults.clusters import WRITES, FlakyCluster, LateCommitCluster
from gpufleet_testing.operator.owners import FakeOwner, adopt
from gpufleet_testing.operator.process import OperatorProcess, RestartingOperator, moment

SPEC = {
    "replicas": 2,
    "devices": {"count": 2},
    "placement": {"gang": True, "strategy": "Spread"},
    "network": {"enableDNSHostnames": True},
}
WRITTEN = {"create_pod", "create_service", "patch_pod", "patch_telemetry", "patch_workload_status", "delete_pod"}

UNANSWERED_CONFLICTS = {
    *("create_pod", "create_service", "create_claim", "patch_workload_status"),
    *("apply_service", "apply_telemetry_status", "patch_node_status"),
}
"""Writes that are never answered with a conflict, which `conflict` explains."""


def conflict(method: str, current: Json | None) -> ApiError | None:
    if current is not None:
        return PatchConflictError("a test failed", current)
    # A creation is answered with AlreadyExists only, which the writer resolves; a status conflicts if another object
    # has the name. Server-side apply is forced.
    return ConflictError("changed", 409) if method.startswith(("delete", "evict")) else None


def answer(kind: type[ApiError], code: int) -> Callable[[str, Json | None], ApiError]:
    return lambda method, current: kind("no", code)


CASES = {  # 401 and 429 are handled as 500 is
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
    unanswered = UNANSWERED_CONFLICTS if case == "409" else set()
    assert cluster.failed >= WRITTEN - unanswered, "a kind of write did not fail"


async def upkeep(cluster: FakeCluster, operator: OperatorProcess) -> FakeOwner:
    """A pod of a Job gets another claim, a Service is changed, a pod is drained, and a workload expires."""
    cluster.reject_binding = {"node-3"}
    owner = FakeOwner(cluster, "Job", "own", 1, transport=Transport.DRA)
    adopt(cluster)
    cluster.submit("serves", network={"enableDNSHostnames": True})
    cluster.submit("ends", restart_policy="Never", runPolicy={"ttlSecondsAfterFinished": 1})

    async def moments(number: int) -> None:
        for _ in range(number):
            owner.step()
            await moment(cluster, operator)

    await moments(10)
    service = cluster.objects["services", "ml/serves"]
    cluster.store("services", "ml/serves", {**service, "spec": {**service["spec"], "selector": {"app": "other"}}})
    pods = {pod["metadata"]["name"].partition("-")[0]: pod["metadata"] for pod in cluster.of("pods")}
    for node, assignment in list(cluster.ledger()):
        if assignment["podUID"] == pods["serves"]["uid"]:
            stored = cluster.objects["telemetry", node]
            cordoned = [{"uuid": uuid, "reason": "fan", "drain": True} for uuid in assignment["devices"]]
            cluster.store("telemetry", node, {**stored, "spec": {**stored["spec"], "cordoned": cordoned}})
    cluster.finish(f"ml/{pods['ends']['name']}", "Succeeded")
    await moments(30)
    return owner


KEPT_UP = set(WRITES) - WRITTEN
"""The writes that fail in this life."""


@pytest.mark.parametrize("case", CASES)
async def test_error_at_every_second_attempt_of_upkeep_leads_to_the_same_end(case: str) -> None:
    error, after = CASES[case]
    cluster = FlakyCluster(error, after=after, nodes=4, devices=2, dra=2)
    operator = OperatorProcess(cluster)
    owner = await upkeep(cluster, operator)
    await invariants.settle(cluster, operator, rounds=40)
    invariants.check_always(cluster)

    assert cluster.failed >= KEPT_UP - (UNANSWERED_CONFLICTS if case == "409" else set()), "a write did not fail"
    assert owner.failed == 0
    assert [workload["metadata"]["name"] for workload in cluster.of("workloads")] == ["serves", "train"]
    placements = [one for workload in cluster.of("workloads") for one in workload["status"]["placements"]]
    assert [one["state"] for one in placements] == ["Allocated"] * 2
    cordoned = {one["uuid"] for t in cluster.of("telemetry") for one in t["spec"].get("cordoned", ())}
    assert cordoned.isdisjoint(uuid for one in placements for uuid in one["devices"])
    assert cluster.objects["services", "ml/serves"]["spec"]["selector"] == {"gpufleet.dev/workload": "serves"}


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
