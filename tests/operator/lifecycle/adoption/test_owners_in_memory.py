"""Workloads without a template on the cluster in memory, with a crash or a lost response at each write."""

import pytest

from gpufleet_api.names import Transport
from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Crash, WriteFault, faulty_writes
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.owners import FakeOwner, adopt
from gpufleet_testing.operator.process import OperatorProcess, RestartingOperator, moment

QUIET_MOMENTS = 3

OperatorOf = type[OperatorProcess] | type[RestartingOperator]


async def moments(
    cluster: FakeCluster, operator: OperatorProcess | RestartingOperator, owner: FakeOwner, number: int
) -> None:
    """Runs steps of every component, at most until three in a row change nothing and no decision changes by itself."""
    quiet = 0
    for _ in range(number):
        before = invariants.Moment(cluster)
        owner.step()
        await moment(cluster, operator)
        quiet = 0 if before.differs(cluster) or operator.next_change() is not None else quiet + 1
        if quiet == QUIET_MOMENTS:
            return


def states(cluster: FakeCluster) -> list[str]:
    (workload,) = cluster.of("workloads")
    return [p["state"] for p in workload["status"]["placements"]]


@pytest.mark.parametrize("kind", ["ReplicaSet", "StatefulSet", "Job"])
async def test_pods_of_an_owner_are_placed_and_scaled(kind: str) -> None:
    cluster = FakeCluster(2, 2)
    operator, owner = OperatorProcess(cluster), FakeOwner(cluster, kind, "own", 2)
    adopt(cluster)
    await moments(cluster, operator, owner, 4)
    assert states(cluster) == ["Allocated"] * 2

    owner.pods = 4
    await moments(cluster, operator, owner, 4)
    assert states(cluster) == ["Allocated"] * 4

    owner.pods = 1
    for index in (1, 2, 3):
        (name,) = [p["metadata"]["name"] for p in cluster.of("pods") if f"own-{index}" in p["metadata"]["name"]]
        cluster.delete_gracefully(f"ml/{name}")
    await moments(cluster, operator, owner, 9)
    assert states(cluster) == ["Allocated"]
    assert len(list(cluster.ledger())) == 1
    assert len(cluster.of("pods")) == 1
    invariants.check_always(cluster)


async def test_recreated_pod_of_the_same_name_gets_devices() -> None:
    cluster = FakeCluster(1, 2)
    operator, owner = OperatorProcess(cluster), FakeOwner(cluster, "StatefulSet", "own", 1)
    adopt(cluster)
    await moments(cluster, operator, owner, 4)
    (before,) = cluster.of("pods")

    cluster.delete_gracefully("ml/own-0")
    await moments(cluster, operator, owner, 9)

    (after,) = cluster.of("pods")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert states(cluster) == ["Allocated"]
    assert cluster.collisions == []


async def test_owner_deleted_while_its_pods_are_gated_leaves_nothing() -> None:
    cluster = FakeCluster(1, 1)
    operator, owner = OperatorProcess(cluster), FakeOwner(cluster, "ReplicaSet", "own", 2)
    adopt(cluster, replicas=2, placement={"gang": True})
    await moments(cluster, operator, owner, 3)
    assert not list(cluster.ledger())

    cluster.remove("owners", "ml/own")
    for _ in range(3):
        await moment(cluster, operator)

    assert cluster.of("pods") == []
    (workload,) = cluster.of("workloads")
    assert workload["status"]["state"] == "Idle"


