"""Single scenarios, and one scenario with a crash or a lost response at each of its writes in turn."""

from collections import Counter
from datetime import timedelta

import pytest

from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_operator.runtime.pacing.held_statuses import HOLD
from gpufleet_testing.hypothesis_profiles import THOROUGH
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Crash, Json, WriteFault, faulty_writes
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, RestartingOperator, moment

GANG = {"replicas": 2, "devices": {"count": 2}, "placement": {"gang": True, "strategy": "Spread"}}
SHARES = {**GANG, "distribution": {"items": 1000, "mode": "Proportional", "by": "TotalMemory"}}
MANY = {"replicas": 3, "placement": {"strategy": "Pack"}}
PARTS = {"replicas": 4, "devices": {"count": 1, "mode": "Shared", "memoryMiB": 400}, "placement": {"strategy": "Pack"}}


def states(world: FakeCluster) -> Counter[str]:
    placements = [p for w in world.of("workloads") for p in (w.get("status") or {}).get("placements", [])]
    return Counter(p["state"] for p in placements)


async def live(world: FakeCluster, operator: OperatorProcess | RestartingOperator, spec: Json) -> None:
    """Workloads are created, run, lose a pod, and are deleted."""
    world.submit("one", **spec)
    world.submit("two")
    for _ in range(3):
        await moment(world, operator)
    name = world.of("pods")[0]["metadata"]["name"]
    world.delete_gracefully(f"ml/{name}")
    for _ in range(3):
        await moment(world, operator)
    world.remove("workloads", "ml/two")
    for _ in range(2):
        await moment(world, operator)


def end(world: FakeCluster) -> tuple[object, ...]:
    """Returns what must not depend on the fault."""
    shares = [
        (p["shardStart"], p["shardEnd"])
        for w in world.of("workloads")
        for p in w["status"]["placements"]
        if "shardStart" in p
    ]
    return states(world), sorted(shares), len(list(world.ledger())), len(world.of("pods"))


SPECS = {"shares": SHARES, "many": MANY, "parts": PARTS} | ({"gang": GANG} if THOROUGH else {})
"""Workloads of the test below. One of shares is a gang as well, and does all that a gang does."""

FAULTS = [(spec, 0, after, crashes) for spec in SPECS for after in (False, True) for crashes in (True, False)]
"""Workload, number of nodes with transport DRA, whether the write is done, whether the operator crashes."""
FAULTS += [("shares", 1, True, True), ("parts", 2, True, False)]
FAULTS += [("shares", 2, True, False), ("many", 1, True, True), ("gang", 1, False, False)] if THOROUGH else []


def _id(value: object) -> str:
    return {0: "", 1: "both transports", 2: "claims"}.get(value, str(value)) if type(value) is int else str(value)


@pytest.mark.parametrize(("name", "dra", "after", "crashes"), FAULTS, ids=_id)
async def test_fault_at_any_write_leads_to_the_same_end(name: str, dra: int, after: bool, crashes: bool) -> None:
    spec, kind = SPECS[name], Crash if crashes else UnavailableError

    async def run(at: int | None) -> tuple[object, int]:
        cluster = FakeCluster(2, 3, dra=dra)
        planned = WriteFault(10**6 if at is None else at, kind, after=after)
        cluster.fault = planned
        operator = RestartingOperator(cluster, HOLD if name == "many" else timedelta(0))
        await live(cluster, operator, spec)
        writes = 10**6 - planned.left
        await invariants.settle(cluster, operator, rounds=6)
        invariants.check_always(cluster)
        invariants.check_settled(cluster)
        return end(cluster), writes

    expected, writes = await run(None)
    assert writes > 10
    for at in faulty_writes(writes, kind, after=after):
        assert (await run(at))[0] == expected, f"fault at write {at}"


async def test_force_deleted_pod_keeps_its_devices_until_its_container_ends() -> None:
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    cluster.submit("first")
    for _ in range(3):
        await moment(cluster, operator)
    cluster.submit("second")
    await moment(cluster, operator)
    (holder,) = [p["metadata"]["name"] for p in cluster.of("pods") if p["spec"].get("nodeName")]

    cluster.remove("workloads", "ml/first")
    cluster.remove("pods", f"ml/{holder}")
    await moment(cluster, operator)

    assert [a["pod"] for _, a in cluster.ledger()] == [holder], "the agent still reports its container"
    for _ in range(3):
        await moment(cluster, operator)
    assert [a["pod"] for _, a in cluster.ledger()] == [holder], (
        "not reported any more, but the kubelet takes time to kill it"
    )
    for _ in range(4):
        await moment(cluster, operator)
    assert cluster.collisions == []
    assert states(cluster) == {"Allocated": 1}


