"""A running workload whose template is edited to an invalid one: everything but the creation of pods goes on."""

import pytest

from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment

CONTAINERS = [{"name": "main", "image": "busybox"}]
VALID = {"spec": {"restartPolicy": "Always", "containers": CONTAINERS}}
INVALID = {"spec": {**VALID["spec"], "nodeName": "node-1"}}


class World:
    """A cluster on which `train` ran when its template became invalid."""

    def __init__(self) -> None:
        self.cluster = FakeCluster(2, 2)
        self.operator = OperatorProcess(self.cluster)

    async def moments(self, number: int = 4) -> None:
        for _ in range(number):
            await moment(self.cluster, self.operator)

    async def run_then_break(self, **spec: object) -> list[str]:
        """Returns the names of the pods that ran."""
        self.cluster.submit("train", **{"replicas": 2, **spec})
        await self.moments()
        assert self.status["ready"] == "2/2"
        self.cluster.edit("train", template=INVALID)
        await self.moments(2)
        return self.pods

    @property
    def pods(self) -> list[str]:
        return [p["metadata"]["name"] for p in self.cluster.of("pods")]

    @property
    def status(self) -> Json:
        return dict(self.cluster.objects["workloads", "ml/train"]["status"])

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next(c for c in self.status["conditions"] if c["type"] == kind)
        return found["status"], found["reason"], found["message"]


@pytest.fixture
def world() -> World:
    return World()


async def test_running_pods_stay_and_are_counted(world: World) -> None:
    pods = await world.run_then_break()

    assert len(pods) == 2
    status = world.status
    assert (status["ready"], status["state"], status["readyReplicas"], status["gpus"]) == ("2/2", "Running", 2, 2)
    assert status["updatedReplicas"] == 0, "no pod has the invalid template"
    assert world.condition("Allocated")[:2] == ("True", "Allocated")
    ready, reason, message = world.condition("Ready")
    assert (ready, reason) == ("False", "InvalidTemplate")
    assert "spec.template.spec.nodeName: Forbidden" in message
    assert message.endswith("; 2 of 2 replicas are ready")


async def test_lost_pods_are_not_counted_and_not_replaced(world: World) -> None:
    for name in await world.run_then_break():
        world.cluster.remove("pods", f"ml/{name}")
    await world.moments(20)

    status = world.status
    counts = [
        status.get(name) for name in ("replicas", "readyReplicas", "allocatedReplicas", "updatedReplicas", "gpus")
    ]
    assert (world.pods, counts) == ([], [0, 0, 0, 0, 0])
    assert (status["ready"], status["state"], status.get("nodes")) == ("0/2", "Pending", None)
    assert {p["message"] for p in status["placements"]} == {"spec.template is invalid: no pod is created"}
    assert list(world.cluster.ledger()) == []


async def test_suspend_and_scale_to_zero_delete_the_pods(world: World) -> None:
    await world.run_then_break()
    world.cluster.edit("train", suspend=True)
    await world.moments()

    assert world.pods == []
    assert world.condition("Suspended")[0] == "True"

    other = World()
    await other.run_then_break()
    other.cluster.edit("train", replicas=0)
    await other.moments()

    assert other.pods == []


async def test_scaling_down_takes_the_highest_index(world: World) -> None:
    await world.run_then_break()

    world.cluster.edit("train", replicas=1)
    await world.moments()

    (kept,) = world.pods
    assert kept.startswith("train-0-")
    assert world.status["ready"] == "1/1"


async def test_failures_are_counted_up_to_the_backoff_limit(world: World) -> None:
    (first, _) = await world.run_then_break(restart_policy="Never", runPolicy={"backoffLimit": 0})
    invalid = {"spec": {**INVALID["spec"], "restartPolicy": "Never"}}
    world.cluster.edit("train", template=invalid)

    world.cluster.finish(f"ml/{first}", "Failed")
    await world.moments()

    assert world.status["failed"] == 1
    assert world.condition("Failed")[:2] == ("True", "BackoffLimitExceeded")
    assert [p["status"]["phase"] for p in world.cluster.of("pods")] == ["Failed"]


async def test_complete_workload_is_not_stalled_by_its_template(world: World) -> None:
    world.cluster.submit("train", restart_policy="Never")
    await world.moments()
    world.cluster.finish(f"ml/{world.pods[0]}", "Succeeded")
    await world.moments()
    world.cluster.edit("train", template=INVALID)
    await world.moments()

    assert world.condition("Complete")[0] == "True"
    assert world.condition("Stalled")[0] == "False"


async def test_gated_pod_gives_its_devices_back_and_says_why(world: World) -> None:
    world.cluster.submit("train", devices={"count": 3})  # more than a node has
    await world.moments()
    world.cluster.edit("train", template=INVALID)
    await world.moments()

    (pod,) = world.cluster.of("pods")
    assert pod["metadata"]["annotations"]["gpufleet.dev/waiting-for"] == "ValidTemplate"
    assert any("GPUWorkload train is invalid: spec.template.spec.nodeName" in event for event in world.cluster.events)


async def test_corrected_template_rolls_and_keeps_the_devices(world: World) -> None:
    before = await world.run_then_break()
    devices = {a["replica"]: a["devices"] for _, a in world.cluster.ledger()}

    world.cluster.edit("train", template=VALID)
    await world.moments()
    assert world.pods == before, "the template is what the pods have"

    world.cluster.edit("train", template=INVALID)
    await world.moments()
    world.cluster.change_template("train", "other")
    fixed = world.cluster.objects["workloads", "ml/train"]["spec"]["template"]["spec"]
    world.cluster.edit("train", template={"spec": {k: v for k, v in fixed.items() if k != "nodeName"}})
    await world.moments(20)

    assert not set(before) & set(world.pods)
    assert {a["replica"]: a["devices"] for _, a in world.cluster.ledger()} == devices
    assert world.status["ready"] == "2/2"


async def test_reservation_is_restored_when_the_node_registers_again(world: World) -> None:
    before = await world.run_then_break()
    renamed = {"spec": {**INVALID["spec"], "containers": [{"name": "app", "image": "busybox"}]}}
    world.cluster.edit("train", template=renamed)
    await world.moments(2)

    for node in list(world.cluster.kubelets):
        world.cluster.register_again(node)
    await world.moments(6)

    assert world.pods == before
    assert {a["container"] for _, a in world.cluster.ledger()} == {"main"}
    assert world.status["ready"] == "2/2"