async def test_suspended_and_resumed_job_is_placed_again() -> None:
    cluster = FakeCluster(1, 2)
    operator, owner = OperatorProcess(cluster), FakeOwner(cluster, "Job", "own", 2)
    adopt(cluster, replicas=2, placement={"gang": True})
    await moments(cluster, operator, owner, 4)
    assert states(cluster) == ["Allocated"] * 2

    owner.pods = 0  # as the Job's controller does when spec.suspend becomes true
    for pod in cluster.of("pods"):
        cluster.delete_gracefully(f"ml/{pod['metadata']['name']}")
    await moments(cluster, operator, owner, 9)
    assert not list(cluster.ledger())

    owner.pods = 2
    await moments(cluster, operator, owner, 4)
    assert states(cluster) == ["Allocated"] * 2


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("crashes", [True, False], ids=["crash", "lost answer"])
async def test_rejected_job_counts_nothing_with_a_fault_at_any_write(after: bool, crashes: bool) -> None:
    """kube-scheduler rejects node-1. The pods of the Job are replaced, without one failure, on node-2."""

    async def run(at: int | None) -> int:
        cluster = FakeCluster(2, 2)
        cluster.reject_binding = {"node-1"}
        planned = WriteFault(10**6 if at is None else at, Crash if crashes else UnavailableError, after=after)
        cluster.fault = planned
        operator, owner = RestartingOperator(cluster), FakeOwner(cluster, "Job", "own", 2)
        adopt(cluster, replicas=2, placement={"gang": True})
        await moments(cluster, operator, owner, 30)
        invariants.check_always(cluster)
        assert owner.failed == 0, f"fault at write {at}"
        assert states(cluster) == ["Allocated"] * 2, f"fault at write {at}"
        assert {node for node, _ in cluster.ledger()} == {"node-2"}, f"fault at write {at}"
        assert all(p["metadata"]["finalizers"] for p in cluster.of("pods")), f"fault at write {at}"
        return 10**6 - planned.left

    writes = await run(None)
    assert writes > 8
    for at in faulty_writes(writes, Crash if crashes else UnavailableError, after=after):
        await run(at)


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("crashes", [True, False], ids=["crash", "lost answer"])
async def test_rejected_pod_with_a_claim_stays_with_a_fault_at_any_write(after: bool, crashes: bool) -> None:
    """kube-scheduler rejects node-1. The pods keep their uid, and get devices of node-2 by other claims."""

    async def run(at: int | None) -> int:
        cluster = FakeCluster(2, 2, dra=2)
        cluster.reject_binding = {"node-1"}
        planned = WriteFault(10**6 if at is None else at, Crash if crashes else UnavailableError, after=after)
        cluster.fault = planned
        owner = FakeOwner(cluster, "Job", "own", 2, transport=Transport.DRA)
        operator = RestartingOperator(cluster)
        adopt(cluster, replicas=2, placement={"gang": True})
        owner.step()
        before = {p["metadata"]["uid"] for p in cluster.of("pods")}
        await moments(cluster, operator, owner, 30)
        invariants.check_always(cluster)
        assert owner.failed == 0, f"fault at write {at}"
        assert {p["metadata"]["uid"] for p in cluster.of("pods")} == before, f"fault at write {at}"
        assert states(cluster) == ["Allocated"] * 2, f"fault at write {at}"
        assert {node for node, _ in cluster.ledger()} == {"node-2"}, f"fault at write {at}"
        return 10**6 - planned.left

    writes = await run(None)
    assert writes > 8
    for at in faulty_writes(writes, Crash if crashes else UnavailableError, after=after):
        await run(at)


async def bound_before_its_deletion(operator_of: OperatorOf, fault: WriteFault | None) -> FakeCluster:
    """A pod of a Job has lost its finalizer, and is bound before it is deleted. It ends with success."""
    cluster = FakeCluster(2, 1)
    cluster.reject_binding = {"node-1"}
    cluster.fault = fault
    operator, owner = operator_of(cluster), FakeOwner(cluster, "Job", "own", 1)
    adopt(cluster)
    delete = cluster.delete_pod

    async def bind_first(namespace: str, name: str, uid: str, resource_version: str) -> None:
        cluster.reject_binding.clear()
        cluster.change("pods", f"{namespace}/{name}", conditions=[])
        cluster.scheduler()
        cluster.delete_pod = delete  # type: ignore[method-assign]  # the race happens once
        await delete(namespace, name, uid, resource_version)

    cluster.delete_pod = bind_first  # type: ignore[method-assign]  # see above
    await moments(cluster, operator, owner, 20)

    (pod,) = cluster.of("pods")
    assert pod["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    assert "gpufleet.dev/replaced" not in pod["metadata"]["annotations"]
    assert states(cluster) == ["Allocated"]
    cluster.finish(f"ml/{pod['metadata']['name']}", "Succeeded")
    owner.pods = 0
    await moments(cluster, operator, owner, 1)
    assert (owner.succeeded, owner.failed) == (1, 0)
    return cluster


async def test_pod_bound_between_patch_and_deletion_keeps_its_job_informed() -> None:
    """The deletion is rejected because the pod changed: it gets its finalizer back, and its end is counted."""
    cluster = await bound_before_its_deletion(OperatorProcess, None)
    assert [pod["spec"]["nodeName"] for pod in cluster.of("pods")] == ["node-1"], "another pod was created"


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("crashes", [True, False], ids=["crash", "lost answer"])
async def test_pod_gets_its_finalizer_back_with_a_fault_at_any_write(after: bool, crashes: bool) -> None:
    error = Crash if crashes else UnavailableError
    planned = WriteFault(10**6, error, after=after)
    await bound_before_its_deletion(RestartingOperator, planned)
    writes = 10**6 - planned.left
    assert writes > 6
    for at in range(writes):
        await bound_before_its_deletion(RestartingOperator, WriteFault(at, error, after=after))