async def test_force_deleted_sharer_keeps_its_share_until_its_container_ends() -> None:
    """The other sharers run on. A share that fits only without it waits, and so does a whole device."""
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    part = {"count": 1, "mode": "Shared", "memoryMiB": 500}
    cluster.submit("first", devices=part)
    cluster.submit("second", devices=part)
    for _ in range(3):
        await moment(cluster, operator)
    assert states(cluster) == {"Allocated": 2}
    cluster.submit("third", devices=part)
    cluster.submit("whole")
    holder = next(p["metadata"]["name"] for p in cluster.of("pods") if p["metadata"]["name"].startswith("first"))

    cluster.remove("workloads", "ml/first")
    cluster.remove("pods", f"ml/{holder}")
    for _ in range(3):
        await moment(cluster, operator)
    assert sorted(a["workload"] for _, a in cluster.ledger()) == ["first", "second"]
    await invariants.settle(cluster, operator, rounds=4)

    invariants.check_always(cluster)
    invariants.check_settled(cluster)
    assert sorted(a["workload"] for _, a in cluster.ledger()) == ["second", "third"]
    assert states(cluster) == {"Allocated": 2, "Pending": 1}


async def test_unreported_pod_keeps_its_devices_until_a_later_report() -> None:
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    cluster.submit("first")
    for _ in range(2):
        operator.hear(1000)
        await operator.act()
    cluster.scheduler()
    cluster.kubelet("node-1")  # started, and deleted before the agent reports it
    cluster.remove("workloads", "ml/first")
    (pod,) = cluster.of("pods")
    cluster.remove("pods", f"ml/{pod['metadata']['name']}")
    cluster.submit("second")
    for _ in range(2):
        operator.hear(1000)
        await operator.act()

    assert len(list(cluster.ledger())) == 1, "the last report is older than the pod's end"
    await invariants.settle(cluster, operator, rounds=5)
    assert cluster.collisions == []
    assert states(cluster) == {"Allocated": 1}


@pytest.mark.parametrize("away", [False, True], ids=["operator watches", "operator is away"])
async def test_old_report_of_a_disconnected_node_frees_no_devices(away: bool) -> None:
    """The last report is older than the allocation, and the node does not learn of the forced deletion."""
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    cluster.submit("first")
    for _ in range(2):
        operator.hear(1000)
        await operator.act()
    cluster.scheduler()
    cluster.kubelet("node-1")
    cluster.silent.add("node-1")
    cluster.submit("second")
    if not away:
        operator.hear(1000)
    (pod,) = [p for p in cluster.of("pods") if p["spec"].get("nodeName")]
    cluster.remove("workloads", "ml/first")
    cluster.remove("pods", f"ml/{pod['metadata']['name']}")
    operator = OperatorProcess(cluster) if away else operator
    for _ in range(8):
        operator.hear(1000)
        await operator.act()
        cluster.advance(4)

    assert [a["podUID"] for _, a in cluster.ledger()] == [pod["metadata"]["uid"]], "its container runs on"
    await invariants.settle(cluster, operator, rounds=6)
    invariants.check_always(cluster)
    assert states(cluster) == {"Allocated": 1}


async def test_never_bound_pod_frees_its_devices_immediately() -> None:
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    cluster.submit("first")
    cluster.reject_binding.add("node-1")
    await moment(cluster, operator)
    assert len(list(cluster.ledger())) == 1

    cluster.remove("workloads", "ml/first")
    cluster.collector()
    operator.hear(1000)
    await operator.act()

    assert list(cluster.ledger()) == []


