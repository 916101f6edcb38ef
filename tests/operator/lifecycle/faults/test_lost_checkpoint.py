"""A kubelet whose checkpoint is lost lists nothing for pods that run well."""

from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment


async def live(world: FakeCluster, operator: OperatorProcess, seconds: int) -> None:
    for _ in range(seconds):
        await moment(world, operator)


def allocated(world: FakeCluster) -> Json:
    found: list[Json] = world.objects["workloads", "ml/one"]["status"]["conditions"]
    return next(c for c in found if c["type"] == "Allocated")


async def test_running_pod_is_kept_and_its_allocation_is_unknown() -> None:
    world = FakeCluster(1, 2)
    operator = OperatorProcess(world)
    world.submit("one")
    await live(world, operator, 3)
    (pod,) = world.of("pods")
    key = f"ml/{pod['metadata']['name']}"
    assert allocated(world)["status"] == "True"

    world.kubelets["node-1"].clear()
    statuses = [
        {**c, "allocatedResourcesStatus": []} for c in world.objects["pods", key]["status"]["containerStatuses"]
    ]
    world.change("pods", key, containerStatuses=statuses)
    await live(world, operator, 30)
    operator = OperatorProcess(world)
    await live(world, operator, 30)

    assert [p["metadata"]["uid"] for p in world.of("pods")] == [pod["metadata"]["uid"]], "the pod was replaced"
    assert (allocated(world)["status"], allocated(world)["reason"]) == ("Unknown", "NotListed")
    assert len(list(world.ledger())) == 1, "its devices are not reserved any more"
    world.submit("two")
    await live(world, operator, 5)
    assert not world.collisions
    assert len({a["devices"][0] for _, a in world.ledger()}) == 2
