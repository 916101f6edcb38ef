"""List, watch, resume and relist keep the store complete despite connection errors."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from gpufleet_operator.cache import decode
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.store import TombstoneStore
from gpufleet_operator.kube.api import Page
from gpufleet_operator.kube.errors import ApiError, GoneError, UnavailableError
from gpufleet_operator.kube.informer import Informer
from gpufleet_operator.model.objects import Node, Pod, PodDeletion


def node(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"uid": f"uid-{name}", "name": name, "resourceVersion": str(version)}}


def event(kind: str, name: str, version: int) -> tuple[str, dict[str, Any]]:
    return kind, node(name, version)


class Script:
    """An apiserver with scripted responses that records the versions of watches."""

    def __init__(self, lists: Sequence[Any], watches: Sequence[Sequence[Any]]) -> None:
        self.lists, self.watches = list(lists), list(watches)
        self.since: list[str] = []
        self.over = asyncio.Event()

    async def pages(self, path: str, params: Mapping[str, str], size: int) -> AsyncIterator[Page]:
        answer = self.lists.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        version, items = answer
        for item in items:
            yield Page([item], str(version))
        yield Page([], str(version))

    async def watch(
        self, path: str, params: Mapping[str, str], since: str, seconds: int
    ) -> AsyncGenerator[tuple[str, Any]]:
        self.since.append(since)
        if not self.watches:
            self.over.set()
            await asyncio.Event().wait()
        for step in self.watches.pop(0):
            if isinstance(step, ApiError):
                raise step
            yield step


def _store() -> TombstoneStore[Node]:
    return TombstoneStore(decode.node, lambda: None)


async def informed(lists: Sequence[Any], watches: Sequence[Sequence[Any]]) -> tuple[Script, TombstoneStore[Node], int]:
    """Runs an informer to the end of the script, without pauses."""
    listed: list[None] = []
    api, store = Script(lists, watches), _store()
    informer = Informer[Node](
        api,  # type: ignore[arg-type]  # the part of Api that it uses
        "/nodes",
        {},
        store,
        sleep=_no_sleep,
    )
    task = asyncio.create_task(informer.run(lambda: listed.append(None)))
    over = asyncio.create_task(api.over.wait())
    await asyncio.wait([task, over], return_when=asyncio.FIRST_COMPLETED)
    over.cancel()
    if not task.done():
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return api, store, len(listed)


async def _no_sleep(seconds: float) -> None:
    del seconds


def names(store: TombstoneStore[Node]) -> set[str]:
    return {n.name for n in store.items.values()}


async def test_events_update_the_store() -> None:
    steps = [event("ADDED", "b", 11), event("DELETED", "a", 12), event("MODIFIED", "b", 13)]

    _, store, _ = await informed([(10, [node("a", 5)])], [steps])

    assert names(store) == {"b"}


async def test_the_watch_continues_from_the_last_event_or_bookmark() -> None:
    api, _, _ = await informed([(10, [])], [[event("ADDED", "b", 11)], [("BOOKMARK", node("", 40))], []])

    assert api.since == ["10", "11", "40", "40"]


async def test_an_interrupted_watch_continues_from_its_last_version() -> None:
    broken = [event("ADDED", "b", 11), UnavailableError("broken")]

    api, store, listed = await informed([(10, [])], [broken, [UnavailableError("still")], [event("ADDED", "c", 12)]])

    assert api.since == ["10", "11", "11", "12"]
    assert names(store) == {"b", "c"}
    assert listed == 1


async def test_an_expired_version_lists_again_and_removes_missing_objects() -> None:
    lists = [(10, [node("a", 5), node("b", 6)]), (50, [node("b", 6)])]

    api, store, listed = await informed(lists, [[GoneError("too old", 410)], []])

    assert names(store) == {"b"}
    assert listed == 2
    assert api.since == ["10", "50", "50"]


async def test_last_state_of_a_deleted_pod_is_recorded() -> None:
    """It is the only proof of whether a container may still run."""
    cache = Cache()
    meta = {"uid": "u", "name": "w-0", "namespace": "ml", "creationTimestamp": "2026-01-01T00:00:00Z"}
    steps = [("DELETED", {"metadata": {**meta, "resourceVersion": "11", "deletionTimestamp": "2026-01-01T00:00:30Z"}})]
    api = Script([(10, [{"metadata": {**meta, "resourceVersion": "5"}}])], [steps])
    informer = Informer[Pod](api, "/pods", {}, cache.pods)  # type: ignore[arg-type]  # as above
    version = await informer.list()
    async with asyncio.timeout(5):
        await informer._watch_once(version)

    assert cache.pods.items == {}
    assert cache.pods.deleted == {"u": PodDeletion.NEVER_BOUND}


@pytest.mark.parametrize(("code", "failures"), [(410, 0), (500, 1), (403, 1)])
async def test_failed_watch_is_counted_unless_its_version_was_too_old(code: int, failures: int) -> None:
    api, failed = Script([(10, []), (20, [])], [[GoneError("ended", code)]]), list[None]()
    informer = Informer[Node](
        api,  # type: ignore[arg-type]  # as above
        "/nodes",
        {},
        _store(),
        sleep=_no_sleep,
        failed=lambda: failed.append(None),
    )
    task = asyncio.create_task(informer.run(lambda: None))
    await api.over.wait()
    task.cancel()
    assert len(failed) == failures


async def test_known_version_is_not_decoded_again() -> None:
    """A list repeats every object, and a watch the operator's own writes."""
    decoded: list[str] = []

    def decode_and_count(body: Mapping[str, Any]) -> Node:
        decoded.append(f"{body['metadata']['name']}@{body['metadata']['resourceVersion']}")
        return decode.node(body)

    lists = [(10, [node("a", 5), node("b", 6)]), (20, [node("a", 5), node("b", 16)])]
    api, store = Script(lists, [[event("MODIFIED", "b", 16)]]), TombstoneStore(decode_and_count, lambda: None)
    informer = Informer[Node](api, "/nodes", {}, store)  # type: ignore[arg-type]  # as above
    await informer.list()
    await informer.list()
    async with asyncio.timeout(5):
        await informer._watch_once("20")

    assert decoded == ["a@5", "b@6", "b@16"]
    assert names(store) == {"a", "b"}


