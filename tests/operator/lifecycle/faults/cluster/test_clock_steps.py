"""The clock of the operator's machine is set, an hour forward or back, between two responses of the apiserver."""

from datetime import timedelta

import pytest

from gpufleet_operator.kube.clock import unset_clock
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment

HOUR = timedelta(hours=1)
DEADLINE = {"runPolicy": {"activeDeadlineSeconds": 900}}


class Machine:
    """The operator's machine."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster, booted = cluster, cluster.now
        self.step = timedelta(0)

        def seconds() -> float:
            return (cluster.now - booted).total_seconds()

        local = unset_clock(lambda: cluster.now + self.step, seconds)
        self.operator = OperatorProcess(cluster, local_time=local)

    async def moments(self, number: int) -> None:
        for _ in range(number):
            await moment(self._cluster, self.operator)


def stored(cluster: FakeCluster) -> list[tuple[str, Json]]:
    """What the operator writes: pods, reservations and statuses."""
    pods = [(pod["metadata"]["uid"], pod["spec"]) for pod in cluster.of("pods")]
    ledger = [(node, assignment) for node, assignment in cluster.ledger()]
    return [*pods, *ledger, *((one["metadata"]["uid"], one["status"]) for one in cluster.of("workloads"))]


@pytest.mark.parametrize("steps", [(HOUR, -HOUR), (-HOUR, HOUR), (HOUR, HOUR, -3 * HOUR)])
async def test_step_of_the_clock_changes_nothing(steps: tuple[timedelta, ...]) -> None:
    cluster = FakeCluster(2, 2)
    machine = Machine(cluster)
    cluster.submit("ends-in-time", **DEADLINE)
    cluster.submit("gang", replicas=2, placement={"gang": True}, **DEADLINE)
    cluster.submit("waits", devices={"count": 2})
    await machine.moments(8)
    before = stored(cluster)

    for step in steps:
        machine.step += step
        await machine.moments(4)
        assert stored(cluster) == before

    await invariants.settle(cluster, machine.operator)
    invariants.check_always(cluster)
    invariants.check_settled(cluster)


async def test_deadline_passes_while_the_clock_is_set_back() -> None:
    cluster = FakeCluster(1, 1)
    machine = Machine(cluster)
    cluster.submit("train", **DEADLINE)
    await machine.moments(4)

    machine.step = -HOUR
    for _ in range(20):
        cluster.advance(50)
        await machine.moments(1)

    (workload,) = cluster.of("workloads")
    failed = next(one for one in workload["status"]["conditions"] if one["type"] == "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "DeadlineExceeded")
