"""A changed template or number of replicas on a cluster in memory, also with a fault at each write."""

from collections.abc import Callable
from typing import Any

import pytest

from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Crash, Json, WriteFault
from gpufleet_testing.operator.cluster import BROKEN_IMAGE, FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, RestartingOperator, moment

SINGLES = {"replicas": 3}
GANG = {"replicas": 2, "devices": {"count": 2}, "placement": {"gang": True, "strategy": "Spread"}}
SHARES = {**GANG, "distribution": {"items": 1000, "mode": "Proportional", "by": "TotalMemory"}}
PARTS = {"replicas": 2, "devices": {"count": 1, "mode": "Shared", "memoryMiB": 800}}


def pods_of(cluster: FakeCluster, workload: str) -> dict[int, Json]:
    """Returns the pods that are not being deleted, by replica."""
    return {
        int(p["metadata"]["labels"]["gpufleet.dev/replica"]): p
        for p in cluster.of("pods")
        if p["metadata"]["labels"]["gpufleet.dev/workload"] == workload and "deletionTimestamp" not in p["metadata"]
    }


def images(cluster: FakeCluster, workload: str = "train") -> dict[int, str]:
    return {index: p["spec"]["containers"][0]["image"] for index, p in pods_of(cluster, workload).items()}


def devices(cluster: FakeCluster, workload: str = "train") -> dict[int, tuple[str, Any]]:
    """Returns node, devices and shard of each reservation, by replica."""
    return {
        a["replica"]: (node, (tuple(a["devices"]), a.get("shardStart"), a.get("shardEnd")))
        for node, a in cluster.ledger()
        if a["workload"] == workload
    }


def status(cluster: FakeCluster, workload: str = "train") -> Json:
    return dict(cluster.objects["workloads", f"ml/{workload}"]["status"])


