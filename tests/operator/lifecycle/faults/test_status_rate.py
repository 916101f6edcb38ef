"""Statuses have a rate of their own, so that many that change together do not delay placement."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from gpufleet_operator.runtime.pacing.held_statuses import HOLD
from gpufleet_operator.runtime.pacing.token_bucket import TokenBucket
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import HOLD_STATUSES, OperatorProcess

NUMBER = 12
RATE, BURST = 2, 3


class CountingCluster(FakeCluster):
    """Records the names of the workloads whose statuses are written."""

    def __init__(self) -> None:
        super().__init__(1, NUMBER)
        self.written: list[str] = []

    async def patch_workload_status(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        self.written.append(name)
        return await super().patch_workload_status(namespace, name, patch)


def limited(cluster: FakeCluster, hold_statuses: timedelta = HOLD_STATUSES) -> OperatorProcess:
    def clock() -> float:
        return cluster.now.timestamp()

    return OperatorProcess(cluster, status_budget=TokenBucket(RATE, BURST, clock), hold_statuses=hold_statuses)


async def step(cluster: FakeCluster, operator: OperatorProcess) -> None:
    operator.hear(1000)
    await operator.act()
    cluster.advance(1)


async def test_placement_does_not_wait_for_statuses() -> None:
    cluster = CountingCluster()
    operator = limited(cluster)
    for number in range(NUMBER):
        cluster.submit(f"w-{number}")
    for _ in range(3):
        await step(cluster, operator)
    assert len(cluster.released) == NUMBER
    assert len(cluster.written) == BURST + 2 * RATE


async def test_status_that_waited_is_the_latest_and_each_is_written() -> None:
    cluster = CountingCluster()
    operator = limited(cluster)
    for number in range(NUMBER):
        cluster.submit(f"w-{number}")
    for _ in range(20):
        await step(cluster, operator)
    assert set(cluster.written) == {f"w-{number}" for number in range(NUMBER)}
    assert len(cluster.written) == NUMBER + BURST, "only those of the first pass, before the release, have two"
    for number in range(NUMBER):
        (placement,) = cluster.objects["workloads", f"ml/w-{number}"]["status"]["placements"]
        assert placement["state"] == "Reserved"
        assert placement["score"]["total"] > 0, "it is that of the pass that picked the device"


async def test_statuses_that_are_held_back_do_not_count() -> None:
    """They are not sent: if they waited as well, each of these workloads would be decided on again."""
    cluster = CountingCluster()
    operator = limited(cluster, hold_statuses=HOLD)
    for number in range(NUMBER):
        cluster.submit(f"w-{number}")
    operator.hear(1000)
    await operator.act()
    assert not cluster.written
    assert all(workload.status is not None for workload in operator.cache.workloads.items.values())


async def test_pass_is_due_while_statuses_wait() -> None:
    cluster = CountingCluster()
    operator = limited(cluster)
    for number in range(NUMBER):
        cluster.submit(f"w-{number}")
    operator.hear(1000)
    due = await operator.act()
    assert due is not None
    assert (due - cluster.now).total_seconds() <= 0.1
