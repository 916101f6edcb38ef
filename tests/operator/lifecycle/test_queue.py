"""Earmarks and preemption in the whole operator, on a cluster in memory. Passes are compared with ones from scratch."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from gpufleet_testing.hypothesis_profiles import histories
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import LIMITS, OperatorProcess, moment

MAX_PASSES = 45
"""Seconds after which evicted pods have ended, and others run on their devices."""

SOON = replace(LIMITS, reserve_after=timedelta(seconds=5))


class World:
    """A cluster and its operator."""

    def __init__(self, nodes: int = 1, devices: int = 1, *, checked: bool = True, preemption: bool = True) -> None:
        self.cluster = FakeCluster(nodes, devices)
        self.limits, self.checked = replace(SOON, preemption=preemption), checked
        self.restart()

    def restart(self) -> None:
        self.operator = OperatorProcess(self.cluster, self.limits, checked=self.checked)

    async def passes(self, number: int) -> None:
        for _ in range(number):
            await moment(self.cluster, self.operator)

    def running(self) -> list[str]:
        """Names of workloads, one for each running pod."""
        pods = [p for p in self.cluster.of("pods") if p["status"]["phase"] == "Running"]
        return sorted(p["metadata"]["name"].partition("-")[0] for p in pods if "deletionTimestamp" not in p["metadata"])

    def status(self, name: str) -> Any:
        return self.cluster.objects["workloads", f"ml/{name}"]["status"]

    def evicted(self) -> int:
        """Number of evictions so far."""
        return 1_000_000 - self.cluster.disruptions_allowed

    def events(self, reason: str) -> list[str]:
        return [event for event in self.cluster.events if event.startswith(f"{reason}: ")]


async def test_high_priority_evicts_one_low_pod_which_returns_when_there_is_room() -> None:
    world = World()
    world.cluster.submit("low", restart_policy="Never", runPolicy={"backoffLimit": 0})
    await world.passes(4)

    world.cluster.submit("high", priority=100)
    await world.passes(10)

    assert world.running() == ["high"]
    (victim,), (preemptor,) = world.events("Preempted"), world.events("Preempting")
    assert "preempted by GPUWorkload ml/high (priority 100; pod: 0)" in victim
    assert "of GPUWorkload low of lower priority" in preemptor
    world.cluster.remove("workloads", "ml/high")
    await world.passes(14)
    assert world.running() == ["low"]
    assert world.status("low").get("failed", 0) == 0, "its backoffLimit is 0"


@pytest.mark.parametrize("replicas", [1, 3])
async def test_successor_of_an_evicted_pod_does_not_share_its_device(replicas: int) -> None:
    world = World()
    world.cluster.submit("low", devices={"mode": "Shared", "memoryMiB": 225})
    await world.passes(4)

    world.cluster.submit("high", replicas=replicas, priority=100)
    await world.passes(30)

    assert world.running() == ["high"]
    assert world.evicted() == 1
    assert world.status("low")["placements"][0]["state"] == "Pending"


@pytest.mark.parametrize("priority", ["0", "100-never"])
async def test_equal_priority_and_policy_never_evict_no_pod(priority: str) -> None:
    world = World()
    world.cluster.submit("low")
    await world.passes(4)

    world.cluster.submit("other", priority=priority)
    await world.passes(6)

    assert world.running() == ["low"]
    assert not world.events("Preempted")


async def test_setting_turns_preemption_off() -> None:
    world = World(preemption=False)
    world.cluster.submit("low")
    await world.passes(4)

    world.cluster.submit("high", priority=100)
    await world.passes(6)

    assert world.running() == ["low"]


async def test_pod_disruption_budget_holds_a_preemption() -> None:
    world = World()
    world.cluster.submit("low")
    await world.passes(4)
    world.cluster.disruptions_allowed = 0

    world.cluster.submit("high", priority=100)
    await world.passes(4)

    assert world.running() == ["low"]
    assert world.events("EvictionBlocked")
    assert "Preempting 1 pod of lower priority: ml/low-0-" in world.status("high")["explanation"]["message"]
    world.cluster.disruptions_allowed = 1
    await world.passes(12)
    assert world.running() == ["high"]


async def test_minimum_runtime_of_the_victim_is_kept() -> None:
    world = World()
    world.cluster.submit("low", placement={"minRuntimeSeconds": 20})
    await world.passes(4)

    world.cluster.submit("high", priority=100)
    await world.passes(10)
    assert world.running() == ["low"]
    await world.passes(14)

    assert world.running() == ["high"]


async def test_gang_is_evicted_as_a_whole_and_counts_no_failure() -> None:
    world = World(2, 1)
    world.cluster.submit("gang", replicas=2, placement={"gang": True}, runPolicy={"onReplicaFailure": "Fail"})
    await world.passes(5)
    assert world.running() == ["gang", "gang"]

    world.cluster.submit("high", priority=100)
    await world.passes(12)

    assert world.running() == ["high"]
    assert world.status("gang")["placements"][0]["attempt"] == 1, "both restart together"
    world.cluster.remove("workloads", "ml/high")
    await world.passes(25)
    assert world.running() == ["gang", "gang"]
    assert world.status("gang").get("failed", 0) == 0


@pytest.mark.parametrize("restarted", [False, True])
async def test_gang_that_waits_gets_the_devices_that_become_free(restarted: bool) -> None:
    world = World(2, 2)
    for number in range(4):
        world.cluster.submit(f"a{number}", restart_policy="Never")
        await world.passes(1)
    await world.passes(4)
    world.cluster.submit("big", replicas=2, devices={"count": 2}, placement={"gang": True})
    world.cluster.advance(6)
    await world.passes(2)

    for number in range(4):  # one pod ends, and another workload of one device is submitted, again and again
        world.cluster.submit(f"b{number}")
        key = next(f"ml/{p['metadata']['name']}" for p in world.cluster.of("pods") if f"a{number}-" in str(p))
        world.cluster.finish(key, "Succeeded")
        await world.passes(3)
        if restarted:
            world.restart()

    assert world.running() == ["big", "big"]
    message = world.status("b0")["explanation"]["message"]
    assert world.status("b0")["placements"][0]["state"] == "Pending", message


async def test_earmark_is_explained_to_both_and_ends_with_its_workload() -> None:
    world = World(1, 2)
    world.cluster.submit("first")
    await world.passes(4)
    world.cluster.submit("big", devices={"count": 2})
    world.cluster.advance(6)
    await world.passes(2)

    world.cluster.submit("small")
    await world.passes(2)

    earmark = dict(world.status("big")["explanation"]["earmark"])
    since = earmark.pop("since")
    assert earmark == {"devices": 2, "devicesInUse": 1, "nodes": ["node-1"]}
    assert f"earmarked for ml/big since {since}" in world.status("small")["explanation"]["message"]
    assert "earmarked for this workload since" in world.status("big")["explanation"]["message"]
    world.restart()
    await world.passes(2)
    assert world.status("big")["explanation"]["earmark"]["since"] == since, "a restart does not forget it"
    invariants.check_settled(world.cluster)
    world.cluster.remove("workloads", "ml/big")
    await world.passes(4)
    assert world.running() == ["first", "small"]


async def test_gang_that_can_never_fit_does_not_stop_the_next_one() -> None:
    world = World(1, 2)
    world.cluster.submit("first")
    await world.passes(4)
    world.cluster.submit("never", devices={"count": 3})
    world.cluster.advance(1)
    world.cluster.submit("big", devices={"count": 2})
    world.cluster.advance(6)
    await world.passes(3)

    assert "No GPUs are earmarked" in world.status("never")["explanation"]["message"]
    assert world.status("big")["explanation"]["earmark"]["devices"] == 2


async def test_workload_waits_since_it_was_resumed() -> None:
    """Not since it was created: the others would give up GPUs for it at once."""
    world = World(1, 2)
    world.cluster.submit("small")
    world.cluster.submit("big", replicas=2, placement={"gang": True}, suspend=True)
    await world.passes(4)
    world.cluster.advance(3600)
    await world.passes(2)

    world.cluster.edit("big", suspend=False)
    await world.passes(4)
    world.cluster.submit("next")
    await world.passes(1)
    assert world.running() == ["next", "small"], "nothing is earmarked yet"

    world.cluster.remove("workloads", "ml/next")
    await world.passes(12)
    world.cluster.submit("late")
    await world.passes(12)
    assert world.running() == ["small"]
    assert world.status("big")["explanation"]["earmark"]["devices"] == 2


async def test_earmarked_device_is_lent_to_a_workload_that_ends_in_time() -> None:
    world = World(1, 2)
    world.cluster.submit("first", runPolicy={"activeDeadlineSeconds": 600})
    await world.passes(4)
    world.cluster.submit("big", devices={"count": 2})
    world.cluster.advance(6)
    await world.passes(2)

    world.cluster.submit("long", runPolicy={"activeDeadlineSeconds": 900})
    world.cluster.submit("late", runPolicy={"activeDeadlineSeconds": 300}, grace_seconds=400)
    world.cluster.submit("short", runPolicy={"activeDeadlineSeconds": 300})
    await world.passes(4)

    assert world.running() == ["first", "short"], "its pods may run for 400 s after the deadline"


URGENCY = st.sampled_from([0, 100, 10_000])
"""A device of a higher priority outweighs all devices of lower ones."""
SUBMITTED = st.lists(st.tuples(URGENCY, st.integers(1, 2), st.integers(1, 2), st.booleans()), min_size=2, max_size=5)


@pytest.mark.histories
@settings(max_examples=histories(4), suppress_health_check=list(HealthCheck))
@given(SUBMITTED)
def test_sum_of_priorities_served_never_falls(submitted: list[tuple[int, int, int, bool]]) -> None:
    """Once evictions are over, the devices that run are as important as before, and nothing is evicted any more."""
    world = World(2, 2, checked=False)
    asyncio.run(_submit_one_by_one(world, submitted))
    assert world.cluster.collisions == []


async def _submit_one_by_one(world: World, submitted: list[tuple[int, int, int, bool]]) -> None:
    served = 0
    for number, (priority, replicas, count, gang) in enumerate(submitted):
        devices, placement = {"count": count}, {"gang": gang}
        world.cluster.submit(f"w{number}", priority=priority, replicas=replicas, devices=devices, placement=placement)
        await world.passes(6)
        before = served
        for _ in range(MAX_PASSES):
            served = _served(world)
            if served >= before:
                break
            await world.passes(1)
        assert served >= before
    await world.passes(15)
    evicted = world.evicted()
    await world.passes(10)
    assert world.evicted() == evicted, "pods evict each other"


def _served(world: World) -> int:
    running = [p for p in world.cluster.of("pods") if p["status"]["phase"] == "Running"]
    return sum((p["spec"].get("priority", 0) + 1) * _devices(p) for p in running)


def _devices(pod: Json) -> int:
    return sum(int(count) for count in pod["spec"]["containers"][0]["resources"]["limits"].values())
