"""The gangs of a namespace are checked one after the other, and the older one gets what is freed meanwhile."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.events import ObjectEventRecorder
from gpufleet_operator.model.actions import Actions, CreatePod
from gpufleet_operator.runtime.executor import Executor
from gpufleet_testing.operator.cluster import FakeCluster

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(gang: str, index: int) -> CreatePod:
    spec = {"containers": [{"name": "main", "image": "busybox"}]}
    body = {"metadata": {"namespace": "ml", "name": f"{gang}-{index}", "labels": {}}, "spec": spec}
    return CreatePod(f"uid-{gang}", "ml", f"{gang}-{index}", index, body, gang=True)


class FreedAfterTheFirstCheck(FakeCluster):
    """Another client's pods end when the dry run of the first gang has been rejected."""

    def __init__(self, others: int) -> None:
        super().__init__(1, 1)
        self.max_pods = {"ml": 4}
        for index in range(others):
            body = {"metadata": {"namespace": "ml", "name": f"other-{index}"}, "spec": {}, "status": {}}
            self.store("pods", f"ml/other-{index}", body)

    async def dry_run_pod(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return await super().dry_run_pod(body)
        finally:
            for key in [key for kind, key in self.objects if kind == "pods" and key.startswith("ml/other")]:
                self.remove("pods", key)


async def created(cluster: FakeCluster, *gangs: tuple[str, int]) -> list[str]:
    clock = ServerClock(lambda: NOW)
    executor = Executor(cluster, Cache(), clock, ObjectEventRecorder(cluster, "test"), patience_seconds=10)
    await executor.run(Actions(creates=tuple(pod(gang, i) for gang, number in gangs for i in range(number))))
    return [each["metadata"]["name"] for each in cluster.of("pods")]


async def test_younger_gang_does_not_get_what_is_freed_between_two_checks() -> None:
    assert await created(FreedAfterTheFirstCheck(others=4), ("older", 4), ("younger", 4)) == []


async def test_younger_gang_gets_what_is_too_little_for_the_older_one() -> None:
    found = await created(FreedAfterTheFirstCheck(others=0), ("older", 5), ("younger", 3))
    assert found == ["younger-0", "younger-1", "younger-2"]


async def test_younger_gang_is_checked_against_what_the_older_one_uses() -> None:
    found = await created(FreedAfterTheFirstCheck(others=0), ("older", 3), ("younger", 3))
    assert found == ["older-0", "older-1", "older-2"]