async def test_workload_deleted_while_the_operator_is_down_leaves_nothing() -> None:
    cluster = FakeCluster(2, 2)
    operator = OperatorProcess(cluster)
    cluster.submit("gone", **GANG)
    for _ in range(3):
        await moment(cluster, operator)
    assert states(cluster) == {"Allocated": 2}

    cluster.remove("workloads", "ml/gone")
    for _ in range(2):
        cluster.collector()
        for node in cluster.kubelets:
            cluster.kubelet(node)
            cluster.agent(node)
    assert len(list(cluster.ledger())) == 2
    await invariants.settle(cluster, OperatorProcess(cluster), rounds=5)

    assert list(cluster.ledger()) == []
    assert cluster.of("pods") == []


async def test_gang_with_a_conflict_on_one_node_releases_the_other() -> None:
    cluster = FakeCluster(2, 2)
    operator = OperatorProcess(cluster)
    cluster.submit("gang", **GANG)
    operator.hear(1000)
    await operator.act()
    foreign = {"podUID": "uid-x", "namespace": "ml", "pod": "x", "container": "c", "workload": "x", "workloadUID": "x"}
    rest = {"replica": 0, "replicas": 1, "resource": "gpufleet.dev/gpu", "decidedAt": "2026-01-01T00:00:00Z"}
    devices = [f"GPU-node-2-{i}" for i in range(2)]
    node = cluster.objects["telemetry", "node-2"]
    spec = {"assignments": [{**foreign, **rest, "devices": devices}]}
    cluster.store("telemetry", "node-2", {**node, "metadata": dict(node["metadata"]), "spec": spec})

    await operator.act()  # with a cache from before the other write

    assert [len(t["spec"]["assignments"]) for t in cluster.of("telemetry")] == [1, 1]
    assert cluster.released == []
    await operator.act()
    assert [len(t["spec"]["assignments"]) for t in cluster.of("telemetry")] == [0, 1]
    assert cluster.released == []


async def test_running_pods_are_kept_when_their_node_registers_again() -> None:
    cluster = FakeCluster(1, 2)
    operator = OperatorProcess(cluster)
    cluster.submit("one")
    for _ in range(3):
        await moment(cluster, operator)
    before = [(p["metadata"]["uid"], p["status"]["phase"]) for p in cluster.of("pods")]

    cluster.register_again("node-1")
    await invariants.settle(cluster, operator, rounds=3)

    assert [(p["metadata"]["uid"], p["status"]["phase"]) for p in cluster.of("pods")] == before
    assert states(cluster) == {"Allocated": 1}
    assert len(list(cluster.ledger())) == 1


async def test_node_that_rejects_a_pod_is_replaced_by_another() -> None:
    cluster = FakeCluster(2, 1)
    operator = OperatorProcess(cluster)
    cluster.submit("one")
    cluster.reject_admission.add("node-1")
    for _ in range(6):
        await moment(cluster, operator)

    assert states(cluster) == {"Allocated": 1}
    assert [n for n, _ in cluster.ledger()] == ["node-2"]
    assert any(event.startswith("KubeletRejected") for event in cluster.events)


async def test_withheld_device_is_replaced_by_another_of_its_node() -> None:
    cluster = FakeCluster(1, 2)
    best = cluster.devices("node-1")[0]
    cluster.withheld.add(best)
    cluster.agent("node-1")
    operator = OperatorProcess(cluster)
    cluster.submit("one")
    for _ in range(4):
        await moment(cluster, operator)
    assert states(cluster) == {"Allocated": 1}
    assert [a["devices"] for _, a in cluster.ledger()] == [cluster.devices("node-1")[1:]]
    assert not any(event.startswith("KubeletRejected") for event in cluster.events)

    cluster.withheld.add(cluster.devices("node-1")[1])
    await invariants.settle(cluster, operator, rounds=3)
    assert states(cluster) == {"Allocated": 1}, "its holder keeps it"

    cluster.withheld.remove(best)
    cluster.submit("two")
    await invariants.settle(cluster, operator, rounds=3)
    assert states(cluster) == {"Allocated": 2}


async def test_stale_telemetry_delays_placement_until_it_is_fresh() -> None:
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    cluster.silent.add("node-1")
    cluster.advance(100)
    cluster.submit("one")
    for _ in range(3):
        await moment(cluster, operator)
    assert states(cluster) == {"Pending": 1}
    (workload,) = cluster.of("workloads")
    assert "older than 90 s" in str(workload["status"]["explanation"])

    cluster.silent.clear()
    for _ in range(3):
        await moment(cluster, operator)

    assert states(cluster) == {"Allocated": 1}
