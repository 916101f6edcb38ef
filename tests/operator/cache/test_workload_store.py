"""A status that is not written yet is that of the cached workload."""

from copy import deepcopy

import pytest

from gpufleet_api.workload_status import WorkloadState, WorkloadStatus
from gpufleet_operator.cache.cache import Cache
from gpufleet_testing.operator.cluster import FakeCluster

RUNNING = WorkloadStatus(state=WorkloadState.RUNNING)


def stored(**changes: object) -> tuple[Cache, FakeCluster, str]:
    """Returns a cache with a workload that has a status which is not written yet."""
    cluster, cache = FakeCluster(1, 1), Cache()
    cluster.submit("one", **changes)
    (body,) = cluster.of("workloads")
    cache.workloads.apply(body)
    cache.workloads.hold(body["metadata"]["uid"], RUNNING)
    return cache, cluster, str(body["metadata"]["uid"])


def test_versions_of_other_writers_keep_it() -> None:
    cache, cluster, uid = stored()
    cache.workloads.apply(cluster.of("workloads")[0])  # a list repeats it
    assert cache.workloads.items[uid].status == RUNNING

    cluster.edit("one", replicas=2)
    cache.workloads.apply(cluster.of("workloads")[0])
    assert cache.workloads.items[uid].status == RUNNING
    assert cache.workloads.items[uid].generation == 2


def test_response_to_its_write_changes_nothing() -> None:
    """Another pass over the workload would cost as much as the first one."""
    cache, cluster, uid = stored()
    changes: list[object] = []
    cache.workloads.observer = lambda old, new: changes.append((old, new))
    cluster.change("workloads", "ml/one", state="Running")
    cache.workloads.apply_written(cluster.of("workloads")[0])
    assert cache.workloads.items[uid].status == RUNNING
    assert changes == []

    cluster.change("workloads", "ml/one", state="Complete")
    cache.workloads.apply(cluster.of("workloads")[0])
    status = cache.workloads.items[uid].status
    assert status is not None
    assert status.state == "Complete"


@pytest.mark.parametrize("edited", [False, True])
def test_response_counts_after_the_watch_has_reported_the_write(edited: bool) -> None:
    """A later status is sent without being held, and the watch, or that of an edit after it, is faster."""
    cache, cluster, uid = stored()
    cluster.change("workloads", "ml/one", state="Failed")
    (response,) = deepcopy(cluster.of("workloads"))
    if edited:
        cluster.edit("one", replicas=2)
    cache.workloads.apply(cluster.of("workloads")[0])
    assert cache.workloads.items[uid].status == RUNNING, "its response may still report a failure"
    cache.workloads.apply_written(response)
    status = cache.workloads.items[uid].status
    assert status is not None
    assert status.state == "Failed"
    assert cache.workloads.items[uid].generation == (2 if edited else 1)


def test_status_that_cannot_be_written_is_forgotten() -> None:
    cache, _, uid = stored()
    cache.workloads.give_up(uid)
    assert cache.workloads.items[uid].status is None
    cache.workloads.give_up(uid)


def test_deleted_workload_has_none() -> None:
    cache, _, uid = stored()
    cache.workloads.remove(uid, "")
    cache.workloads.give_up(uid)
    cache.workloads.hold(uid, RUNNING)
    assert uid not in cache.workloads.items
