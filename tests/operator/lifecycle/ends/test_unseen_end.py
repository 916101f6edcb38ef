"""Pods that ended and were deleted while no operator ran: nothing that may have succeeded is run a second time."""

from collections.abc import Callable

import pytest

from gpufleet_testing.operator.apiserver import Crash, Json, WriteFault
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, RestartingOperator, moment

STEPS = 10


class World:
    """A cluster with a workload of one replica, which runs."""

    def __init__(self, **spec: object) -> None:
        self.cluster = FakeCluster(1, 2)
        self.cluster.submit("job", **spec)
        self.operator = OperatorProcess(self.cluster)

    async def passes(self, number: int = STEPS) -> None:
        for _ in range(number):
            await moment(self.cluster, self.operator)

    async def ends_unseen(self, phase: str) -> None:
        """The pod ends and is deleted while no operator runs; another one starts then."""
        await self.passes()
        (pod,) = self.cluster.of("pods")
        key = f"ml/{pod['metadata']['name']}"
        self.cluster.finish(key, phase)
        self.cluster.remove("pods", key)
        self.operator = OperatorProcess(self.cluster)
        await self.passes()

    @property
    def made(self) -> int:
        """The number of pods that were created so far."""
        return sum(event == "ADDED" and kind == "pods" for event, kind, _ in self.cluster.log)

    @property
    def status(self) -> Json:
        found: Json = self.cluster.objects["workloads", "ml/job"]["status"]
        return found

    def condition(self, kind: str) -> tuple[str, str]:
        (found,) = (c for c in self.status["conditions"] if c["type"] == kind)
        return found["status"], found["reason"]


@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
async def test_replica_whose_end_nobody_saw_is_unknown(policy: str) -> None:
    world = World(restart_policy=policy)
    await world.ends_unseen("Succeeded")

    (placement,) = world.status["placements"]
    assert world.made == 1
    assert placement["state"] == "Unknown"
    assert "no longer exists, and it is not known whether it succeeded" in placement["message"]
    assert world.condition("Stalled") == ("True", "EndUnknown")
    assert world.condition("Ready") == ("False", "EndUnknown")
    assert world.condition("Allocated") == ("Unknown", "EndUnknown")
    assert world.condition("Complete")[0] == "False"
    assert not [one for _, one in world.cluster.ledger()], "its devices are free"


async def test_end_in_a_gap_of_the_watch_is_unknown_until_its_event_arrives() -> None:
    world = World(restart_policy="Never")
    await world.passes()
    (pod,) = world.cluster.of("pods")
    key = f"ml/{pod['metadata']['name']}"
    world.cluster.finish(key, "Succeeded")
    last = world.cluster.objects["pods", key]
    world.cluster.remove("pods", key)
    world.operator.hear(1000, lose=True)
    world.operator.relist()
    await world.passes()
    assert world.made == 1
    assert world.condition("Stalled") == ("True", "EndUnknown")

    world.operator.see("DELETED", "pods", last)
    await world.passes()
    assert world.made == 1
    assert world.condition("Complete")[0] == "True"


async def test_replica_of_unknown_end_stays_so_after_another_restart() -> None:
    world = World(restart_policy="Never")
    await world.ends_unseen("Failed")
    world.operator = OperatorProcess(world.cluster)
    await world.passes()

    assert world.made == 1
    assert world.status["placements"][0]["state"] == "Unknown"


async def test_replica_of_unknown_end_runs_again_after_suspension() -> None:
    world = World(restart_policy="Never")
    await world.ends_unseen("Succeeded")
    world.cluster.edit("job", suspend=True)
    await world.passes()
    world.cluster.edit("job", suspend=False)
    await world.passes()

    assert world.made == 2
    assert world.condition("Ready")[0] == "True"


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"restart_policy": "Always"}, id="a service"),
        pytest.param({"restart_policy": "Never", "placement": {"gang": True}}, id="a gang that restarts together"),
    ],
)
async def test_what_may_run_twice_runs_again(spec: dict[str, object]) -> None:
    world = World(**spec)
    await world.ends_unseen("Succeeded")

    assert world.made == 2
    assert world.condition("Ready")[0] == "True"


@pytest.mark.parametrize(("phase", "made"), [("Succeeded", 1), ("Failed", 2)])
async def test_last_state_of_a_deleted_pod_leaves_no_doubt(phase: str, made: int) -> None:
    world = World(restart_policy="Never")
    await world.passes()
    (pod,) = world.cluster.of("pods")
    world.cluster.finish(f"ml/{pod['metadata']['name']}", phase)
    world.cluster.remove("pods", f"ml/{pod['metadata']['name']}")
    await world.passes(25)

    assert world.made == made
    assert world.status["placements"][0]["state"] != "Unknown"


def mismatch(world: FakeCluster) -> None:
    world.other_plugin.add("node-1")


def drain(world: FakeCluster) -> None:
    """In the middle of the run, because a cordoned device is not picked."""
    if any(p["status"]["phase"] == "Running" for p in world.of("pods")):
        node, (uuid, _) = world.objects["telemetry", "node-1"], world.devices("node-1")
        cordoned = [{"uuid": uuid, "reason": "fan", "drain": True}]
        world.store("telemetry", "node-1", {**node, "spec": {**node["spec"], "cordoned": cordoned}})


@pytest.mark.parametrize("cause", [mismatch, drain])
async def test_what_the_operator_removes_is_never_in_doubt(cause: Callable[[FakeCluster], None]) -> None:
    """Also with a crash after any write, as after the deletion and before the status."""

    async def run(fault: WriteFault) -> int:
        world = FakeCluster(1, 2)
        world.submit("job", restart_policy="Never")
        world.fault = fault
        operator = RestartingOperator(world)
        for _ in range(24):
            cause(world)
            await moment(world, operator)
            status: Json = world.objects["workloads", "ml/job"].get("status") or {}
            assert all(one["state"] != "Unknown" for one in status.get("placements", ()))
        return sum(event == "ADDED" and kind == "pods" for event, kind, _ in world.log)

    counted = WriteFault(10**6, Crash, after=False)
    assert await run(counted) > 1, "no pod was removed"
    for at in range(10**6 - counted.left):
        assert await run(WriteFault(at, Crash, after=True)) > 1
