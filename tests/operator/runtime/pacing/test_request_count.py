"""How many requests an assignment costs, from the creation of a workload until it is Ready."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from gpufleet_operator.runtime.pacing.held_statuses import BUSY_HOLD, HOLD
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess

NUMBER = 16
STEP = timedelta(milliseconds=200)
STEPS = 20


class CountingCluster(FakeCluster):
    """Counts the operator's requests by method."""

    def __init__(self) -> None:
        super().__init__(nodes=4, devices=8)
        self.requests: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("create_", "patch_", "apply_", "delete_", "evict_", "dry_run_")):
            self.requests[name] += 1
        return super().__getattribute__(name)


async def step(cluster: FakeCluster, operator: OperatorProcess) -> None:
    """Runs one pass and one step of every other component: each takes a moment of a second at most."""
    operator.hear(10_000)
    await operator.act()
    cluster.scheduler()
    for node in cluster.kubelets:
        cluster.kubelet(node)
        cluster.agent(node)
    cluster.now += STEP


def ready(cluster: FakeCluster) -> int:
    conditions = [c for w in cluster.of("workloads") for c in (w.get("status") or {}).get("conditions", ())]
    return sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def requests(hold: timedelta, **spec: object) -> tuple[Counter[str], OperatorProcess, CountingCluster]:
    """Returns the requests of a burst of workloads with one GPU each."""
    cluster = CountingCluster()
    operator = OperatorProcess(cluster, hold_statuses=hold, checked=True)
    await step(cluster, operator)
    cluster.requests.clear()
    for number in range(NUMBER):
        cluster.submit(f"w-{number:02d}", **spec)
    for _ in range(STEPS):
        await step(cluster, operator)
    assert ready(cluster) == NUMBER
    invariants.check_always(cluster)
    return cluster.requests, operator, cluster


@pytest.mark.parametrize("restart_policy", ["Always", "Never"])
async def test_assignment_costs_at_most_five_requests(restart_policy: str) -> None:
    counted, _, _ = await requests(HOLD, restart_policy=restart_policy)

    assert counted["patch_telemetry"] <= 4, "one for each node, however many pods it gets"
    assert counted == {
        "create_pod": NUMBER,
        "patch_pod": NUMBER,
        "patch_telemetry": counted["patch_telemetry"],
        "patch_workload_status": NUMBER,
        "create_event": NUMBER,
    }
    assert counted.total() <= 5 * NUMBER


async def test_more_requests_without_holding_statuses_back() -> None:
    counted, _, _ = await requests(timedelta(0))
    assert counted["patch_workload_status"] >= 3 * NUMBER


async def until_written(cluster: FakeCluster, operator: OperatorProcess) -> timedelta:
    """Returns how long the only workload has no status."""
    began = cluster.now
    while "status" not in cluster.objects["workloads", "ml/one"]:
        assert cluster.now - began <= BUSY_HOLD, "it is not written"
        operator.hear(1000)
        await operator.act()
        cluster.now += STEP
    return cluster.now - began


async def test_progress_that_ends_nowhere_is_written_after_the_hold() -> None:
    """No scheduler binds the pod."""
    cluster = CountingCluster()
    operator = OperatorProcess(cluster, hold_statuses=HOLD)
    cluster.submit("one")

    assert HOLD <= await until_written(cluster, operator) <= HOLD + 3 * STEP
    status = cluster.objects["workloads", "ml/one"]["status"]
    assert [p["state"] for p in status["placements"]] == ["Reserved"]
    assert status["placements"][0]["score"]["total"] > 0
    assert [event.partition(":")[0] for event in cluster.events] == ["Placed"]


async def test_missing_devices_are_not_held_back() -> None:
    cluster = CountingCluster()
    operator = OperatorProcess(cluster, hold_statuses=HOLD)
    cluster.submit("one", devices={"count": 9})
    assert await until_written(cluster, operator) <= 3 * STEP


async def test_held_status_counts_for_the_next_decisions() -> None:
    """The pod succeeds and is deleted before any status of its workload is written: it is not run again."""
    cluster = CountingCluster()
    operator = OperatorProcess(cluster, hold_statuses=HOLD)
    cluster.submit("one", restart_policy="Never")
    for _ in range(2):
        operator.hear(1000)
        await operator.act()
    cluster.scheduler()
    cluster.kubelet("node-1")
    (pod,) = cluster.of("pods")
    assert "status" not in cluster.objects["workloads", "ml/one"]
    cluster.finish(f"ml/{pod['metadata']['name']}", "Succeeded")
    cluster.remove("pods", f"ml/{pod['metadata']['name']}")
    for _ in range(5):
        await step(cluster, operator)

    assert cluster.of("pods") == []
    assert cluster.objects["workloads", "ml/one"]["status"]["state"] == "Complete"