async def test_a_failed_list_is_retried() -> None:
    _, store, _ = await informed([UnavailableError("away"), GoneError("slow", 410), (10, [node("a", 5)])], [[]])

    assert names(store) == {"a"}


async def test_a_rejected_request_ends_the_informer() -> None:
    with pytest.raises(ApiError, match="forbidden"):
        await informed([ApiError("forbidden", 401)], [])


async def test_an_object_that_cannot_be_decoded_keeps_its_last_state() -> None:
    """In a list and in a watch; only a deletion removes it."""

    def decode_valid(body: Mapping[str, Any]) -> Node | None:
        return None if body["metadata"].get("labels") == "odd" else decode.node(body)

    def odd(name: str, version: int) -> dict[str, Any]:
        return {"metadata": {**node(name, version)["metadata"], "labels": "odd"}}

    steps = [("MODIFIED", odd("b", 11)), event("DELETED", "c", 12), ("DELETED", odd("d", 13))]
    lists = [(5, [node(n, 1) for n in "abcd"]), (10, [odd("a", 6), *(node(n, 1) for n in "bcd")])]
    api, store = Script(lists, [steps]), TombstoneStore(decode_valid, lambda: None)
    informer = Informer[Node](api, "/nodes", {}, store)  # type: ignore[arg-type]  # as above
    await informer.list()
    version = await informer.list()
    async with asyncio.timeout(5):
        await informer._watch_once(version)

    assert names(store) == {"a", "b"}


async def test_lists_events_and_ends_of_watches_are_heard_and_failures_are_not() -> None:
    watches: list[list[Any]] = [[event("ADDED", "b", 11)], [("BOOKMARK", node("", 40))], [], [UnavailableError("no")]]
    api, heard, after = Script([(10, [])], watches), list[int](), list[int]()
    informer = Informer[Node](api, "/nodes", {}, _store(), heard=lambda: heard.append(1))  # type: ignore[arg-type] # as above
    version = await informer.list()
    after.append(len(heard))
    for _ in watches[:3]:
        version = await informer._watch_once(version)
        after.append(len(heard))
    with pytest.raises(UnavailableError):
        await informer._watch_once(version)
    assert [*after, len(heard)] == [1, 3, 5, 6, 6]
