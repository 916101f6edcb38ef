"""Executing a decision: the outcome of each response, and progress of the probes."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, InvalidWriteError, NotFoundError, UnavailableError, from_status
from gpufleet_operator.kube.events import ObjectEventRecorder
from gpufleet_operator.kube.writer import KubeWriter
from gpufleet_operator.model.actions import Action, Actions, CreatePod, EvictPod, ReleasePod, Reserve, WorkloadName
from gpufleet_operator.model.objects import BoundPod
from gpufleet_operator.model.replica import RemovalReason
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.executor import Executor
from gpufleet_operator.runtime.jobs import WriteOutcome
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_testing.operator import make

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Rejecting:
    """An apiserver that responds to each creation with the same error."""

    def __init__(self, error: ApiError) -> None:
        self.error = error

    async def create_pod(self, body: Mapping[str, object]) -> None:
        del body
        await asyncio.sleep(0)
        raise self.error


def executor(error: ApiError, cache: Cache) -> Executor:
    return writing_to(Rejecting(error), cache)


def writing_to(server: object, cache: Cache, may_write: Callable[[], bool] = lambda: True) -> Executor:
    """Returns an executor that sends its writes to `server`, which has those methods that the test needs."""
    api, clock = cast("KubeWriter", server), ServerClock(lambda: NOW)
    recorder = ObjectEventRecorder(api, "test")
    return Executor(api, cache, clock, recorder, may_write=may_write, patience_seconds=20)


def creates(number: int) -> Actions:
    return Actions(creates=tuple(CreatePod("uid-w", "ml", f"w-{i}", i, {}) for i in range(number)))


class Evicting:
    """An apiserver that evicts, and records events."""

    def __init__(self) -> None:
        self.about: list[tuple[str, str, str]] = []

    async def evict_pod(self, namespace: str, name: str, uid: str) -> None:
        """Allows every eviction."""

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        involved = body["involvedObject"]
        self.about.append((involved["kind"], involved["name"], body["reason"]))


async def test_preemption_is_an_event_of_both_workloads() -> None:
    cluster = Evicting()
    preemptor = WorkloadName("ml", "high", "uid-high")
    eviction = EvictPod(
        "uid-low", "low", "ml", "low-0", "u", "preempted by ml/high", RemovalReason.PREEMPTED, beneficiary=preemptor
    )

    await writing_to(cluster, Cache()).run(Actions(evictions=(eviction,)))

    assert cluster.about == [("GPUWorkload", "low", "Preempted"), ("GPUWorkload", "high", "Preempting")]


async def test_eviction_of_a_pod_without_a_workload_is_an_event_of_the_pod() -> None:
    cluster, cache = Evicting(), Cache()
    cache.other_pods.put(BoundPod("u", "node-1", "1", name="bare"))

    actions = Actions(evictions=(EvictPod("", "", "ml", "bare", "u", "device GPU-1 is cordoned: fan"),))
    await writing_to(cluster, cache).run(actions)

    assert cluster.about == [("Pod", "bare", "PodEvicted")]
    assert cache.other_pods.items["u"].deleting, "it would be evicted again"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotFoundError('namespaces "ml" not found', 404), {"conflict": True}),
        (InvalidWriteError("exceeded quota", 403), {"failure": "exceeded quota"}),
        (UnavailableError("no answer"), {"failure": "no answer", "unconfirmed": True}),
        (from_status(401, {"message": "no"}), {"failure": "no", "unconfirmed": True}),
    ],
    ids=["the namespace is gone", "rejected", "no answer", "credentials rejected"],
)
async def test_a_failed_creation_is_an_outcome(error: ApiError, expected: dict[str, Any]) -> None:
    actions = creates(1)

    outcomes = await executor(error, Cache()).run(actions)

    assert outcomes == [WriteOutcome(actions.creates[0], **expected)]


@pytest.mark.parametrize("code", [302, 405, 406, 410, 415, 423, 425])
async def test_unforeseen_status_of_a_write_is_its_failure(code: int) -> None:
    actions = creates(1)

    outcomes = await executor(from_status(code, {"message": "no"}), Cache()).run(actions)

    assert outcomes == [WriteOutcome(actions.creates[0], failure="no")]


async def test_write_is_not_sent_without_the_lease() -> None:
    class Unreachable:
        """Fails the test when a write arrives."""

    actions = creates(2)

    outcomes = await writing_to(Unreachable(), Cache(), lambda: False).run(actions)

    assert outcomes == [WriteOutcome(action, unsent=True) for action in actions.creates]


class Lease:
    """Is lost with the first write, or the first question."""

    def __init__(self) -> None:
        self.held = True
        self.requests: list[str] = []

    async def lose(self, request: str) -> Any:
        self.requests.append(request)
        self.held = False
        return {"metadata": {"uid": "t", "name": "node-1", "resourceVersion": "9", "generation": 2}, "spec": {}}

    async def patch_telemetry(self, node: str, patch: object) -> Any:
        del patch
        return await self.lose(f"reserve on {node}")

    async def list_quotas(self, namespace: str) -> list[Any]:
        await self.lose(f"quotas of {namespace}")
        return []

    async def dry_run_pod(self, body: object) -> Any:
        return body

    async def patch_pod(self, namespace: str, name: str, patch: object) -> Any:
        del patch
        return await self.lose(f"release {namespace}/{name}")

    async def create_pod(self, body: object) -> Any:
        return await self.lose(f"create {body}")


RESERVED = Reserve("node-1", "t", 1, (), added=("u",))
RELEASED = ReleasePod("uid-w", "ml", "w-0", "u", "node-1", (), after=frozenset({"node-1"}))
OF_A_GANG = CreatePod("uid-w", "ml", "w-0", 0, {}, gang=True)


@pytest.mark.parametrize(
    ("actions", "sent", "unsent"),
    [
        (Actions(reserves=(RESERVED,), releases=(RELEASED,)), ["reserve on node-1"], RELEASED),
        (Actions(creates=(OF_A_GANG,)), ["quotas of ml"], OF_A_GANG),
    ],
    ids=["release", "gang"],
)
async def test_lost_lease_stops_what_follows(actions: Actions, sent: list[str], unsent: Action) -> None:
    lease = Lease()

    outcomes = await writing_to(lease, Cache(), lambda: lease.held).run(actions)

    assert lease.requests == sent
    assert WriteOutcome(unsent, unsent=True) in outcomes


@pytest.mark.parametrize("first", [True, False])
async def test_every_write_counts_as_progress(first: bool) -> None:
    """If the apiserver does not respond, each of hundreds of writes takes its timeout, which must not cause a restart.

    Within the first pass there are none: readiness waits for its end.
    """
    signs: list[float | None] = []

    class Slow(Rejecting):
        async def create_pod(self, body: Mapping[str, object]) -> None:
            signs.append(reconciler.last_progress)
            await asyncio.sleep(0.01)
            raise self.error

    cache, clock, cluster = Cache(), ServerClock(lambda: make.NOW), Slow(UnavailableError("no answer"))
    api = cast("KubeWriter", cluster)
    reconciler = Reconciler(
        cache,
        Executor(api, cache, clock, ObjectEventRecorder(api, "test"), patience_seconds=20),
        Limits(),
        clock,
        Metrics(CollectorRegistry()),
        name_seed=lambda: "salt",
        resync_interval_seconds=10,
    )
    reconciler.last_progress = None if first else 0.0
    cache.workloads.put(make.workload(replicas=40))

    await asyncio.wait_for(reconciler.one_pass(), 20)

    assert len(signs) == 40
    # 16 at a time: the later ones are sent after the answers to the earlier ones.
    assert set(signs) == {None} if first else len(set(signs)) >= 3
