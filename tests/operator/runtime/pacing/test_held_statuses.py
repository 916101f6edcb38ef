"""Writes of one namespace that hang do not hold back the statuses of others. Time is virtual."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_operator.model.actions import Actions, WriteStatus
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.executor import PATIENCE_SECONDS
from gpufleet_operator.runtime.lanes import IN_SCOPE, Lane
from gpufleet_operator.runtime.pacing.held_statuses import BUSY_HOLD, HOLD, HeldStatuses
from gpufleet_testing.agent.virtual_time import in_virtual_time
from gpufleet_testing.operator import make
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess

STEP_SECONDS = 0.1
LANE = IN_SCOPE[Lane.STATUS]


class Hanging(FakeCluster):
    """Creations and statuses in namespace `slow` time out."""

    async def create_pod(self, body: Mapping[str, Any]) -> Json:
        await hang_in(body["metadata"]["namespace"])
        return await super().create_pod(body)

    async def patch_workload_status(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        await hang_in(namespace)
        return await super().patch_workload_status(namespace, name, patch)

    def submit_slow(self, name: str, **spec: object) -> None:
        self.submit(name, **spec)
        body = self.objects.pop(("workloads", f"ml/{name}"))
        self.log.pop()
        self.store("workloads", f"slow/{name}", {**body, "metadata": {"name": name, "namespace": "slow"}})


async def hang_in(namespace: str) -> None:
    if namespace == "slow":
        await asyncio.sleep(15)
        raise UnavailableError("ReadTimeout")


async def seconds_until_written(cluster: FakeCluster, operator: OperatorProcess) -> float:
    """Returns how long `ml/one` has no status."""
    loop = asyncio.get_running_loop()
    began, clock = loop.time(), cluster.now
    while "status" not in cluster.objects["workloads", "ml/one"]:
        assert loop.time() - began <= BUSY_HOLD.total_seconds(), "it is not written"
        operator.hear(10_000)
        await operator.act()
        await asyncio.sleep(STEP_SECONDS)
        cluster.now = clock
        cluster.advance(loop.time() - began)
    return loop.time() - began


@in_virtual_time
async def test_hanging_creations_do_not_hold_back_statuses_of_others() -> None:
    """They are more than a pass decides on."""
    cluster = Hanging()
    operator = OperatorProcess(cluster, patience=PATIENCE_SECONDS, report_patience=0, hold_statuses=HOLD, checked=True)
    for number in range(2 * Limits().max_creates):
        cluster.submit_slow(f"w-{number}")
    cluster.submit("one")

    took = await seconds_until_written(cluster, operator)

    assert took <= HOLD.total_seconds() + 4 * (PATIENCE_SECONDS + STEP_SECONDS)


def status(number: int, namespace: str = "ml", *, progress: bool = True) -> WriteStatus:
    return WriteStatus(f"uid-{number}", namespace, f"w-{number}", "1", WorkloadStatus(), progress=progress)


class Clock:
    def __init__(self) -> None:
        self.now = make.NOW

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now


def with_held(*statuses: WriteStatus) -> HeldStatuses:
    """Returns statuses that are held back in this order, and are due."""
    clock = Clock()
    held = HeldStatuses(Cache().workloads, clock)
    for each in statuses:
        held.hold(each)
    clock.now += HOLD
    return held


def test_only_a_namespace_with_waiting_pods_holds_longer() -> None:
    held = with_held(status(0, "slow"), status(1, "ml"))
    held.busy = {"slow"}
    assert [each.namespace for each in held.join(Actions(), {}).statuses] == ["ml"]


def test_statuses_of_a_full_namespace_do_not_delay_others() -> None:
    """They are more than a pass takes, and due earlier."""
    held = with_held(*(status(n, "slow") for n in range(100)), status(100, "ml"))
    assert [each.name for each in held.join(Actions(), {"slow": 0}).statuses] == ["w-100"]


def test_as_many_held_statuses_are_due_as_can_be_sent() -> None:
    """Others would be dropped, and the next pass would begin immediately."""
    held = with_held(*(status(n) for n in range(3 * LANE)))

    assert len(held.join(Actions(), {}).statuses) == LANE
    assert len(held.join(Actions(), {"ml": 3}).statuses) == 3
    decided = Actions(statuses=(status(0, progress=False), status(100, progress=False)))
    assert [each.name for each in held.join(decided, {"ml": 3}).statuses] == ["w-0", "w-100", "w-1"]


def test_later_status_of_a_full_namespace_stays_held_back() -> None:
    """Dropped, it would be decided again in each pass."""
    held = with_held(status(0))
    assert held.takes(held.join(Actions(statuses=(status(0),)), {"ml": 0}).statuses[0])
    assert not held.takes(held.join(Actions(statuses=(status(0),)), {"ml": 1}).statuses[0])


def test_full_namespace_is_not_due_before_a_response() -> None:
    held = with_held(status(0))
    assert held.due({"ml": 0}) is None
    assert held.due({"ml": 1}) == make.NOW + timedelta(microseconds=1) + HOLD
