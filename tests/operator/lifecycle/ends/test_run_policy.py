"""Work that ends, fails and starts again, with a crash or a lost response at each write in turn."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gpufleet_api.names import ATTEMPT_LABEL
from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Crash, Json, WriteFault, faulty_writes
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess

GANG = {"replicas": 2, "placement": {"gang": True}, "runPolicy": {"backoffLimit": 1}}
SINGLES = {"replicas": 2, "runPolicy": {"backoffLimit": 1}}


class Run:
    """A cluster with one workload, and an operator that is restarted when it crashes."""

    def __init__(self, spec: Mapping[str, Any], fault: WriteFault | None = None) -> None:
        self.cluster = FakeCluster(2, 2)
        self.cluster.submit("train", restart_policy="Never", **spec)
        self.cluster.fault = fault
        self.operator = OperatorProcess(self.cluster)

    async def until(self, reached: Callable[[], object], rounds: int = 40) -> None:
        """Lets every component take steps until the condition holds."""
        for _ in range(rounds):
            if reached():
                return
            for _ in range(2):
                self.operator.hear(1000)
                await self._decide()
            self.cluster.scheduler()
            for node in self.cluster.kubelets:
                self.cluster.kubelet(node)
                self.cluster.agent(node)
            self.cluster.advance(1)
        raise AssertionError(f"not reached: {self.status}")

    async def _decide(self) -> None:
        try:
            await self.operator.act()
        except Crash:
            self.operator = OperatorProcess(self.cluster)

    @property
    def status(self) -> Json:
        found: Json = self.cluster.objects["workloads", "ml/train"].get("status") or {}
        return found

    def running(self, attempt: int) -> list[str]:
        """Names of the running pods of an attempt, by replica."""
        return sorted(
            pod["metadata"]["name"]
            for pod in self.cluster.of("pods")
            if pod["status"]["phase"] == "Running" and pod["metadata"]["labels"][ATTEMPT_LABEL] == str(attempt)
        )

    def condition(self, kind: str) -> str:
        return next((c["status"] for c in self.status.get("conditions", []) if c["type"] == kind), "Absent")

    def is_ready(self) -> bool:
        return self.condition("Ready") == "True"


async def fail_twice(run: Run, second: int) -> object:
    """Two attempts fail, which is one more than `backoffLimit` allows. `second` pods run in the second one."""
    await run.until(lambda: len(run.running(0)) == 2)
    run.cluster.finish(f"ml/{run.running(0)[1]}", "Failed")
    await run.until(lambda: len(run.running(1)) == second)
    run.cluster.finish(f"ml/{run.running(1)[0]}", "Failed")
    await run.until(lambda: run.condition("Failed") == "True" and not list(run.cluster.ledger()))
    invariants.check_always(run.cluster)
    invariants.check_settled(run.cluster)
    return run.status["failed"], run.status["state"], sum(1 for _ in run.cluster.ledger())


@pytest.mark.parametrize(
    ("spec", "second", "kind", "after", "step"),
    [
        (GANG, 2, Crash, False, 2),
        (GANG, 2, Crash, True, 1),
        (GANG, 2, UnavailableError, True, 3),
        (SINGLES, 1, Crash, True, 2),
    ],
    ids=["gang, crash before", "gang, crash after", "gang, lost response", "singles, crash after"],
)
async def test_each_failure_counts_once_if_any_write_fails(
    spec: Json, second: int, kind: type[BaseException], after: bool, step: int
) -> None:
    counted = WriteFault(10**6, Crash, after=False)
    assert await fail_twice(Run(spec, counted), second) == (2, "Failed", 0)
    writes = 10**6 - counted.left
    assert writes > 10

    for at in faulty_writes(writes, kind, after=after, step=step):
        found = await fail_twice(Run(spec, WriteFault(at, kind, after=after)), second)

        assert found == (2, "Failed", 0), f"fault at write {at}"


async def test_gang_that_lost_a_pod_starts_again_as_a_whole() -> None:
    run = Run(GANG)
    await run.until(run.is_ready)
    run.cluster.delete_gracefully(f"ml/{run.running(0)[0]}")

    await run.until(lambda: len(run.running(1)) == 2 and run.is_ready())

    assert run.status["failed"] == 0
    assert not run.running(0)


async def test_workload_that_succeeded_is_complete_and_deleted_after_its_ttl() -> None:
    run = Run({"replicas": 1, "runPolicy": {"ttlSecondsAfterFinished": 20}})
    await run.until(run.is_ready)
    run.cluster.finish(f"ml/{run.running(0)[0]}", "Succeeded")
    await run.until(lambda: run.condition("Complete") == "True")
    await run.until(lambda: not list(run.cluster.ledger()))
    assert run.condition("Ready") == "Absent"
    assert len(run.cluster.of("pods")) == 1, "the pod is kept for its logs"

    await run.until(lambda: not run.cluster.of("workloads"))


async def test_active_deadline_fails_the_workload_and_frees_its_devices() -> None:
    run = Run({"replicas": 2, "runPolicy": {"activeDeadlineSeconds": 10}})
    await run.until(run.is_ready)

    await run.until(lambda: run.condition("Failed") == "True" and not list(run.cluster.ledger()))

    assert [c["reason"] for c in run.status["conditions"] if c["type"] == "Failed"] == ["DeadlineExceeded"]
    assert not run.running(0)


async def test_incomplete_gang_gives_its_devices_back_after_its_timeout() -> None:
    run = Run(
        {
            "replicas": 2,
            "devices": {"count": 2},
            "placement": {"gang": True, "gangTimeoutSeconds": 30},
            "runPolicy": {"onReplicaFailure": "RestartReplica"},
        }
    )
    await run.until(run.is_ready)
    pod = next(p for p in run.cluster.of("pods") if p["spec"]["nodeName"] == "node-2")
    node = run.cluster.objects["nodes", "node-2"]
    run.cluster.store("nodes", "node-2", {**node, "spec": {"unschedulable": True}})
    run.cluster.delete_gracefully(f"ml/{pod['metadata']['name']}")

    await run.until(lambda: len(list(run.cluster.ledger())) == 1)
    await run.until(lambda: not list(run.cluster.ledger()), rounds=60)

    assert run.status["failed"] == 0
    assert not [p for p in run.cluster.of("pods") if not p["spec"].get("schedulingGates")]
