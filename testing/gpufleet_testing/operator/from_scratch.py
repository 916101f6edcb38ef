"""Compares each decision on what changed with the decision on the whole cluster, which is the rule."""

from collections.abc import Iterable, Mapping
from dataclasses import fields

from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.incremental.decide_changes import decide_changes
from gpufleet_operator.decide.incremental.kept import Kept
from gpufleet_operator.model.actions import Actions, Reserve, WriteStatus
from gpufleet_operator.model.cluster.changes import Changes
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.status.build import without_messages

EXACT = (
    "services",
    "restored_services",
    "creates",
    "deletes",
    "evictions",
    "claims",
    "deleted_claims",
    "releases",
    "expired",
    "unexpected_errors",
    "waits",
    "gated",
)
"""Fields of a decision that are equal but for the order."""

RENEWED_IN_TURNS = ("reported", "status_written", "up_to_date_nodes")
"""Fields of the state with times of messages, or with entries that are dropped when they are next looked at."""


def checked_decision(
    snapshot: Snapshot, kept: Kept | None, changes: Changes, index: ClusterIndex
) -> tuple[Actions, Kept]:
    """Decides on what changed. Raises AssertionError if the decision on the whole cluster differs."""
    expected = decide(snapshot)
    found, kept = decide_changes(snapshot, kept, changes, index)
    compare(snapshot, expected, found)
    assert kept.moments.next() == expected.due, "moments"
    return found, kept


def compare(snapshot: Snapshot, expected: Actions, found: Actions) -> None:
    for name in EXACT:
        assert _in_order(getattr(found, name)) == _in_order(getattr(expected, name)), name
    assert sorted(map(_reserve, found.reserves)) == sorted(map(_reserve, expected.reserves)), "reserves"
    assert found.unplaced.keys() == expected.unplaced.keys(), "unplaced"
    assert found.inconsistencies == expected.inconsistencies or not expected.unplaced, "inconsistencies"
    if expected.due is not None:
        assert found.due is not None, "due"
        assert found.due <= expected.due, "due"
    _compare_statuses(snapshot, expected.statuses, found.statuses)
    for name in ("telemetry", "nodes"):
        assert _in_order(getattr(found.reports, name)) == _in_order(getattr(expected.reports, name)), name
    explained = {pod.key: pod for pod in found.reports.pods}
    for pod in expected.reports.pods:
        assert explained.pop(pod.key, None) == pod or not pod.patch, "a wait that is not explained"
    assert not explained, "an explanation that is not due"
    _compare_states(snapshot, expected.state, found.state)


def _compare_statuses(snapshot: Snapshot, expected: Iterable[WriteStatus], found: Iterable[WriteStatus]) -> None:
    """Messages of workloads that wait are renewed in turns."""
    written = {status.key: status for status in found}
    for status in expected:
        mine = written.pop(status.key, None)
        if mine is None:
            stored = snapshot.workloads[status.workload_uid].status
            assert stored is not None, f"{status.name} has no status"
            assert without_messages(stored) == without_messages(status.status), f"status of {status.name}"
        else:
            assert mine == status, f"status of {status.name}: {mine} instead of {status}"
    assert not written, "a status that is not due"


def _compare_states(snapshot: Snapshot, expected: PassState, found: PassState) -> None:
    for each in fields(PassState):
        if each.name not in (*RENEWED_IN_TURNS, "rejections"):
            assert _plain(getattr(found, each.name)) == _plain(getattr(expected, each.name)), each.name
    for one in (expected, found):
        assert all(uid in snapshot.workloads for uid in one.status_written), "status_written"
    assert {(n, s.stale) for n, s in found.up_to_date_nodes.items()} == {
        (n, s.stale) for n, s in expected.up_to_date_nodes.items()
    }, "up_to_date_nodes"
    for each in fields(type(expected.rejections)):
        mine, theirs = getattr(found.rejections, each.name), getattr(expected.rejections, each.name)
        assert _plain(mine) == _plain(theirs), f"rejections.{each.name}"


def _plain(value: Iterable[object]) -> object:
    return dict(value) if isinstance(value, Mapping) else set(value)


def _reserve(action: Reserve) -> tuple[object, ...]:
    assignments = sorted(a.model_dump_json() for a in action.assignments)
    return action.node, action.uid, action.generation, assignments, sorted(action.added), sorted(action.removed)


def _in_order(value: Iterable[object]) -> object:
    return dict(value) if isinstance(value, Mapping) else sorted(value, key=repr)
