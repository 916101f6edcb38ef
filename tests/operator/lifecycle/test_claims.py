"""Nodes with transport DRA, in memory: claims that are rejected or deleted, and fleets with both transports."""

from collections.abc import Callable
from typing import Any

import pytest

from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import FakeApiserver
from gpufleet_testing.operator.cluster import FakeCluster, claim_of
from gpufleet_testing.operator.process import OperatorProcess, moment

QUOTA = "exceeded quota: q, requested: gpu.gpufleet.dev.deviceclass.resource.k8s.io/devices=1"


def states(cluster: FakeCluster) -> list[str]:
    placements = [p for w in cluster.of("workloads") for p in (w.get("status") or {}).get("placements", [])]
    return sorted(p["state"] for p in placements)


async def test_workload_beyond_the_quota_of_claims_leaves_its_devices_to_others() -> None:
    cluster = FakeCluster(1, 1, dra=1)
    cluster.reject_claims = QUOTA
    operator = OperatorProcess(cluster)
    cluster.submit("one")
    for _ in range(2):
        await moment(cluster, operator)
    assert list(cluster.ledger()) == []
    assert cluster.released == []
    (workload,) = cluster.of("workloads")
    assert "waiting for quota" in str(workload["status"]["conditions"])

    cluster.reject_claims = ""
    await invariants.settle(cluster, operator, rounds=8)
    invariants.check_always(cluster)
    invariants.check_settled(cluster)
    assert states(cluster) == ["Allocated"]


async def test_share_without_consumable_capacity_stalls_with_the_reason() -> None:
    """Kubernetes before 1.36 drops the capacity of a request: the claim would take the whole device."""
    cluster = FakeCluster(1, 1, dra=1)
    cluster.drops_capacity = True
    operator = OperatorProcess(cluster)
    cluster.submit("shared", devices={"count": 1, "mode": "Shared", "memoryMiB": 400})
    writes = []
    for _ in range(12):
        before = cluster.sent
        await moment(cluster, operator)
        writes.append(cluster.sent - before)
        cluster.advance(1)
    (workload,) = cluster.of("workloads")
    assert cluster.released == []
    stalled = next(one for one in workload["status"]["conditions"] if one["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "ClaimCreateFailed")
    assert "shares by claims need Kubernetes 1.36" in stalled["message"]
    assert list(cluster.ledger()) == []
    assert cluster.of("claims") == []
    assert writes[-4:].count(0) >= 3, f"the claim is created again without a pause: {writes}"


async def test_claim_deleted_before_its_allocation_is_created_again() -> None:
    cluster = FakeCluster(1, 1, dra=1)
    operator = OperatorProcess(cluster)
    cluster.submit("one")
    for _ in range(3):
        operator.hear(1000)
        await operator.act()
    (claim,) = cluster.of("claims")
    assert len(cluster.released) == 1
    cluster.remove("claims", f"ml/{claim['metadata']['name']}")
    await invariants.settle(cluster, operator, rounds=4)
    (again,) = cluster.of("claims")
    assert again["metadata"]["uid"] != claim["metadata"]["uid"]
    invariants.check_settled(cluster)
    assert states(cluster) == ["Allocated"]


async def test_gang_needs_nodes_of_both_transports_and_gets_them() -> None:
    cluster = FakeCluster(2, 2, dra=1)
    operator = OperatorProcess(cluster)
    cluster.submit("gang", replicas=2, devices={"count": 2}, placement={"gang": True})
    await invariants.settle(cluster, operator, rounds=6)
    invariants.check_always(cluster)
    invariants.check_settled(cluster)
    assert states(cluster) == ["Allocated", "Allocated"]
    claimed = {pod["spec"]["nodeName"]: claim_of(pod) is not None for pod in cluster.of("pods")}
    assert claimed == {"node-1": False, "node-2": True}


async def test_gang_that_fits_nowhere_keeps_its_pods() -> None:
    """No pod is replaced as long as the other transport would not help."""
    cluster = FakeCluster(2, 2, dra=1)
    operator = OperatorProcess(cluster)
    cluster.submit("gang", replicas=3, devices={"count": 2}, placement={"gang": True})
    for _ in range(2):
        await moment(cluster, operator)
    before = {pod["metadata"]["uid"] for pod in cluster.of("pods")}
    await invariants.settle(cluster, operator, rounds=3)
    assert {pod["metadata"]["uid"] for pod in cluster.of("pods")} == before
    assert states(cluster) == ["Pending"] * 3
    (workload,) = cluster.of("workloads")
    assert "2 of 3 replicas would fit" in workload["status"]["explanation"]["message"]


async def test_replicas_that_find_no_device_of_their_transport_get_the_other_one() -> None:
    cluster = FakeCluster(2, 2, dra=1)
    operator = OperatorProcess(cluster)
    cluster.submit("many", replicas=4)
    await invariants.settle(cluster, operator, rounds=6)
    invariants.check_always(cluster)
    invariants.check_settled(cluster)
    assert states(cluster) == ["Allocated"] * 4
    assert sum(claim_of(pod) is not None for pod in cluster.of("pods")) == 2


@pytest.mark.parametrize(
    ("dra", "writes"),
    [
        (0, ["create_pod", "patch_telemetry", "patch_pod"]),
        (1, ["create_pod", "patch_telemetry", "create_claim", "patch_pod"]),
    ],
    ids=["DevicePlugin", "DRA"],
)
async def test_pinned_workload_is_released_after_two_passes_with_one_pod(
    dra: int, writes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pod, then reservation, claim and release; statuses and events do not delay them."""
    cluster = FakeCluster(2, 1, dra=dra)
    node = cluster.objects["nodes", "node-2"]
    cluster.store("nodes", "node-2", {**node, "metadata": {**node["metadata"], "labels": {"zone": "two"}}})
    operator = OperatorProcess(cluster)
    await moment(cluster, operator)
    sent = recorded(cluster, monkeypatch)
    cluster.submit("one", requirements={"nodeSelector": {"zone": "two"}})
    for _ in range(2):
        operator.hear(1000)
        await operator.act()
    assert len(cluster.released) == 1
    assert [name for name in sent if name not in TOLD] == writes
    assert sorted(name for name in sent if name in TOLD) == ["create_event", *["patch_workload_status"] * 2]
    await invariants.settle(cluster, operator, rounds=4)
    assert states(cluster) == ["Allocated"]
    assert sent.count("create_pod") == 1
    assert "delete_pod" not in sent


TOLD = {"patch_workload_status", "create_event", "patch_event"}
"""Writes that only report."""


def recorded(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the list to which each write that concerns a workload is added."""
    sent: list[str] = []
    names = [name for name in vars(FakeApiserver) if name.startswith(("create_", "delete_", "evict_", "patch_"))]
    for name in names:
        monkeypatch.setattr(cluster, name, _noting(name, getattr(cluster, name), sent))
    return sent


def _noting(name: str, write: Callable[..., Any], sent: list[str]) -> Callable[..., Any]:
    def noted(*arguments: object) -> Any:
        sent.append(name)
        return write(*arguments)

    return noted
