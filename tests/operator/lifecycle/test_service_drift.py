"""A headless Service that another client changes, in the whole operator on a cluster in memory."""

from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment

SELECTOR = {"gpufleet.dev/workload": "train"}


def service(cluster: FakeCluster) -> Json:
    (found,) = cluster.of("services")
    return found


def change(cluster: FakeCluster, **spec: object) -> None:
    found = service(cluster)
    cluster.store("services", "ml/train", {**found, "spec": {**found["spec"], **spec}})


async def running() -> tuple[FakeCluster, OperatorProcess]:
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    cluster.submit("train", network={"enableDNSHostnames": True})
    for _ in range(4):
        await moment(cluster, operator)
    return cluster, operator


async def test_changed_selector_is_restored_and_ports_stay() -> None:
    cluster, operator = await running()

    change(cluster, selector={"app": "other"}, ports=[{"port": 80}])
    await moment(cluster, operator)

    assert service(cluster)["spec"]["selector"] == SELECTOR
    assert service(cluster)["spec"]["ports"] == [{"port": 80}]
    assert [event.partition(":")[0] for event in cluster.events].count("ServiceRestored") == 1


async def test_client_that_changes_it_again_is_answered_every_half_minute() -> None:
    cluster, operator = await running()
    writes = 0
    for _ in range(65):
        change(cluster, selector={"app": "other"})
        await moment(cluster, operator)
        writes += service(cluster)["spec"]["selector"] == SELECTOR

    assert writes == 3


async def test_change_is_restored_after_a_restart() -> None:
    cluster, _ = await running()

    change(cluster, selector={"app": "other"})
    await moment(cluster, OperatorProcess(cluster))

    assert service(cluster)["spec"]["selector"] == SELECTOR
