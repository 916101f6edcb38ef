"""Rejected pods: excluded nodes, retry pauses, and when they are dropped."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Unpack

import pytest

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.retries.observed_node import NodeObserver
from gpufleet_operator.decide.retries.pause_rules import PLUGIN_ERROR, active_pause, excluded_nodes
from gpufleet_operator.decide.retries.rejections import (
    add_rejection,
    count_rejections,
    drop_rejections,
    kept_rejections,
)
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, Rejections
from gpufleet_testing.operator import make
from gpufleet_testing.operator.fields import NodeFields

WORKLOAD = make.workload()
NODES = (make.telemetry("node-1"), make.telemetry("node-2"))


def fleet(
    *more: Pod, seconds: float = 0, rejections: Rejections | None = None, workload: Workload = WORKLOAD
) -> Snapshot:
    state = PassState(rejections=rejections or Rejections())
    found = make.snapshot(WORKLOAD, *NODES, *more, state=state, now=make.NOW + timedelta(seconds=seconds))
    return replace(found, workloads={WORKLOAD.uid: workload})


def rejected(
    *nodes: str,
    reason: RemovalReason = RemovalReason.UNSCHEDULABLE,
    pod_reason: str = "",
    message: str = "no",
    seconds: Sequence[float] = (),
) -> Rejections:
    """One pod of replica 0 after the other, each rejected by a node, by default all in one second."""
    rejections = Rejections(generations={WORKLOAD.uid: 1})
    for number, node in enumerate(nodes):
        at = fleet(seconds=seconds[number] if seconds else 0)
        pod = make.pod(suffix=f"{number}", reason=pod_reason)
        replicas = (Replica(0, PlacementState.PENDING, pod=pod),)
        assessed = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), replicas, (Removal(pod, 0, reason, message, node),))
        rejections = count_rejections(at, rejections, [assessed], guard=WorkloadGuard())
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

    once = count_rejections(fleet(), Rejections(), [assessed], guard=WorkloadGuard())

    assert count_rejections(fleet(), once, [assessed], guard=WorkloadGuard()) == once


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


@pytest.mark.parametrize(("message", "tries", "seconds"), [("Insufficient cpu", 2, 60), ("SysctlForbidden", 3, 600)])
def test_untried_nodes_are_tried_after_a_minute_if_they_may_differ(message: str, tries: int, seconds: float) -> None:
    """A rejection may be a race for the resources of one node of thousands."""
    rejections = rejected(*["node-1"] * tries, message=message)

    assert [is_paused(rejections, at) for at in (seconds - 1, seconds)] == [True, False]
    at = fleet(seconds=60)
    skipped = {"node-1"} if seconds == 60 else {"node-1", "node-2"}
    assert excluded_nodes(at, PassState(rejections=rejections), WORKLOAD.uid, [0]) == {0: frozenset(skipped)}


THREE_TRIES = ("node-1", "node-2", "node-1")


def test_plugin_error_excludes_its_node_for_longer() -> None:
    """An agent that restarts takes seconds, and three pods are tried: after 15 and 30 s more."""
    rejections = rejected("node-1", reason=RemovalReason.REJECTED, pod_reason=PLUGIN_ERROR, message="Allocate failed")

    at = [excluded_nodes(fleet(seconds=s), PassState(rejections=rejections), WORKLOAD.uid, [0])[0] for s in (14, 15)]
    assert at == [{"node-1"}, set()]
    assert not is_paused(rejections, 0)
    thrice = rejected(*THREE_TRIES, reason=RemovalReason.REJECTED, pod_reason=PLUGIN_ERROR, message="Allocate failed")
    assert [is_paused(thrice, seconds) for seconds in (59, 599, 600)] == [True, True, False]


def test_plugin_error_ends_when_the_node_offers_other_devices() -> None:
    """Pods that end make no room in a plugin that is absent."""
    thrice = rejected(*THREE_TRIES, reason=RemovalReason.REJECTED, pod_reason=PLUGIN_ERROR, message="Allocate failed")
    allocatable = replace(fleet(), nodes={**fleet().nodes, "node-1": make.node("node-1", allocatable={"cpu": 1})})

    assert [is_paused(thrice, seconds, allocatable) for seconds in (599, 600)] == [True, False]


def test_plugin_errors_of_a_gang_at_the_same_time_are_one_try() -> None:
    gang = make.workload(replicas=4, placement={"gang": True})
    pods = [make.pod(replica=index, suffix=f"{index}", reason=PLUGIN_ERROR) for index in range(4)]
    removals = tuple(Removal(p, i, RemovalReason.REJECTED, "Allocate failed", "node-1") for i, p in enumerate(pods))
    assessed = WorkloadReplicas(gang, make.spec(gang), (), removals)

    rejections = count_rejections(fleet(workload=gang), Rejections(), [assessed], guard=WorkloadGuard())

    (pause,) = rejections.pauses.values()
    assert pause.count == 1


def test_unanswered_pod_pauses_retries_with_doubling_delay() -> None:
    once = rejected("node-1", reason=RemovalReason.NOT_SCHEDULED)
    twice = rejected("node-1", "node-2", reason=RemovalReason.NOT_SCHEDULED)

    assert [is_paused(once, seconds) for seconds in (119, 120)] == [True, False]
    assert [is_paused(twice, seconds) for seconds in (239, 240)] == [True, False]


THREE_NODES = ["node-1", "node-2", "node-1"]


Change = tuple[str, Callable[[Snapshot], Snapshot]]


def changed_node(name: str, *, devices: int = 2, **fields: Unpack[NodeFields]) -> Change:
    return name, lambda s: replace(s, nodes={**s.nodes, "node-1": make.node("node-1", devices=devices, **fields)})


LABEL = changed_node("label", labels={"new": ""})
TAINT = changed_node("taint", unschedulable=True)
ALLOCATABLE = changed_node("allocatable", devices=3)
DEVICES: Change = (
    "devices",
    lambda s: replace(s, telemetry={**s.telemetry, "node-1": make.telemetry("node-1", devices=3)}),
)
ENDED: Change = ("a pod ended", lambda s: replace(s, other_requests={"node-1": {"pods": 1, "cpu": 50}}))
CHANGES = (LABEL, TAINT, ALLOCATABLE, DEVICES, ENDED)


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector.", "aDd"),
        ("OutOfcpu: Node didn't have enough resource: cpu, requested: 2, used: 15, capacity: 16", "aDd"),
        ("0/2 nodes are available: 1 node(s) had untolerated taint {a: b}.", "t"),
        ("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.", "l"),
        ("NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector", "l"),
        ("0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity.", "l"),
        ('0/2 nodes are available: persistentvolumeclaim "absent" not found.', ""),
        ("0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.", ""),
        ('SysctlForbidden: forbidden sysctl: "kernel.msgmax" not allowlisted', ""),
    ],
)
def test_a_node_is_tried_during_a_pause_if_what_the_rejection_names_changed(message: str, named: str) -> None:
    occupied = replace(fleet(), other_requests={"node-1": {"pods": 1, "cpu": 100}})
    rejections = Rejections()
    for number, node in enumerate(THREE_NODES[: 2 if named else 3]):
        removal = Removal(make.pod(suffix=f"{number}"), 0, RemovalReason.UNSCHEDULABLE, message, node)
        assessed = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (), (removal,))
        rejections = count_rejections(occupied, rejections, [assessed], guard=WorkloadGuard())
    kinds = {"l": [LABEL], "t": [TAINT], "a": [ALLOCATABLE], "d": [DEVICES], "D": [ENDED]}
    expected = [change[0] for letter in named for change in kinds[letter]]

    tried = [name for name, change in CHANGES if not is_paused(rejections, 60, change(occupied))]

    assert sorted(tried) == sorted(expected)
    assert all(is_paused(rejections, 59, change(occupied)) for _, change in CHANGES), "not before a minute is over"


LABELS_DIFFER = "node(s) didn't match Pod's node affinity/selector"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0], 60),
        ([0, 0, 60], 600),
        ([0, 0, 600], 720),
        ([0, 0, 60, 600], 840),
        ([0, 0, 60, 600, 840], 1320),
        ([0, 0, 60, 600, 840, 1440], 2040),
    ],
)
def test_change_is_tried_later_each_time_and_within_three_pods(times: list[float], expected: float) -> None:
    """The delay is a minute, doubled with each rejection; three pods in ten minutes are the limit."""
    changed = LABEL[1](fleet())
    rejections = rejected(*["node-1"] * len(times), message=LABELS_DIFFER, seconds=times)

    assert [is_paused(rejections, seconds, changed) for seconds in (expected - 1, expected)] == [True, False]


def test_pods_of_a_gang_that_were_created_together_are_one_try() -> None:
    gang = make.workload(replicas=3, placement={"gang": True})
    pods = [make.pod(replica=index, suffix=f"{index}") for index in range(3)]
    removals = [Removal(p, i, RemovalReason.UNSCHEDULABLE, LABELS_DIFFER, "node-1") for i, p in enumerate(pods)]
    rejections, began = Rejections(), fleet(workload=gang)
    replicas = tuple(Replica(index, PlacementState.PENDING) for index in range(3))
    for number, removal in enumerate(removals):
        assessed = WorkloadReplicas(gang, make.spec(gang), replicas, (removal,))
        rejections = count_rejections(
            replace(began, now=make.NOW + timedelta(seconds=number)), rejections, [assessed], guard=WorkloadGuard()
        )

    (pause,) = rejections.pauses.values()
    assert (pause.count, pause.earlier) == (3, ())
    assert pause.retry_from - pause.at == timedelta(minutes=2)


def test_a_new_node_is_tried_during_a_pause() -> None:
    found = fleet()
    grown = replace(
        found,
        nodes={**found.nodes, "node-3": make.node("node-3")},
        telemetry={**found.telemetry, "node-3": make.telemetry("node-3")},
    )
    rejections = rejected(*THREE_NODES, "node-1", seconds=[0, 0, 0, 600])

    assert [is_paused(rejections, seconds, grown) for seconds in (719, 720)] == [True, False]


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
    rejections = count_rejections(fleet(pod), rejected(*THREE_NODES), [assessed], guard=WorkloadGuard())

    after = count_rejections(fleet(pod, seconds=seconds), rejections, [assessed], guard=WorkloadGuard())

    assert (not after.pauses, not after.backoffs) == (dropped, dropped)


def test_an_allocation_that_is_taken_back_starts_the_minute_again() -> None:
    pod = make.running_pod()
    good = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (Replica(0, PlacementState.ALLOCATED, pod=pod),))
    bad = WorkloadReplicas(WORKLOAD, make.spec(WORKLOAD), (Replica(0, PlacementState.MISMATCH, pod=pod),))
    rejections = count_rejections(fleet(pod), rejected(*THREE_NODES), [good], guard=WorkloadGuard())
    rejections = count_rejections(fleet(pod, seconds=30), rejections, [bad], guard=WorkloadGuard())
    rejections = count_rejections(fleet(pod, seconds=31), rejections, [good], guard=WorkloadGuard())

    assert count_rejections(fleet(pod, seconds=90), rejections, [good], guard=WorkloadGuard()).pauses


def test_pods_are_read_once_for_all_rejections() -> None:
    """Reading them, and making a set of all nodes, for each rejection is quadratic when many pods are rejected."""

    class Counted(dict[str, Pod]):
        reads = 0

        def items(self) -> Any:
            self.reads += 1
            return super().items()

    workloads = [make.workload(f"w-{number}") for number in range(5)]
    pods = Counted({pod.uid: pod for pod in (make.running_pod(one) for one in workloads)})
    observer = NodeObserver(replace(make.snapshot(*workloads, make.telemetry()), pods=pods))
    found = [observer.observe("node-1", one.uid, frozenset()) for one in workloads]
    assert pods.reads == 1
    assert [len(each.running) for each in found] == [4] * 5
    assert observer.names is observer.names
