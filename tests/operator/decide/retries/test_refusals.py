"""Refused pods: excluded nodes, holds, and when they are forgotten."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.retries.refusals import (
    active_hold,
    add_refusal,
    count_refusals,
    drop_refusals,
    excluded_nodes,
    kept_refusals,
)
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, Refusals
from gpufleet_testing.operator import make

WORKLOAD = make.workload()
NODES = (make.telemetry("node-1"), make.telemetry("node-2"))


def fleet(*more: Pod, seconds: float = 0, refusals: Refusals | None = None, workload: Workload = WORKLOAD) -> Snapshot:
    state = PassState(refusals=refusals or Refusals())
    found = make.snapshot(WORKLOAD, *NODES, *more, state=state, now=make.NOW + timedelta(seconds=seconds))
    return replace(found, workloads={WORKLOAD.uid: workload})


def refused(*nodes: str, reason: RemovalReason = RemovalReason.UNSCHEDULABLE, pod_reason: str = "") -> Refusals:
    """One pod of replica 0 after the other, each refused by a node, all in one second."""
    refusals = Refusals(generations={WORKLOAD.uid: 1})
    for number, node in enumerate(nodes):
        pod = make.pod(suffix=f"{number}", reason=pod_reason)
        replicas = (Replica(0, PlacementState.PENDING, pod=pod),)
        assessed = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), replicas, (Removal(pod, 0, reason, "no", node),))
        refusals = count_refusals(fleet(), refusals, [assessed])
    return refusals


def is_held(refusals: Refusals, seconds: float, snapshot: Snapshot | None = None) -> bool:
    at = replace(snapshot or fleet(), now=make.NOW + timedelta(seconds=seconds))
    return active_hold(at, PassState(refusals=refusals), WORKLOAD.uid, 0) is not None


def test_refusals_back_off_up_to_two_minutes() -> None:
    refusals, waits = Refusals(), []
    for number in range(9):
        refusals = add_refusal(refusals, ("w", 0, "n"), f"pod-{number}", make.NOW, message="no", by="kubelet")
        waits.append((refusals.backoffs["w", 0, "n"].until - make.NOW).total_seconds())

    assert waits == [2, 4, 8, 16, 32, 64, 120, 120, 120]


def test_refusals_of_one_replica_are_dropped() -> None:
    refusals = add_refusal(Refusals(), ("w", 0, "n"), "p", make.NOW, message="no", by="kubelet")
    refusals = add_refusal(refusals, ("w", 1, "n"), "q", make.NOW, message="no", by="kubelet")

    assert set(drop_refusals(refusals, "w", 0).backoffs) == {("w", 1, "n")}


def test_a_pod_counts_once_while_it_is_being_deleted() -> None:
    pod = make.pod()
    removal = Removal(pod, 0, RemovalReason.REJECTED, "no", "node-1")
    assessed = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (), (removal,))

    once = count_refusals(fleet(), Refusals(), [assessed])

    assert count_refusals(fleet(), once, [assessed]) == once


@pytest.mark.parametrize(
    ("nodes", "held"),
    [
        (["node-1"], False),
        (["node-1", "node-2"], False),
        (["node-1", "node-2", "node-1"], True),
    ],
)
def test_three_refusals_in_a_row_hold_a_replica_for_ten_minutes(nodes: list[str], held: bool) -> None:
    refusals = refused(*nodes)

    assert [is_held(refusals, seconds) for seconds in (0, 599, 600)] == [held, held, False]


def test_untried_nodes_are_tried_after_half_a_minute() -> None:
    """A refusal may be a race for the resources of one node of thousands."""
    refusals = refused("node-1", "node-1", "node-1")

    assert [is_held(refusals, seconds) for seconds in (29, 30)] == [True, False]
    at = fleet(seconds=30)
    assert excluded_nodes(at, PassState(refusals=refusals), WORKLOAD.uid, [0]) == {0: frozenset({"node-1"})}


def test_a_plugin_that_restarts_has_more_tries() -> None:
    few = ["node-1", "node-2"] * 2 + ["node-1"]
    reason = RemovalReason.REJECTED

    assert not is_held(refused(*few, reason=reason, pod_reason="UnexpectedAdmissionError"), 0)
    held = refused(*few, "node-2", reason=reason, pod_reason="UnexpectedAdmissionError")
    assert [is_held(held, seconds) for seconds in (59, 60)] == [True, False]
    assert is_held(refused(*few, reason=reason, pod_reason="SysctlForbidden"), 0)


def test_silence_of_the_scheduler_holds_at_once_for_longer_each_time() -> None:
    once = refused("node-1", reason=RemovalReason.NOT_SCHEDULED)
    twice = refused("node-1", "node-2", reason=RemovalReason.NOT_SCHEDULED)

    assert [is_held(once, seconds) for seconds in (119, 120)] == [True, False]
    assert [is_held(twice, seconds) for seconds in (239, 240)] == [True, False]


HELD = ["node-1", "node-2", "node-1"]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, nodes={**s.nodes, "node-1": make.node("node-1", labels={"new": ""})}),
        lambda s: replace(s, nodes={**s.nodes, "node-1": make.node("node-1", devices=3)}),
        lambda s: replace(s, telemetry={**s.telemetry, "node-1": make.telemetry("node-1", devices=3)}),
        lambda s: replace(s, foreign_requests={"node-1": {"pods": 1, "cpu": 50}}),
    ],
    ids=["label", "allocatable", "devices", "a pod ended"],
)
def test_a_changed_node_is_tried_during_a_hold(change: Callable[[Snapshot], Snapshot]) -> None:
    occupied = replace(fleet(), foreign_requests={"node-1": {"pods": 1, "cpu": 100}})
    refusals = Refusals()
    for number, node in enumerate(HELD):
        pod = make.pod(suffix=f"{number}")
        removal = Removal(pod, 0, RemovalReason.UNSCHEDULABLE, "no", node)
        assessed = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (), (removal,))
        refusals = count_refusals(occupied, refusals, [assessed])
    assert is_held(refusals, 60, occupied)

    after = change(occupied)

    assert not is_held(refusals, 60, after)
    at = replace(after, now=make.NOW + timedelta(seconds=60))
    assert excluded_nodes(at, PassState(refusals=refusals), WORKLOAD.uid, [0]) == {0: frozenset({"node-2"})}


def test_a_change_does_not_shorten_the_backoff_of_the_node() -> None:
    refusals = refused(*HELD)
    changed = replace(fleet(), nodes={**fleet().nodes, "node-1": make.node("node-1", labels={"new": ""})})

    assert [is_held(refusals, seconds, changed) for seconds in (3, 4)] == [True, False]


def test_a_new_node_is_tried_during_a_hold() -> None:
    found = fleet()
    grown = replace(
        found,
        nodes={**found.nodes, "node-3": make.node("node-3")},
        telemetry={**found.telemetry, "node-3": make.telemetry("node-3")},
    )

    assert not is_held(refused(*HELD), 1, grown)


def test_pods_that_start_or_never_ran_do_not_end_a_hold() -> None:
    """Else failing workloads would end each other's holds."""
    others = [make.running_pod("other", on="node-1"), make.released_pod("another", to="node-1")]

    assert is_held(refused(*HELD), 60, fleet(*others))


