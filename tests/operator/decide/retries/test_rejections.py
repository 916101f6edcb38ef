"""Rejected pods: excluded nodes, retry pauses, and when they are dropped."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.retries.rejections import (
    active_pause,
    add_rejection,
    count_rejections,
    drop_rejections,
    excluded_nodes,
    kept_rejections,
)
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, Rejections
from gpufleet_testing.operator import make

WORKLOAD = make.workload()
NODES = (make.telemetry("node-1"), make.telemetry("node-2"))


def fleet(
    *more: Pod, seconds: float = 0, rejections: Rejections | None = None, workload: Workload = WORKLOAD
) -> Snapshot:
    state = PassState(rejections=rejections or Rejections())
    found = make.snapshot(WORKLOAD, *NODES, *more, state=state, now=make.NOW + timedelta(seconds=seconds))
    return replace(found, workloads={WORKLOAD.uid: workload})


def rejected(*nodes: str, reason: RemovalReason = RemovalReason.UNSCHEDULABLE, pod_reason: str = "") -> Rejections:
    """One pod of replica 0 after the other, each rejected by a node, all in one second."""
    rejections = Rejections(generations={WORKLOAD.uid: 1})
    for number, node in enumerate(nodes):
        pod = make.pod(suffix=f"{number}", reason=pod_reason)
        replicas = (Replica(0, PlacementState.PENDING, pod=pod),)
        assessed = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), replicas, (Removal(pod, 0, reason, "no", node),))
        rejections = count_rejections(fleet(), rejections, [assessed])
    return rejections


def is_paused(rejections: Rejections, seconds: float, snapshot: Snapshot | None = None) -> bool:
    at = replace(snapshot or fleet(), now=make.NOW + timedelta(seconds=seconds))
    return active_pause(at, PassState(rejections=rejections), WORKLOAD.uid, 0) is not None


def test_rejections_back_off_up_to_two_minutes() -> None:
    rejections, waits = Rejections(), []
    for number in range(9):
        rejections = add_rejection(rejections, ("w", 0, "n"), f"pod-{number}", make.NOW, message="no", by="kubelet")
        waits.append((rejections.backoffs["w", 0, "n"].until - make.NOW).total_seconds())

    assert waits == [2, 4, 8, 16, 32, 64, 120, 120, 120]


def test_rejections_of_one_replica_are_dropped() -> None:
    rejections = add_rejection(Rejections(), ("w", 0, "n"), "p", make.NOW, message="no", by="kubelet")
    rejections = add_rejection(rejections, ("w", 1, "n"), "q", make.NOW, message="no", by="kubelet")

    assert set(drop_rejections(rejections, "w", 0).backoffs) == {("w", 1, "n")}


def test_a_pod_counts_once_while_it_is_being_deleted() -> None:
    pod = make.pod()
    removal = Removal(pod, 0, RemovalReason.REJECTED, "no", "node-1")
    assessed = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (), (removal,))

    once = count_rejections(fleet(), Rejections(), [assessed])

    assert count_rejections(fleet(), once, [assessed]) == once


@pytest.mark.parametrize(
    ("nodes", "paused"),
    [
        (["node-1"], False),
        (["node-1", "node-2"], False),
        (["node-1", "node-2", "node-1"], True),
    ],
)
def test_three_consecutive_rejections_pause_retries_for_ten_minutes(nodes: list[str], paused: bool) -> None:
    rejections = rejected(*nodes)

    assert [is_paused(rejections, seconds) for seconds in (0, 599, 600)] == [paused, paused, False]


def test_untried_nodes_are_tried_after_half_a_minute() -> None:
    """A rejection may be a race for the resources of one node of thousands."""
    rejections = rejected("node-1", "node-1", "node-1")

    assert [is_paused(rejections, seconds) for seconds in (29, 30)] == [True, False]
    at = fleet(seconds=30)
    assert excluded_nodes(at, PassState(rejections=rejections), WORKLOAD.uid, [0]) == {0: frozenset({"node-1"})}


def test_a_plugin_that_restarts_has_more_tries() -> None:
    few = ["node-1", "node-2"] * 2 + ["node-1"]
    reason = RemovalReason.REJECTED

    assert not is_paused(rejected(*few, reason=reason, pod_reason="UnexpectedAdmissionError"), 0)
    paused = rejected(*few, "node-2", reason=reason, pod_reason="UnexpectedAdmissionError")
    assert [is_paused(paused, seconds) for seconds in (59, 60)] == [True, False]
    assert is_paused(rejected(*few, reason=reason, pod_reason="SysctlForbidden"), 0)


def test_unanswered_pod_pauses_retries_with_doubling_delay() -> None:
    once = rejected("node-1", reason=RemovalReason.NOT_SCHEDULED)
    twice = rejected("node-1", "node-2", reason=RemovalReason.NOT_SCHEDULED)

    assert [is_paused(once, seconds) for seconds in (119, 120)] == [True, False]
    assert [is_paused(twice, seconds) for seconds in (239, 240)] == [True, False]


THREE_NODES = ["node-1", "node-2", "node-1"]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, nodes={**s.nodes, "node-1": make.node("node-1", labels={"new": ""})}),
        lambda s: replace(s, nodes={**s.nodes, "node-1": make.node("node-1", devices=3)}),
        lambda s: replace(s, telemetry={**s.telemetry, "node-1": make.telemetry("node-1", devices=3)}),
        lambda s: replace(s, other_requests={"node-1": {"pods": 1, "cpu": 50}}),
    ],
    ids=["label", "allocatable", "devices", "a pod ended"],
)
def test_a_changed_node_is_tried_during_a_pause(change: Callable[[Snapshot], Snapshot]) -> None:
    occupied = replace(fleet(), other_requests={"node-1": {"pods": 1, "cpu": 100}})
    rejections = Rejections()
    for number, node in enumerate(THREE_NODES):
        pod = make.pod(suffix=f"{number}")
        removal = Removal(pod, 0, RemovalReason.UNSCHEDULABLE, "no", node)
        assessed = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (), (removal,))
        rejections = count_rejections(occupied, rejections, [assessed])
    assert is_paused(rejections, 60, occupied)

    after = change(occupied)

    assert not is_paused(rejections, 60, after)
    at = replace(after, now=make.NOW + timedelta(seconds=60))
    assert excluded_nodes(at, PassState(rejections=rejections), WORKLOAD.uid, [0]) == {0: frozenset({"node-2"})}


def test_a_change_does_not_shorten_the_backoff_of_the_node() -> None:
    rejections = rejected(*THREE_NODES)
    changed = replace(fleet(), nodes={**fleet().nodes, "node-1": make.node("node-1", labels={"new": ""})})

    assert [is_paused(rejections, seconds, changed) for seconds in (3, 4)] == [True, False]


def test_a_new_node_is_tried_during_a_pause() -> None:
    found = fleet()
    grown = replace(
        found,
        nodes={**found.nodes, "node-3": make.node("node-3")},
        telemetry={**found.telemetry, "node-3": make.telemetry("node-3")},
    )

    assert not is_paused(rejected(*THREE_NODES), 1, grown)


def test_pods_that_start_or_never_ran_do_not_end_a_pause() -> None:
    """Else failing workloads would end each other's pauses."""
    others = [make.running_pod("other", on="node-1"), make.released_pod("another", to="node-1")]

    assert is_paused(rejected(*THREE_NODES), 60, fleet(*others))


