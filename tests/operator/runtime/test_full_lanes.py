"""Writes that would not be sent are not prepared by others, and a pass does not wait for what the next one keeps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.events import ObjectEventRecorder
from gpufleet_operator.model.actions import Actions, CreatePod, ReleasePod, Reserve
from gpufleet_operator.model.claims.claim_actions import CreateClaim, DeleteClaim
from gpufleet_operator.runtime import executor as executor_module
from gpufleet_operator.runtime.executor import MAX_RELEASES, PATIENCE_SECONDS, Executor
from gpufleet_operator.runtime.lanes import IN_SCOPE, Lane
from gpufleet_testing.agent.virtual_time import in_virtual_time
from gpufleet_testing.operator import make

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHORT_SECONDS = 0.2
"""More than a check of the writes, less than the patience of a pass."""


class Hanging:
    """An apiserver that stores reservations at once, and never responds to releases and creations."""

    def __init__(self) -> None:
        self.reserved: list[str] = []
        self.released: list[str] = []
        self.claims: list[str] = []

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

    async def create_claim(self, body: Any) -> None:
        self.claims.append(body["metadata"]["name"])
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
async def test_write_is_reported_as_slow_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the pass ends because the cluster has changed: the response may be on its way."""
    lines: list[str] = []
    monkeypatch.setattr(executor_module.log, "info", lambda event, **facts: lines.append(f"{event}: {facts['action']}"))
    async with hanging() as (_, executor, cache):
        cache.dirty.set()
        await executor.run(placed(range(1)))
        assert lines == []
        await asyncio.sleep(PATIENCE_SECONDS)
        await asyncio.sleep(0)
        assert lines == ["write is slow: release/u0"]


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
@pytest.mark.parametrize(
    "actions",
    [
        pytest.param(
            Actions(deleted_claims=(DeleteClaim("uid", "u", "ml", "c", "c-1", "5", "w", "w-0"),)), id="delete"
        ),
        pytest.param(Actions(claims=(CreateClaim("uid", "u", "ml", "c", (), {}),)), id="create again"),
    ],
)
async def test_pass_does_not_wait_for_a_claim_of_a_full_lane(actions: Actions) -> None:
    """It would be dropped after each pass, and each would delay the other namespaces."""
    async with hanging() as (_, executor, cache):
        await executor.run(placed(range(IN_SCOPE[Lane.RELEASE])))
        cache.dirty.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()

        outcomes = await executor.run(actions)

        assert [outcome.unsent for outcome in outcomes] == [True]
        assert loop.time() - began < SHORT_SECONDS
        assert not cache.dirty.is_set(), "the next pass begins at the response to a write of the lane"


@in_virtual_time
async def test_reservation_of_a_pod_without_release_does_not_wait() -> None:
    """Kueue removes its gate after the devices are reserved; the other pod on the node is of a full namespace."""
    async with hanging() as (cluster, executor, _):
        await executor.run(placed(range(MAX_RELEASES)))
        both = placed(range(100, 101))

        await executor.run(replace(both, reserves=(replace(both.reserves[0], added=("u100", "u-kueue")),)))

        assert cluster.reserved[MAX_RELEASES:] == ["node-100"]


@in_virtual_time
async def test_proof_for_a_claim_of_another_namespace_does_not_wait() -> None:
    """The release of its pod waits for another claim of the gang."""
    async with hanging() as (cluster, executor, _):
        await executor.run(placed(range(MAX_RELEASES)))
        claim = CreateClaim(
            "uid", "u-gang", "other", "c", (), {"metadata": {"name": "c"}}, after=frozenset({"node-100"})
        )
        full = placed(range(100, 101))

        await executor.run(replace(full, reserves=(replace(full.reserves[0], added=()),), claims=(claim,)))

        assert cluster.reserved[MAX_RELEASES:] == ["node-100"]
        assert cluster.claims == ["c"]


@in_virtual_time
async def test_room_of_a_lane_is_that_of_each_namespace() -> None:
    async with hanging() as (_, executor, _):
        assert executor.room(Lane.RELEASE) == {}
        await executor.run(placed(range(3)))
        await executor.run(placed(range(3, 30), namespace="other"))
        assert executor.room(Lane.RELEASE) == {"ml": IN_SCOPE[Lane.RELEASE] - 3, "other": 0}


def reservation(pod_uid: str) -> Assignment:
    return make.assignment(replace(make.pod(make.workload()), uid=pod_uid), "GPU-0")


def gang(*, replaced: bool = False) -> Actions:
    """Returns the placement of two pods that are released together."""
    found = placed(range(100, 102))
    nodes = frozenset({"node-100", "node-101"})
    return replace(
        found,
        reserves=tuple(
            replace(each, assignments=(reservation(uid),), replaced=(uid,) if replaced and not n else ())
            for n, each in enumerate(found.reserves)
            for uid in each.added
        ),
        releases=tuple(replace(each, after=nodes, together=True) for each in found.releases),
    )


@in_virtual_time
async def test_gang_shares_a_write_with_a_pod_of_another_namespace() -> None:
    async with hanging() as (cluster, executor, _):
        await executor.run(placed(range(MAX_RELEASES)))
        both, other = gang(), placed(range(200, 201), namespace="other").releases[0]
        shared = replace(both.reserves[0], added=("u100", "u200"))
        shared = replace(shared, assignments=(*shared.assignments, reservation("u200")))

        outcomes = await executor.run(
            replace(
                both,
                reserves=(shared, both.reserves[1]),
                releases=(*both.releases, replace(other, after=frozenset({"node-100"}))),
            )
        )

        assert cluster.reserved[MAX_RELEASES:] == ["node-100"]
        (written,) = (o.action for o in outcomes if isinstance(o.action, Reserve) and o.succeeded)
        assert (written.added, [a.pod_uid for a in written.assignments]) == (("u200",), ["u200"])


@in_virtual_time
async def test_part_of_a_gang_that_an_earlier_pass_reserved_is_removed() -> None:
    """Its other reservation lost a race, and meanwhile the lane is full."""
    async with hanging() as (cluster, executor, _):
        await executor.run(placed(range(MAX_RELEASES)))

        outcomes = await executor.run(gang(replaced=True))

        assert cluster.reserved[MAX_RELEASES:] == ["node-100"]
        (written,) = (o.action for o in outcomes if isinstance(o.action, Reserve) and o.succeeded)
        assert (written.added, written.removed, written.assignments) == ((), ("u100",), ())
