"""A gang with `onReplicaFailure: Fail` does not fail by what the operator removes, with a crash after any write."""

from collections.abc import Callable
from typing import Any

import pytest

from gpufleet_testing.operator.apiserver import Crash, Json, WriteFault
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import RestartingOperator, moment

STEPS = 32
"""Seconds; in this time each of the causes removes a pod of the gang, in most of them all pods."""


def rejected_by_scheduler(world: FakeCluster) -> None:
    world.reject_binding.add("node-2")


def rejected_by_kubelet(world: FakeCluster) -> None:
    world.reject_admission.add("node-2")
    world.admission_reason = "SysctlForbidden"


def mismatch(world: FakeCluster) -> None:
    world.other_plugin.add("node-2")


def drain(world: FakeCluster) -> None:
    """In the middle of the run, because a cordoned device is not picked."""
    if any(a for _, a in world.ledger()) and all(p["status"]["phase"] == "Running" for p in world.of("pods")):
        node = world.objects["telemetry", "node-2"]
        cordoned = [{"uuid": uuid, "reason": "fan", "drain": True} for uuid in world.devices("node-2")]
        world.store("telemetry", "node-2", {**node, "spec": {**node["spec"], "cordoned": cordoned}})


async def run(cause: Callable[[FakeCluster], None], fault: WriteFault) -> FakeCluster:
    """Nothing is wrong with the application."""
    world = FakeCluster(2, 2)
    placement = {"gang": True, "strategy": "Spread"}
    policy: dict[str, Any] = {"placement": placement, "runPolicy": {"onReplicaFailure": "Fail"}}
    world.submit("gang", replicas=2, restart_policy="Never", **policy)
    world.fault = fault
    operator = RestartingOperator(world)
    for _ in range(STEPS):
        cause(world)
        await moment(world, operator)
        assert failed(world) == ("False", 0)
    return world


def failed(world: FakeCluster) -> tuple[str, int]:
    """Status of the condition Failed, and the number of failures."""
    status: Json = world.objects["workloads", "ml/gang"].get("status") or {}
    found = next((c["status"] for c in status.get("conditions", ()) if c["type"] == "Failed"), "False")
    return found, status.get("failed", 0)


@pytest.mark.parametrize("cause", [rejected_by_scheduler, rejected_by_kubelet, mismatch, drain])
async def test_gang_does_not_fail_by_what_the_operator_removes(cause: Callable[[FakeCluster], None]) -> None:
    counted = WriteFault(10**6, Crash, after=False)
    world = await run(cause, counted)
    made = [1 for event, kind, _ in world.log if kind == "pods" and event == "ADDED"]
    assert len(made) > 2, "no pod of the gang was removed"

    for at in range(8, min(44, 10**6 - counted.left), 4):
        await run(cause, WriteFault(at, Crash, after=True))
