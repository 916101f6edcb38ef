"""No node's telemetry arrives: one metric says so, and no status is written for each workload and node."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from gpufleet_operator.model.node_leases import NodeLeases
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment


class CountingCluster(FakeCluster):
    """Counts the writes that report."""

    def __init__(self, nodes: int) -> None:
        super().__init__(nodes, 2)
        self.reports: Counter[str] = Counter()

    async def patch_workload_status(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        self.reports["workloads"] += 1
        return await super().patch_workload_status(namespace, name, patch)

    async def apply_telemetry_status(self, node: str, body: Mapping[str, Any]) -> Json:
        self.reports["telemetry"] += 1
        return await super().apply_telemetry_status(node, body)

    async def patch_node_status(self, name: str, body: Mapping[str, Any]) -> Json:
        self.reports["nodes"] += 1
        return await super().patch_node_status(name, body)


async def running(nodes: int = 3) -> tuple[CountingCluster, OperatorProcess]:
    """Returns a cluster whose devices are all in use by ready workloads."""
    cluster = CountingCluster(nodes)
    operator = OperatorProcess(cluster, checked=True)
    for number in range(2 * nodes):
        cluster.submit(f"w-{number}")
    for _ in range(8):
        await moment(cluster, operator)
    assert {degraded(cluster, f"w-{number}") for number in range(2 * nodes)} == {"AsExpected"}
    cluster.reports.clear()
    return cluster, operator


def degraded(cluster: FakeCluster, name: str) -> str:
    conditions = cluster.objects["workloads", f"ml/{name}"]["status"]["conditions"]
    return str(next(c for c in conditions if c["type"] == "Degraded")["reason"])


async def pass_time(cluster: FakeCluster, operator: OperatorProcess, seconds: int) -> None:
    for _ in range(seconds // 10):
        cluster.now += timedelta(seconds=9)
        await moment(cluster, operator)


def outage(operator: OperatorProcess) -> float | None:
    return operator.registry.get_sample_value("gpufleet_operator_telemetry_outage")


async def test_short_outage_of_all_nodes_writes_nothing() -> None:
    cluster, operator = await running()
    cluster.silent = set(cluster.kubelets)
    await pass_time(cluster, operator, 150)
    assert outage(operator) == 1
    assert not cluster.reports

    cluster.silent = set()
    await pass_time(cluster, operator, 20)
    assert outage(operator) == 0
    assert not cluster.reports


async def test_long_outage_is_reported_once_and_withdrawn() -> None:
    """The agents of all nodes have ended, and the apiserver answers."""
    cluster, operator = await running()
    cluster.silent = set(cluster.kubelets)
    await pass_time(cluster, operator, 220)
    assert {degraded(cluster, f"w-{number}") for number in range(6)} == {"TelemetryStale"}
    assert cluster.reports["workloads"] == 6

    cluster.silent = set()
    await pass_time(cluster, operator, 20)
    assert {degraded(cluster, f"w-{number}") for number in range(6)} == {"AsExpected"}


async def test_pass_is_not_repeated_while_the_apiserver_is_away() -> None:
    cluster, operator = await running()
    cluster.silent = set(cluster.kubelets)
    operator.cache.node_leases = NodeLeases(read_at=cluster.now)
    await pass_time(cluster, operator, 300)
    due = await operator.act()
    assert outage(operator) == 1
    assert not cluster.reports
    assert due is None or due > cluster.now


async def test_outage_of_one_node_is_reported_immediately() -> None:
    cluster, operator = await running()
    cluster.silent = {"node-1"}
    await pass_time(cluster, operator, 100)
    assert outage(operator) == 0
    found = Counter(degraded(cluster, f"w-{number}") for number in range(6))
    assert found == {"TelemetryStale": 2, "AsExpected": 4}
    assert cluster.reports == {"workloads": 2, "telemetry": 1, "nodes": 1}


async def test_node_that_stays_stale_is_reported_when_the_others_return() -> None:
    cluster, operator = await running()
    cluster.silent = set(cluster.kubelets)
    await pass_time(cluster, operator, 110)
    cluster.silent = {"node-1"}
    await pass_time(cluster, operator, 20)
    assert cluster.reports == {"workloads": 2, "telemetry": 1, "nodes": 1}
