"""Writes without a response delay only their own namespace, workload or node. Time is virtual."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_operator.runtime.executor import PATIENCE_SECONDS
from gpufleet_operator.runtime.lanes import CREATES_OF_WORKLOAD, PLACEMENT_TIMEOUT_SECONDS
from gpufleet_testing.agent.virtual_time import in_virtual_time
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess

CLIENT_TIMEOUT_SECONDS = 15.0
STEP_SECONDS = 0.1
USUAL_SECONDS = 3 * (PATIENCE_SECONDS + STEP_SECONDS)
"""From a workload to the release of its pods, with three passes that wait for slow writes."""
GANG = {"replicas": 2, "placement": {"gang": True, "strategy": "Spread"}}


class SlowCluster(FakeCluster):
    """Pods of namespace `slow` are created by a webhook that hangs; writes of some nodes get late responses."""

    def __init__(self, nodes: int = 2, devices: int = 1) -> None:
        super().__init__(nodes, devices)
        self.attempts = 0
        self.response_seconds: dict[str, float] = {}
        """By node: when the response to the next write of its reservations arrives."""

    async def create_pod(self, body: Mapping[str, Any]) -> Json:
        if body["metadata"]["namespace"] != "slow":
            return await super().create_pod(body)
        self.attempts += 1
        await asyncio.sleep(CLIENT_TIMEOUT_SECONDS)
        raise UnavailableError("ReadTimeout")

    async def patch_telemetry(self, node: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        """Stores at once; only the response is late."""
        stored = await super().patch_telemetry(node, patch)
        await asyncio.sleep(self.response_seconds.pop(node, 0))
        return stored

    def submit_slow(self, replicas: int) -> None:
        self.submit("hangs", replicas=replicas)
        body = self.objects.pop(("workloads", "ml/hangs"))
        self.log.pop()
        self.store("workloads", "slow/hangs", {**body, "metadata": {"name": "hangs", "namespace": "slow"}})


async def run_until(
    operator: OperatorProcess,
    condition: Callable[[], bool],
    *,
    limit: float,
    watch: bool = True,
    step: float = STEP_SECONDS,
) -> float:
    """Runs passes until the condition holds; returns the seconds that this took."""
    loop = asyncio.get_running_loop()
    begin, clock = loop.time(), operator.cluster.now
    while not condition():
        assert loop.time() - begin < limit, "the condition does not hold in time"
        if watch:
            operator.hear(10_000)
        await operator.act()
        await asyncio.sleep(step)
        operator.cluster.now = clock
        operator.cluster.advance(loop.time() - begin)
    return loop.time() - begin


def operated(cluster: FakeCluster) -> OperatorProcess:
    return OperatorProcess(cluster, patience=PATIENCE_SECONDS, report_patience=0, checked=True)


async def with_a_response_in_flight(seconds: float, *, devices: int = 1) -> tuple[SlowCluster, OperatorProcess]:
    """Returns a cluster that has stored the reservation of `first`, to which the response comes late."""
    cluster = SlowCluster(devices=devices)
    cluster.response_seconds = {"node-1": seconds, "node-2": seconds}
    operator = operated(cluster)
    cluster.submit("first")
    await run_until(operator, lambda: len(cluster.response_seconds) == 1, limit=1)
    cluster.response_seconds = {}
    return cluster, operator


def conditions(cluster: FakeCluster, key: str) -> dict[str, str]:
    status = cluster.objects["workloads", key].get("status", {})
    return {one["type"]: one["status"] for one in status.get("conditions", [])}


@in_virtual_time
async def test_hanging_webhook_delays_only_its_namespace() -> None:
    cluster = SlowCluster()
    operator = operated(cluster)
    cluster.submit_slow(replicas=6)
    await run_until(operator, lambda: cluster.attempts > 0, limit=1)
    cluster.submit("other")

    took = await run_until(operator, lambda: len(cluster.released) == 1, limit=CLIENT_TIMEOUT_SECONDS)

    assert took < USUAL_SECONDS
    assert cluster.attempts == CREATES_OF_WORKLOAD


@in_virtual_time
async def test_creations_that_hang_back_off_as_one() -> None:
    """Six replicas in turn would take two timeouts; the backoff of the first ones counts for all."""
    cluster = SlowCluster()
    operator = operated(cluster)
    cluster.submit_slow(replicas=6)

    await run_until(operator, lambda: cluster.attempts > CREATES_OF_WORKLOAD, limit=2 * CLIENT_TIMEOUT_SECONDS)

    assert conditions(cluster, "slow/hangs")["Placed"] == "False"
    assert cluster.attempts <= 2 * CREATES_OF_WORKLOAD


@in_virtual_time
async def test_slow_node_delays_only_its_own_reservations() -> None:
    cluster, operator = await with_a_response_in_flight(60)
    cluster.submit("second")

    took = await run_until(operator, lambda: len(cluster.released) == 1, limit=4)

    assert took < USUAL_SECONDS
    assert len(list(cluster.ledger())) == 2, "one for each pod"


@pytest.mark.parametrize("heard", [True, False], ids=["seen by the watch", "not seen"])
@pytest.mark.parametrize("seconds", [1.0, 60.0], ids=["late response", "no response"])
def test_reservation_in_flight_is_neither_repeated_nor_released(heard: bool, seconds: float) -> None:
    @in_virtual_time
    async def run() -> None:
        cluster = SlowCluster()
        cluster.response_seconds = {"node-1": seconds, "node-2": seconds}
        operator = operated(cluster)
        cluster.submit("train")
        operator.hear(100)
        while not list(cluster.ledger()):
            await operator.act()
        cluster.response_seconds = {}
        wait = min(seconds, PLACEMENT_TIMEOUT_SECONDS)

        took = await run_until(operator, lambda: len(cluster.released) == 1, limit=3 * wait, watch=heard)

        assert took > wait - USUAL_SECONDS
        invariants.check_always(cluster)
        operator.relist()
        await run_until(operator, lambda: len(list(cluster.ledger())) == 1, limit=2)

    run()


@in_virtual_time
async def test_gang_is_not_released_in_part_while_one_node_is_slow() -> None:
    cluster = SlowCluster()
    cluster.response_seconds = {"node-2": 2}
    operator = operated(cluster)
    cluster.submit("gang", **GANG)

    await run_until(operator, lambda: bool(cluster.released), limit=4)

    await run_until(operator, lambda: len(cluster.released) == 2, limit=USUAL_SECONDS)
    assert [t["metadata"]["generation"] for t in cluster.of("telemetry")] == [2, 2], "each reservation is written once"
    invariants.check_always(cluster)


@in_virtual_time
async def test_suspension_while_a_release_is_in_flight_keeps_the_reservation() -> None:
    """The release may be stored at any moment, and then the pod starts on these devices."""

    class SlowRelease(SlowCluster):
        async def patch_pod(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
            if any(op["op"] == "remove" for op in patch):
                await asyncio.sleep(2)
            return await super().patch_pod(namespace, name, patch)

    cluster = SlowRelease()
    operator = operated(cluster)
    cluster.submit("train")
    await run_until(operator, lambda: bool(list(cluster.ledger())), limit=1)
    await run_until(operator, lambda: operator.executor.sent().total() > 0, limit=1)
    (pod,) = cluster.of("pods")
    cluster.edit("train", suspend=True)
    cluster.store("pods", f"ml/{pod['metadata']['name']}", pod)  # another version: neither write is valid

    await run_until(operator, lambda: not cluster.of("pods"), limit=6)

    invariants.check_always(cluster)
    await run_until(operator, lambda: not list(cluster.ledger()), limit=2)


class AlwaysSlow(SlowCluster):
    """An overloaded apiserver: each response to a write of reservations arrives after the pass."""

    async def patch_telemetry(self, node: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        self.response_seconds[node] = 3 * PATIENCE_SECONDS
        return await super().patch_telemetry(node, patch)


@pytest.mark.parametrize("spec", [{}, GANG], ids=["one pod", "gang"])
def test_pods_are_released_although_each_response_arrives_after_the_pass(spec: dict[str, Any]) -> None:
    @in_virtual_time
    async def run() -> None:
        cluster = AlwaysSlow(nodes=4)
        operator = operated(cluster)
        cluster.submit("train", **spec)

        await run_until(operator, lambda: len(cluster.released) == spec.get("replicas", 1), limit=10)

        invariants.check_always(cluster)

    run()


@pytest.mark.parametrize("gang", [False, True], ids=["replicas", "gang"])
def test_spread_waits_for_the_response_of_a_node(gang: bool) -> None:
    """The other node has two free devices, so both replicas would fit there."""

    @in_virtual_time
    async def run() -> None:
        cluster, operator = await with_a_response_in_flight(2, devices=2)
        cluster.submit("spread", replicas=2, placement={"gang": gang, "strategy": "Spread"})
        status = partial(cluster.objects.get, ("workloads", "ml/spread"))
        await run_until(operator, lambda: "waiting for the response" in str(status()), limit=USUAL_SECONDS)

        await run_until(operator, lambda: len(cluster.released) == 3, limit=4)

        nodes = [node for node, assignment in cluster.ledger() if assignment["workload"] == "spread"]
        assert sorted(nodes) == ["node-1", "node-2"]
        invariants.check_always(cluster)

    run()


@in_virtual_time
async def test_spread_takes_another_node_when_there_is_no_response() -> None:
    cluster, operator = await with_a_response_in_flight(60, devices=2)
    cluster.submit("spread", replicas=2, placement={"strategy": "Spread"})

    took = await run_until(operator, lambda: len(cluster.released) >= 2, limit=2 * PLACEMENT_TIMEOUT_SECONDS)

    assert took < PLACEMENT_TIMEOUT_SECONDS + USUAL_SECONDS
    invariants.check_always(cluster)


@in_virtual_time
async def test_pod_is_released_before_its_workload_has_a_status() -> None:
    """The status says what was done, and nothing is decided on it: the next pass does not wait for its response."""

    class SlowStatus(SlowCluster):
        async def patch_workload_status(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
            await asyncio.sleep(PATIENCE_SECONDS / 2)
            return await super().patch_workload_status(namespace, name, patch)

    cluster = SlowStatus()
    operator = operated(cluster)
    cluster.submit("train")

    await run_until(operator, lambda: bool(cluster.released), limit=PATIENCE_SECONDS / 2, step=0.01)

    await run_until(operator, lambda: conditions(cluster, "ml/train").get("Placed") == "True", limit=1)
    invariants.check_always(cluster)
