"""Gangs under a ResourceQuota: all pods of a gang are created or none, and the oldest gang comes first."""

from collections.abc import Mapping
from typing import Any

from gpufleet_operator.kube.errors import InvalidWriteError
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment

GANG = {"replicas": 4, "placement": {"gang": True}}


class _QuotaOnCreation(FakeCluster):
    """A quota that cannot be checked beforehand, as one with scopes."""

    async def dry_run_pod(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return body

    async def list_quotas(self, namespace: str) -> list[Json]:
        del namespace
        return []


async def live(world: FakeCluster, operator: OperatorProcess, seconds: int) -> None:
    for _ in range(seconds):
        await moment(world, operator)


def pods(world: FakeCluster, workload: str) -> int:
    return sum(body["metadata"]["labels"]["gpufleet.dev/workload"] == workload for body in world.of("pods"))


def ready(world: FakeCluster, workload: str) -> tuple[str, str]:
    conditions = world.objects["workloads", f"ml/{workload}"]["status"]["conditions"]
    found = next(c for c in conditions if c["type"] == "Ready")
    return found["reason"], found["message"]


async def test_second_gang_waits_without_pods_and_runs_when_the_first_is_deleted() -> None:
    world = FakeCluster(1, 8)
    world.max_pods = {"ml": 4}
    operator = OperatorProcess(world)
    world.submit("first", **GANG)
    await live(world, operator, 5)
    world.submit("second", **GANG)
    await live(world, operator, 2)
    world.submit("third", **GANG)
    await live(world, operator, 60)
    assert (pods(world, "first"), pods(world, "second"), pods(world, "third")) == (4, 0, 0)
    reason, message = ready(world, "second")
    assert reason == "QuotaExceeded"
    assert "exceeded quota: quota, requested: pods=" in message

    world.remove("workloads", "ml/first")
    await live(world, operator, 6)
    assert (pods(world, "first"), pods(world, "second"), pods(world, "third")) == (0, 4, 0)


async def test_gang_runs_when_the_quota_is_recalculated_long_after_the_pods_ended() -> None:
    """As on a busy control plane. Retries with backoff come after 15 s and then after 31 s."""

    class BusyControllerManager(FakeCluster):
        busy = False

        def quota_controller(self) -> None:
            if not self.busy:
                super().quota_controller()

    world = BusyControllerManager(1, 8)
    world.max_pods = {"ml": 4}
    operator = OperatorProcess(world)
    world.submit("first", **GANG)
    await live(world, operator, 5)
    world.submit("second", **GANG)
    await live(world, operator, 60)
    world.busy = True
    world.remove("workloads", "ml/first")
    await live(world, operator, 20)
    assert (pods(world, "first"), pods(world, "second")) == (0, 0)
    assert ready(world, "second")[0] == "QuotaExceeded"

    world.busy = False
    await live(world, operator, 3)
    assert pods(world, "second") == 4


async def test_gang_runs_when_the_quota_is_raised() -> None:
    world = FakeCluster(1, 8)
    world.max_pods = {"ml": 3}
    operator = OperatorProcess(world)
    world.submit("gang", **GANG)
    await live(world, operator, 60)
    assert pods(world, "gang") == 0
    world.max_pods = {"ml": 4}
    await live(world, operator, 3)
    assert pods(world, "gang") == 4


async def test_gang_over_the_quota_leaves_it_to_a_single_pod() -> None:
    world = FakeCluster(1, 8)
    world.max_pods = {"ml": 3}
    operator = OperatorProcess(world)
    world.submit("gang", **GANG)
    await live(world, operator, 3)
    assert pods(world, "gang") == 0
    assert ready(world, "gang")[1] == (
        "waiting for quota: 4 pods are forbidden: exceeded quota: quota, requested: pods=4, used: pods=0, "
        "limited: pods=3"
    )
    world.submit("single")
    await live(world, operator, 5)
    assert (pods(world, "gang"), pods(world, "single")) == (0, 1)
    assert ready(world, "single")[0] == "AllReplicasReady"


async def test_pods_of_a_gang_are_taken_back_when_the_last_one_is_rejected() -> None:
    """The check beforehand passes, as for a quota with scopes or one that another client uses up at that moment."""
    world = _QuotaOnCreation(1, 8)
    world.max_pods = {"ml": 3}
    operator = OperatorProcess(world)
    world.submit("gang", **GANG)
    await live(world, operator, 120)
    created = [body for event, kind, body in world.log if (event, kind) == ("ADDED", "pods")]
    assert 3 <= len(created) <= 30, "nine attempts in two minutes, of three pods each"
    assert pods(world, "gang") == 0
    assert (
        len(
            {
                uid
                for event, kind, body in world.log
                if (event, kind) == ("ADDED", "pods")
                for uid in [body["metadata"]["uid"]]
            }
        )
        <= 30
    )
    assert ready(world, "gang")[0] == "QuotaExceeded"

    world.max_pods = {"ml": 4}
    await live(world, operator, 61)
    assert pods(world, "gang") == 4
    assert ready(world, "gang")[0] == "AllReplicasReady"


async def test_rejected_template_is_reported_before_any_pod_of_a_gang_exists() -> None:
    class Secured(FakeCluster):
        async def dry_run_pod(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
            name = body["metadata"]["name"]
            raise InvalidWriteError(f'pods "{name}" is forbidden: violates PodSecurity "restricted:latest": x', 403)

    world = Secured(1, 8)
    operator = OperatorProcess(world)
    world.submit("gang", **GANG)
    await live(world, operator, 3)
    assert not world.of("pods")
    reason, message = ready(world, "gang")
    assert reason == "PodSecurityViolation"
    assert 'violates PodSecurity "restricted:latest": x' in message


async def test_webhook_without_dry_run_does_not_block_a_gang() -> None:
    class Webhook(FakeCluster):
        async def dry_run_pod(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
            raise InvalidWriteError('admission webhook "x.example" does not support dry run', 400)

    world = Webhook(1, 8)
    operator = OperatorProcess(world)
    world.submit("gang", **GANG)
    await live(world, operator, 3)
    assert pods(world, "gang") == 4