def condition(cluster: FakeCluster, kind: str, workload: str = "train") -> tuple[str, str]:
    found = next(c for c in status(cluster, workload)["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


async def running(cluster: FakeCluster, operator: OperatorProcess | RestartingOperator, **spec: object) -> None:
    """Runs workload `train`."""
    cluster.submit("train", **spec)
    for _ in range(2):
        await moment(cluster, operator)
    assert {p["status"]["phase"] for p in cluster.of("pods")} == {"Running"}


@pytest.mark.parametrize("spec", [SINGLES, GANG, SHARES, PARTS], ids=["singles", "gang", "shares", "parts"])
async def test_changed_template_rolls_and_keeps_devices(spec: Json) -> None:
    """A workload that waits for the same devices does not get them."""
    cluster = FakeCluster(2, 2)
    operator = OperatorProcess(cluster)
    await running(cluster, operator, **spec)
    before = devices(cluster)
    cluster.submit("greedy", devices={"count": 1}, replicas=4)
    for _ in range(2):
        await moment(cluster, operator)
    others = devices(cluster, "greedy")

    cluster.change_template("train", "newer")
    for _ in range(40):
        await moment(cluster, operator)
        invariants.check_always(cluster)
        assert condition(cluster, "Placed")[0] == "True", "the devices are kept"

    assert set(images(cluster).values()) == {"newer"}
    assert devices(cluster) == before
    assert devices(cluster, "greedy") == others
    assert status(cluster)["updatedReplicas"] == spec["replicas"]
    assert condition(cluster, "Reconciling")[0] == "False"
    assert not any(a.get("keepForSuccessor") for _, a in cluster.ledger())


@pytest.mark.parametrize(
    ("spec", "kind", "after"),
    [({"replicas": 2}, Crash, False), ({"replicas": 2}, UnavailableError, True), (GANG, Crash, True)],
    ids=["singles, crash before", "singles, lost answer", "gang, crash after"],
)
async def test_fault_at_any_write_of_a_roll_keeps_devices(spec: Json, kind: type[BaseException], after: bool) -> None:
    async def run(at: int) -> tuple[bool, int]:
        cluster = FakeCluster(*(2, 2) if "devices" in spec else (1, 2))
        operator = RestartingOperator(cluster)
        await running(cluster, operator, **spec)
        before = devices(cluster)
        cluster.submit("greedy")
        await moment(cluster, operator)
        planned = cluster.fault = WriteFault(at, kind, after=after)
        cluster.change_template("train", "newer")
        await moment(cluster, operator)
        for _ in range(2):
            await restless(cluster, operator)
        writes = 10**6 - planned.left
        await invariants.settle(cluster, operator, rounds=12)
        invariants.check_always(cluster)
        invariants.check_settled(cluster)
        assert set(images(cluster).values()) == {"newer"}
        return devices(cluster) == before, writes

    _, writes = await run(10**6)
    assert writes > 10
    for at in range(writes):
        assert (await run(at))[0], f"fault at write {at}"


async def restless(cluster: FakeCluster, operator: RestartingOperator) -> None:
    """Every component takes steps until the devices of a deleted pod are free."""
    for _ in range(3):
        await moment(cluster, operator)
        cluster.advance(2)


async def test_roll_takes_one_replica_at_a_time_highest_index_first() -> None:
    cluster = FakeCluster(1, 4)
    operator = OperatorProcess(cluster)
    await running(cluster, operator, replicas=4)
    cluster.change_template("train", "newer")
    seen: list[list[int]] = []
    for _ in range(60):
        await moment(cluster, operator)
        updated = sorted(i for i, image in images(cluster).items() if image == "newer")
        ready = [p for p in cluster.of("pods") if "deletionTimestamp" not in p["metadata"] and is_ready(p)]
        assert len(ready) >= 3
        if updated not in seen:
            seen.append(updated)
    assert seen == [[], [3], [2, 3], [1, 2, 3], [0, 1, 2, 3]]


def is_ready(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


async def test_roll_stops_at_a_template_whose_pods_do_not_become_ready() -> None:
    cluster = FakeCluster(1, 4)
    operator = OperatorProcess(cluster)
    await running(cluster, operator, replicas=4, updateStrategy={"maxUnavailable": "50%"})
    cluster.change_template("train", BROKEN_IMAGE)
    for _ in range(40):
        await moment(cluster, operator)
    assert sorted(images(cluster).values()) == ["broken", "broken", "busybox", "busybox"]
    assert condition(cluster, "Reconciling") == ("True", "RollingUpdate")
    assert status(cluster)["updatedReplicas"] == 2

    cluster.change_template("train", "repaired")
    for _ in range(60):
        await moment(cluster, operator)
    assert set(images(cluster).values()) == {"repaired"}


async def test_on_delete_rolls_when_a_user_deletes_the_pod() -> None:
    cluster = FakeCluster(1, 3)
    operator = OperatorProcess(cluster)
    await running(cluster, operator, replicas=2, updateStrategy={"type": "OnDelete"})
    before = devices(cluster)
    cluster.submit("greedy", devices={"count": 1}, replicas=4)
    cluster.change_template("train", "newer")
    for _ in range(6):
        await moment(cluster, operator)
    assert images(cluster) == {0: "busybox", 1: "busybox"}
    assert condition(cluster, "Reconciling")[0] == "False"
    assert status(cluster)["updatedReplicas"] == 0

    cluster.delete_gracefully(f"ml/{pods_of(cluster, 'train')[0]['metadata']['name']}")
    for _ in range(20):
        await moment(cluster, operator)
    assert images(cluster) == {0: "newer", 1: "busybox"}
    assert devices(cluster) == before


async def test_gated_pod_of_an_older_template_is_replaced_at_once() -> None:
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    cluster.submit("train", devices={"count": 2}, updateStrategy={"type": "OnDelete"})
    await moment(cluster, operator)
    cluster.change_template("train", "newer")
    await moment(cluster, operator)
    await moment(cluster, operator)
    assert images(cluster) == {0: "newer"}


async def test_template_that_changes_back_unmarks_the_reservations() -> None:
    cluster = FakeCluster(1, 3)
    operator = OperatorProcess(cluster)
    await running(cluster, operator, replicas=3)
    uids = {i: p["metadata"]["uid"] for i, p in pods_of(cluster, "train").items()}
    cluster.change_template("train", "newer")
    operator.hear(1000)
    await operator.act()
    assert sum(bool(a.get("keepForSuccessor")) for _, a in cluster.ledger()) == 3
    cluster.change_template("train", "busybox")
    for _ in range(3):
        await moment(cluster, operator)
    assert {i: p["metadata"]["uid"] for i, p in pods_of(cluster, "train").items()} == uids
    assert not any(a.get("keepForSuccessor") for _, a in cluster.ledger())


async def test_second_change_during_a_roll_keeps_devices() -> None:
    cluster = FakeCluster(1, 2)
    operator = OperatorProcess(cluster)
    await running(cluster, operator, replicas=2)
    before = devices(cluster)
    cluster.submit("greedy", devices={"count": 1}, replicas=4)
    for image in ("newer", "newest"):
        cluster.change_template("train", image)
        await moment(cluster, operator)
        await moment(cluster, operator)
    for _ in range(40):
        await moment(cluster, operator)
    assert set(images(cluster).values()) == {"newest"}
    assert devices(cluster) == before


def cordon(cluster: FakeCluster) -> None:
    body = cluster.objects["nodes", "node-1"]
    cluster.store("nodes", "node-1", {**body, "spec": {"unschedulable": True}})


def demand_much(cluster: FakeCluster) -> None:
    cluster.change_template("train", "newer", resources={"requests": {"cpu": "10"}})


def silence(cluster: FakeCluster) -> None:
    cluster.silent.add("node-1")
    cluster.advance(91)


def exclude(cluster: FakeCluster) -> None:
    cluster.edit("train", requirements={"excludeUUIDs": ["GPU-node-1-0", "GPU-node-1-1"]})


def take_out_of_service(cluster: FakeCluster) -> None:
    body = cluster.objects["telemetry", "node-1"]
    cordoned = [{"uuid": f"GPU-node-1-{index}", "reason": "fan"} for index in range(2)]
    cluster.store("telemetry", "node-1", {**body, "spec": {**body["spec"], "cordoned": cordoned}})


@pytest.mark.parametrize("obstacle", [cordon, demand_much, silence, exclude, take_out_of_service])
async def test_devices_that_the_successor_cannot_use_are_given_up(obstacle: Callable[[FakeCluster], None]) -> None:
    cluster = FakeCluster(1, 2)
    operator = OperatorProcess(cluster)
    busy = {"name": "main", "image": "busybox", "resources": {"requests": {"cpu": "8"}}}
    cluster.submit("busy", template={"spec": {"restartPolicy": "Always", "containers": [busy]}})
    await running(cluster, operator)
    cluster.add_node("node-2", 1)
    cluster.change_template("train", "newer")
    obstacle(cluster)
    for _ in range(12):
        await moment(cluster, operator)
        invariants.check_always(cluster)
    assert images(cluster) == {0: "newer"}
    assert devices(cluster)[0][0] == "node-2"


async def test_devices_are_given_up_when_no_successor_comes() -> None:
    """Every creation of a pod fails: another workload gets the devices after the limit."""
    cluster = FakeCluster(1, 1)
    operator = OperatorProcess(cluster)
    await running(cluster, operator)
    cluster.submit("greedy")
    await moment(cluster, operator)
    cluster.change_template("train", "newer")
    cluster.reject_creation = True
    for _ in range(10):
        await moment(cluster, operator)
    assert [a["workload"] for _, a in cluster.ledger()] == ["train"]
    cluster.advance(120)
    for _ in range(4):
        await moment(cluster, operator)
    assert [a["workload"] for _, a in cluster.ledger()] == ["greedy"]


async def test_scale_down_removes_the_highest_index_and_up_adds_it_again() -> None:
    cluster = FakeCluster(1, 4)
    operator = OperatorProcess(cluster)
    await running(cluster, operator, replicas=3)
    uids = {i: p["metadata"]["uid"] for i, p in pods_of(cluster, "train").items()}
    cluster.edit("train", replicas=1)
    await moment(cluster, operator)
    assert condition(cluster, "Reconciling") == ("True", "ScalingDown")
    for _ in range(10):
        await moment(cluster, operator)
    assert {i: p["metadata"]["uid"] for i, p in pods_of(cluster, "train").items()} == {0: uids[0]}
    assert list(devices(cluster)) == [0]
    assert (status(cluster)["ready"], condition(cluster, "Ready")[0]) == ("1/1", "True")

    cluster.edit("train", replicas=2)
    for _ in range(6):
        await moment(cluster, operator)
    assert pods_of(cluster, "train")[0]["metadata"]["uid"] == uids[0]
    assert sorted(devices(cluster)) == [0, 1]
    assert set(images(cluster)) == {0, 1}


async def test_zero_replicas_free_the_devices_and_are_current() -> None:
    cluster = FakeCluster(1, 2)
    operator = OperatorProcess(cluster)
    await running(cluster, operator, replicas=2)
    cluster.edit("train", replicas=0)
    for _ in range(10):
        await moment(cluster, operator)
    assert cluster.of("pods") == []
    assert not list(cluster.ledger())
    conditions = {c["type"]: (c["status"], c["reason"], c["message"]) for c in status(cluster)["conditions"]}
    assert conditions["Ready"] == ("True", "NoReplicas", "spec.replicas is 0")
    assert conditions["Reconciling"][0] == "False"
    assert conditions["Stalled"][0] == "False"
    assert (status(cluster)["replicas"], status(cluster)["ready"]) == (0, "0/0")


async def test_replica_that_is_scaled_down_during_its_roll_frees_its_devices() -> None:
    cluster = FakeCluster(1, 2)
    operator = OperatorProcess(cluster)
    await running(cluster, operator, replicas=2)
    cluster.change_template("train", "newer")
    await moment(cluster, operator)
    cluster.edit("train", replicas=1)
    for _ in range(30):
        await moment(cluster, operator)
    assert list(devices(cluster)) == [0]
    assert images(cluster) == {0: "newer"}