def test_a_changed_spec_forgets_refusals() -> None:
    refusals = refused(*HELD)

    kept = kept_refusals(fleet(refusals=refusals, workload=replace(WORKLOAD, generation=2)))

    assert not kept.backoffs
    assert not kept.holds
    assert kept_refusals(fleet(refusals=refusals)).holds == refusals.holds


@pytest.mark.parametrize(("seconds", "forgotten"), [(59, False), (60, True)])
def test_an_allocation_forgets_refusals_when_it_lasts(seconds: float, forgotten: bool) -> None:
    pod = make.running_pod()
    assessed = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (Replica(0, PlacementState.ALLOCATED, pod=pod),))
    refusals = count_refusals(fleet(pod), refused(*HELD), [assessed])

    after = count_refusals(fleet(pod, seconds=seconds), refusals, [assessed])

    assert (not after.holds, not after.backoffs) == (forgotten, forgotten)


def test_an_allocation_that_is_taken_back_starts_the_minute_again() -> None:
    pod = make.running_pod()
    good = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (Replica(0, PlacementState.ALLOCATED, pod=pod),))
    bad = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (Replica(0, PlacementState.MISMATCH, pod=pod),))
    refusals = count_refusals(fleet(pod), refused(*HELD), [good])
    refusals = count_refusals(fleet(pod, seconds=30), refusals, [bad])
    refusals = count_refusals(fleet(pod, seconds=31), refusals, [good])

    assert count_refusals(fleet(pod, seconds=90), refusals, [good]).holds
