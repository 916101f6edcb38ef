"""An object arrives by a watch, our own write and a list in any order; the newest version is stored."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_operator.cache import decode
from gpufleet_operator.cache.cache import Cache, OtherPodStore
from gpufleet_operator.cache.store import TombstoneStore
from gpufleet_operator.model.objects import BoundPod, Node, PodDeletion, PodPhase
from gpufleet_operator.model.pod_state.containers import Container, Termination
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_testing.operator import make


def node(version: int, uid: str = "u", unschedulable: bool = False) -> Node:
    return Node(uid=uid, name=f"n-{uid}", resource_version=str(version), unschedulable=unschedulable)


def node_store(changed: Callable[[], None] = lambda: None) -> TombstoneStore[Node]:
    return TombstoneStore(decode.node, changed)


def test_a_late_event_does_not_undo_our_own_write() -> None:
    store = node_store()
    store.put(node(9, unschedulable=True))

    store.put(node(8))

    assert store.items["u"].unschedulable


def test_a_deleted_object_stays_deleted() -> None:
    store = node_store()
    store.put(node(5))
    store.remove("u", "6")

    store.put(node(5))

    assert store.items == {}


def test_an_object_that_matches_again_returns_in_a_later_version() -> None:
    """Its label was removed and added again; an object that is deleted for certain never returns."""
    store = node_store()
    for uid in ("relabeled", "listed away", "deleted"):
        store.put(node(5, uid))
    store.remove("relabeled", "6")
    store.remove("deleted", "")
    store.replace([], "8")

    for uid in ("relabeled", "listed away", "deleted"):
        store.put(node(9, uid))

    assert set(store.items) == {"relabeled", "listed away"}


def test_a_list_removes_missing_objects_but_not_newer_ones() -> None:
    store = node_store()
    store.put(node(5, "old"))
    store.put(node(20, "young"))

    store.replace([node(7, "listed")], "10")

    assert set(store.items) == {"young", "listed"}


def test_versions_are_compared_as_numbers() -> None:
    store = node_store()
    store.put(node(10, unschedulable=True))

    store.put(node(9))

    assert store.items["u"].unschedulable


def test_a_version_with_equal_fields_is_not_a_change() -> None:
    calls: list[int] = []
    store = node_store(lambda: calls.append(1))

    store.put(node(1))
    store.put(node(2))
    store.put(node(3, unschedulable=True))

    assert len(calls) == 2
    assert store.items["u"].resource_version == "3"


POD = st.builds(
    lambda uid, name, version, cpu: BoundPod(f"u{uid}", f"node-{name}", str(version), {"cpu": cpu}),
    st.integers(0, 4),
    st.integers(0, 1),
    st.integers(1, 50),
    st.integers(0, 1000),
)


@given(st.lists(st.tuples(POD, st.booleans()), max_size=30))
def test_requests_per_node_are_the_sum_of_the_stored_pods(steps: list[tuple[BoundPod, bool]]) -> None:
    store = OtherPodStore(decode.bound_pod, lambda: None)
    homes: dict[str, str] = {}
    for pod, gone in steps:
        # A pod never changes its node.
        at_home = replace(pod, node=homes.setdefault(pod.uid, pod.node))
        if gone:
            store.remove(at_home.uid, at_home.resource_version)
        else:
            store.put(at_home)

    expected: dict[str, Counter[str]] = {}
    for pod in store.items.values():
        expected.setdefault(pod.node, Counter()).update({**pod.requests, "pods": 1})
    assert {n: +c for n, c in store.requests.items()} == {n: +c for n, c in expected.items()}


def test_a_deleted_pod_is_recorded_with_its_last_state() -> None:
    cache = Cache()
    gated, bound, over = make.pod("a"), make.running_pod("b"), make.running_pod("c", phase=PodPhase.FAILED)
    for pod in (gated, bound, over):
        cache.pods.put(pod)

    for pod in (gated, bound, over):
        cache.pods.record_deletion(pod)

    assert cache.pods.deleted == {
        gated.uid: PodDeletion.NEVER_BOUND,
        bound.uid: PodDeletion.FORCED,
        over.uid: PodDeletion.TERMINATED,
    }
    assert cache.pods.items == {}


def test_last_state_of_a_pod_that_was_removed_before_is_a_change() -> None:
    """A write was answered with 404 before the watch reported the deletion. Decisions depend on the last state."""
    cache, pod = Cache(), make.pod("a")
    cache.pods.put(pod)
    cache.pods.remove(pod.uid, "")
    cache.tracker.take()
    cache.dirty.clear()

    cache.pods.record_deletion(pod)

    assert cache.tracker.take().pods == {pod.uid}
    assert cache.dirty.is_set()
    cache.pods.record_deletion(pod)
    assert not cache.tracker.take().pods, "it is known"


@pytest.mark.parametrize(
    ("finished", "seen", "how"),
    [
        (-1, "running", PodDeletion.SUCCEEDED),
        (0, "running", PodDeletion.TERMINATED),
        (1, "stopping", PodDeletion.TERMINATED),
        (0, "succeeded", PodDeletion.SUCCEEDED),
    ],
    ids=["before the request", "in the same second", "after the request", "seen before the request"],
)
def test_pod_that_was_stopped_has_not_succeeded(finished: int, seen: str, how: PodDeletion) -> None:
    """A program that catches SIGTERM exits with 0, and the kubelet reports Succeeded for an evicted pod."""
    cache, requested = Cache(), make.NOW
    ended = Container("main", terminated=Termination(0, finished_at=requested + timedelta(seconds=finished)))
    last = make.running_pod(
        "a", phase=PodPhase.SUCCEEDED, containers=(ended,), deleting=True, deletion_requested=requested
    )
    before = {
        "running": make.running_pod("a"),
        "stopping": replace(last, phase=PodPhase.RUNNING, containers=()),
        "succeeded": replace(last, deleting=False, deletion_requested=None),
    }
    cache.pods.put(before[seen])

    cache.pods.record_deletion(last)

    assert cache.pods.deleted == {last.uid: how}


def test_a_pod_that_returns_is_not_deleted() -> None:
    cache = Cache()
    cache.pods.put(make.running_pod())
    cache.pods.record_deletion(make.running_pod(resource_version="21"))

    cache.pods.put(make.running_pod(resource_version="22"))

    assert not cache.pods.deleted
    assert set(cache.pods.items) == {make.running_pod().uid}


def test_the_newer_of_two_objects_with_one_name_is_in_the_snapshot() -> None:
    cache = Cache()
    cache.telemetry.put(replace(make.telemetry(), uid="new", resource_version="50"))
    cache.telemetry.put(replace(make.telemetry(), uid="old", resource_version="40"))

    snapshot = cache.snapshot(now=make.NOW, name_seed="", templates={}, state=PassState(), limits=Limits())

    assert snapshot.telemetry["node-1"].uid == "new"


def test_watch_event_of_our_own_write_is_not_decoded_again() -> None:
    """Decoding a GPUTelemetry takes longer than the decision that it belongs to."""
    decoded: list[str] = []

    def count(body: Mapping[str, Any]) -> Node:
        decoded.append(body["metadata"]["resourceVersion"])
        return decode.node(body)

    def body(version: str) -> dict[str, Any]:
        return {"metadata": {"uid": "u", "name": "n-u", "resourceVersion": version}, "spec": {}}

    store: TombstoneStore[Node] = TombstoneStore(count, lambda: None)
    for version in ("5", "5", "6", "6", "5"):
        store.apply(body(version))

    assert decoded == ["5", "6", "5"]
    assert store.items["u"].resource_version == "6"
