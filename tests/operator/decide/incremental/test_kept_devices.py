"""Why a successor waits for its predecessor's devices is the same in a decision on what changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import LEASE, OperatorProcess, moment


def message(cluster: FakeCluster) -> str:
    (placement,) = cluster.objects["workloads", "ml/train"]["status"]["placements"]
    return str(placement.get("message", ""))


async def test_reason_to_wait_names_the_node_of_the_devices_only(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(3, 2)
    operator = OperatorProcess(cluster, checked=True)
    operator.read_leases()
    cluster.submit("train", devices={"count": 2, "mode": "Shared", "memoryMiB": 400})
    for _ in range(3):
        await moment(cluster, operator)
    ((node, _),) = cluster.ledger()
    cluster.change_template("train", "image-2")
    while "until pod" not in message(cluster):
        await moment(cluster, operator)

    lost: list[str] = []

    async def lose(node: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        lost.append(node)
        raise UnavailableError("no response")

    monkeypatch.setattr(cluster, "patch_telemetry", lose)
    while not lost:  # the write that gives the devices to the successor
        await moment(cluster, operator)
    operator.read_leases({node: 2 * LEASE})
    for _ in range(3):
        await moment(cluster, operator)

    assert message(cluster) == f"devices on {node} are kept; they cannot be used yet: 2 on a node that is not ready"
