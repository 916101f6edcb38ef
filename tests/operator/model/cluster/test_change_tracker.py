"""The index of the cluster after any history is that of the objects that exist."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.objects import Service
from gpufleet_testing.hypothesis_profiles import histories
from gpufleet_testing.operator import make

NODES = ("node-1", "node-2")
STEPS = st.lists(st.tuples(st.sampled_from(["pod", "telemetry", "service"]), st.integers(0, 3), st.integers(0, 5)))


def put(cache: Cache, kind: str, identity: int, form: int, version: int) -> None:
    """Stores an object in one of several forms; form 0 removes it."""
    workload = f"w{form % 2}"
    if kind == "pod":
        pod = make.pod("w", identity)
        if form == 0:
            cache.pods.remove(pod.uid, "")
        else:
            node = NODES[form % 2] if form > 2 else None
            fields: dict[str, Any] = {"gates": (), "pinned": node} if node else {}
            cache.pods.put(replace(pod, resource_version=str(version), workload_uid=workload, **fields))
    elif kind == "telemetry":
        name = NODES[identity % 2]
        if form == 0:
            cache.telemetry.remove(f"uid-{name}-telemetry", "")
        else:
            owned = [make.assignment(make.pod(workload, n), workload=workload) for n in range(form % 3)]
            cache.telemetry.put(replace(make.telemetry(name, assignments=owned), resource_version=str(version)))
    elif form == 0:
        cache.services.remove(f"s{identity}", str(version))
    else:
        cache.services.put(Service(f"s{identity}", "ml", str(version), owner_uid=workload))


def without_empty(groups: Mapping[str, Any] | set[str]) -> Any:
    return {key: value for key, value in groups.items() if value} if isinstance(groups, Mapping) else groups


@pytest.mark.histories
@settings(max_examples=histories(100))
@given(STEPS)
def test_index_after_any_history_is_that_of_existing_objects(steps: list[tuple[str, int, int]]) -> None:
    cache, again = Cache(), Cache()
    for version, (kind, identity, form) in enumerate(steps, start=1):
        put(cache, kind, identity, form, version)
    for name in ("pods", "telemetry", "services"):
        for item in getattr(cache, name).items.values():
            getattr(again, name).put(item)

    found, wanted = cache.tracker.index, again.tracker.index
    for field in ClusterIndex.__slots__:
        assert without_empty(getattr(found, field)) == without_empty(getattr(wanted, field)), field
    assert found.node_of == {t.uid: t.name for t in cache.telemetry.items.values()}
    assert cache.telemetry.by_name == {t.name: t for t in cache.telemetry.items.values()}


def test_changes_name_all_objects_that_they_concern() -> None:
    cache = Cache()
    pod = make.running_pod("w", on="node-1")
    cache.pods.put(pod)
    assert cache.tracker.take().everything, "nothing is known before the first pass"

    cache.pods.put(replace(pod, resource_version="21", ready=False))
    ready = cache.tracker.take()
    cache.pods.remove(pod.uid, "22")
    gone = cache.tracker.take()

    assert (ready.pods, ready.workloads, ready.nodes) == ({pod.uid}, {"uid-w"}, set())
    assert ready.capacities == {"node-1"}
    assert (gone.pods, gone.workloads, gone.nodes) == ({pod.uid}, {"uid-w"}, {"node-1"})


def test_version_without_a_difference_is_no_change() -> None:
    cache = Cache()
    cache.nodes.put(make.node("node-1"))
    cache.tracker.take()

    cache.nodes.put(make.node("node-1", resource_version="41"))

    assert cache.tracker.take().nodes == set()
    assert cache.nodes.by_name["node-1"].resource_version == "41"


def test_another_object_of_the_same_name_changes_everything() -> None:
    """The deletion of the first one is not reported: no change says that its reservations count no longer."""
    cache = Cache()
    first = make.telemetry("node-1", assignments=[make.assignment(make.pod("w", 0), workload="w")])
    cache.telemetry.put(first)
    cache.tracker.take()

    cache.telemetry.put(replace(make.telemetry("node-1"), uid="another", resource_version="99"))

    assert cache.tracker.take().everything
    cache.telemetry.remove(first.uid, "")
    assert not cache.tracker.take().everything
