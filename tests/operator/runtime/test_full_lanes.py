"""Writes that would not be sent are not prepared by others, and a pass does not wait for what the next one keeps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.events import ObjectEventRecorder
from gpufleet_operator.model.actions import Actions, CreatePod, ReleasePod, Reserve
from gpufleet_operator.runtime.executor import MAX_RELEASES, Executor
from gpufleet_operator.runtime.lanes import IN_SCOPE, Lane
from gpufleet_testing.agent.virtual_time import in_virtual_time

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHORT_SECONDS = 0.2
"""More than a check of the writes, less than the patience of a pass."""


class Hanging:
    """An apiserver that stores reservations at once, and never responds to releases and creations."""

    def __init__(self) -> None:
        self.reserved: list[str] = []
        self.released: list[str] = []

    async def patch_telemetry(self, node: str, patch: object) -> dict[str, Any]:
        del patch
        self.reserved.append(node)
        meta = {"uid": f"t-{node}", "name": node, "resourceVersion": str(len(self.reserved)), "generation": 2}
        return {"metadata": meta, "spec": {}}

    async def patch_pod(self, namespace: str, name: str, patch: object) -> None:
        del namespace, patch
        self.released.append(name)
        await asyncio.Event().wait()

    async def create_pod(self, body: object) -> None:
        del body
        await asyncio.Event().wait()

    async def list_quotas(self, namespace: str) -> list[object]:
        del namespace
        return []

    async def dry_run_pod(self, body: object) -> object:
        return body


@asynccontextmanager
async def hanging() -> AsyncIterator[tuple[Hanging, Executor, Cache]]:
    cluster, cache, clock = Hanging(), Cache(), ServerClock(lambda: NOW)
    api: Any = cluster
    executor = Executor(api, cache, clock, ObjectEventRecorder(api, "test"))
    try:
        yield cluster, executor, cache
    finally:
        await executor.close()


def placed(numbers: range, *, namespace: str = "ml", removed: tuple[str, ...] = ()) -> Actions:
    """Returns reservations on a node each, and the releases of their pods."""
    return Actions(
        reserves=tuple(Reserve(f"node-{n}", f"t-node-{n}", 1, (), added=(f"u{n}",), removed=removed) for n in numbers),
        releases=tuple(
            ReleasePod(
                pod_uid=f"u{n}",
                workload_uid=f"uid-{n}",
                namespace=namespace,
                name=f"w-{n}",
                node=f"node-{n}",
                patch=(),
                after=frozenset({f"node-{n}"}),
            )
            for n in numbers
        ),
    )


@in_virtual_time
async def test_releases_that_wait_do_not_stop_the_next_reservations() -> None:
    async with hanging() as (cluster, executor, _):
        await executor.run(placed(range(20)))
        assert len(cluster.released) == IN_SCOPE[Lane.RELEASE], "the lane is full"

        await executor.run(placed(range(20, 30)))

        assert cluster.reserved[20:] == [f"node-{n}" for n in range(20, 30)]


@in_virtual_time
async def test_no_device_is_reserved_for_a_release_that_would_not_be_sent() -> None:
    """The next pass would reserve it again, as a proof, and again."""
    async with hanging() as (cluster, executor, _):
        await executor.run(placed(range(MAX_RELEASES)))
        before = len(cluster.reserved)

        outcomes = await executor.run(placed(range(100, 110)))

        assert len(cluster.reserved) == before
        assert [outcome.unsent for outcome in outcomes] == [True] * 20


@in_virtual_time
async def test_removals_and_other_namespaces_do_not_wait_for_a_full_lane() -> None:
    async with hanging() as (cluster, executor, _):
        await executor.run(placed(range(MAX_RELEASES)))

        await executor.run(placed(range(100, 101), removed=("u-gone",)))
        await executor.run(placed(range(101, 102), namespace="other"))

        assert cluster.reserved[MAX_RELEASES:] == ["node-100", "node-101"]


@in_virtual_time
async def test_pass_ends_when_all_is_sent_and_the_cluster_has_changed() -> None:
    async with hanging() as (_, executor, cache):
        loop = asyncio.get_running_loop()
        began = loop.time()
        cache.dirty.set()
        await executor.run(placed(range(3)))
        assert loop.time() - began < SHORT_SECONDS


@in_virtual_time
async def test_pass_waits_for_writes_that_it_would_drop() -> None:
    async with hanging() as (_, executor, cache):
        loop = asyncio.get_running_loop()
        began = loop.time()
        cache.dirty.set()
        pods = range(IN_SCOPE[Lane.CREATE] + 1)
        await executor.run(Actions(creates=tuple(CreatePod(f"uid-{n}", "ml", f"w-{n}", 0, {}) for n in pods)))
        assert loop.time() - began > SHORT_SECONDS


@in_virtual_time
async def test_pass_waits_for_the_pods_of_a_gang() -> None:
    """They are sent when the first one was created."""
    async with hanging() as (_, executor, cache):
        loop = asyncio.get_running_loop()
        began = loop.time()
        cache.dirty.set()
        creates = tuple(CreatePod("uid", "ml", f"w-{replica}", replica, {}, gang=True) for replica in range(2))
        await executor.run(Actions(creates=creates))
        assert loop.time() - began > SHORT_SECONDS


@in_virtual_time
async def test_room_of_a_lane_is_that_of_each_namespace() -> None:
    async with hanging() as (_, executor, _):
        assert executor.room(Lane.RELEASE) == {}
        await executor.run(placed(range(3)))
        await executor.run(placed(range(3, 30), namespace="other"))
        assert executor.room(Lane.RELEASE) == {"ml": IN_SCOPE[Lane.RELEASE] - 3, "other": 0}