def test_changed_spec_drops_rejections() -> None:
    rejections = rejected(*THREE_NODES)

    kept = kept_rejections(fleet(rejections=rejections, workload=replace(WORKLOAD, generation=2)))

    assert not kept.backoffs
    assert not kept.pauses
    assert kept_rejections(fleet(rejections=rejections)).pauses == rejections.pauses


@pytest.mark.parametrize(("seconds", "dropped"), [(59, False), (60, True)])
def test_lasting_allocation_drops_rejections(seconds: float, dropped: bool) -> None:
    pod = make.running_pod()
    assessed = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (Replica(0, PlacementState.ALLOCATED, pod=pod),))
    rejections = count_rejections(fleet(pod), rejected(*THREE_NODES), [assessed])

    after = count_rejections(fleet(pod, seconds=seconds), rejections, [assessed])

    assert (not after.pauses, not after.backoffs) == (dropped, dropped)


def test_an_allocation_that_is_taken_back_starts_the_minute_again() -> None:
    pod = make.running_pod()
    good = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (Replica(0, PlacementState.ALLOCATED, pod=pod),))
    bad = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (Replica(0, PlacementState.MISMATCH, pod=pod),))
    rejections = count_rejections(fleet(pod), rejected(*THREE_NODES), [good])
    rejections = count_rejections(fleet(pod, seconds=30), rejections, [bad])
    rejections = count_rejections(fleet(pod, seconds=31), rejections, [good])

    assert count_rejections(fleet(pod, seconds=90), rejections, [good]).pauses
