"""A drained device, a fault and a waiting pod in the whole operator, on a cluster in memory."""

from gpufleet_api.names import WAITING_FOR_ANNOTATION
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment


async def passes(cluster: FakeCluster, operator: OperatorProcess, number: int = 1) -> None:
    for _ in range(number):
        await moment(cluster, operator)


def cordon(cluster: FakeCluster, node: str, **entry: object) -> None:
    stored = cluster.objects["telemetry", node]
    cordoned = [{"reason": "fan", **entry}]
    cluster.store("telemetry", node, {**stored, "spec": {**stored["spec"], "cordoned": cordoned}})


def devices(cluster: FakeCluster) -> list[str]:
    return [uuid for _, assignment in cluster.ledger() for uuid in assignment["devices"]]


async def test_drained_pod_moves_once_its_budget_allows_that() -> None:
    cluster = FakeCluster(2, 1)
    operator = OperatorProcess(cluster)
    cluster.submit("train")
    await passes(cluster, operator, 3)
    (before,) = devices(cluster)
    node = before.removeprefix("GPU-").rpartition("-")[0]
    cluster.disruptions_allowed = 0

    cordon(cluster, node, uuid=before, drain=True)
    await passes(cluster, operator, 3)

    assert devices(cluster) == [before]
    assert any(event.startswith("EvictionBlocked: ") for event in cluster.events)

    cluster.disruptions_allowed = 1
    await passes(cluster, operator, 12)

    (after,) = devices(cluster)
    assert after != before
    assert cluster.disruptions_allowed == 0
    assert any(event.startswith("PodEvicted: evicted pod ") for event in cluster.events)
    assert cluster.objects["telemetry", node]["spec"]["cordoned"][0]["uuid"] == before, "still cordoned"
    assert cluster.collisions == []


async def test_waiting_pod_is_explained_until_it_is_released() -> None:
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    cluster.submit("first")
    await passes(cluster, operator, 3)
    cluster.submit("second")
    await passes(cluster, operator, 4)

    def annotations() -> list[str | None]:
        pods = [p for p in cluster.of("pods") if "second" in p["metadata"]["name"]]
        return [p["metadata"].get("annotations", {}).get(WAITING_FOR_ANNOTATION) for p in pods]

    assert annotations() == ["Devices"]
    said = [event for event in cluster.events if event.startswith("WaitingForDevices: ")]
    assert len(said) == 1, said
    cluster.remove("workloads", "ml/first")
    await passes(cluster, operator, 10)
    assert annotations() == [None]
    assert cluster.collisions == []


async def test_conditions_survive_the_reports_of_the_agent_and_a_restart() -> None:
    cluster = FakeCluster(1, 1)
    await passes(cluster, OperatorProcess(cluster), 2)

    def conditions(kind: str) -> dict[str, str]:
        return {c["type"]: c["status"] for c in cluster.objects[kind, "node-1"]["status"]["conditions"]}

    assert conditions("telemetry") == {"Fresh": "True", "Healthy": "True"}
    assert conditions("nodes") == {"GPUHealthy": "True"}
    written = len(cluster.log)
    operator = OperatorProcess(cluster)
    await operator.act()
    assert len(cluster.log) == written, "a restart writes nothing again"
    cluster.silent.add("node-1")
    cluster.advance(100)
    await operator.act()
    assert conditions("telemetry") == {"Fresh": "False", "Healthy": "Unknown"}
    assert conditions("nodes") == {"GPUHealthy": "Unknown"}


async def test_gang_with_a_drained_member_restarts_and_counts_no_failure() -> None:
    cluster = FakeCluster(1, 3)
    operator = OperatorProcess(cluster)
    cluster.submit("train", replicas=2, placement={"gang": True})
    await passes(cluster, operator, 4)
    drained = devices(cluster)[0]

    cordon(cluster, "node-1", uuid=drained, drain=True)
    await passes(cluster, operator, 25)

    assert len(devices(cluster)) == 2
    assert drained not in devices(cluster)
    (workload,) = cluster.of("workloads")
    placements = workload["status"]["placements"]
    assert [p.get("failures", 0) for p in placements] == [0, 0]
    assert {p["state"] for p in placements} == {"Allocated"}
    assert cluster.collisions == []
