"""Decisions on a workload without a template: its pods have other owners."""

import pytest

from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadStatus
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.objects import PodPhase
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_testing.operator import make, owned, results

GANG = {"gang": True}


def test_pod_with_the_label_is_reserved_and_released() -> None:
    pod = owned.pod("web-a", owned.replica_set())

    actions = decide(make.snapshot(owned.workload(), pod, make.telemetry()))

    assert not actions.creates
    assert not actions.services
    (assignment,) = actions.reserves[0].assignments
    assert (assignment.pod_uid, assignment.container, assignment.replica) == (pod.uid, "main", 0)
    assert [r.pod_uid for r in actions.releases] == [pod.uid]
    assert results.states(actions) == ["Reserved"]


def test_workload_without_pods_is_idle_and_ready() -> None:
    actions = decide(make.snapshot(owned.workload(), make.telemetry()))

    assert results.status(actions).state == "Idle"
    assert results.condition(actions.statuses[0], "Ready") == ("True", "NoPods")
    assert results.condition(actions.statuses[0], "Reconciling")[0] == "False"


def test_pods_of_another_namespace_or_workload_are_ignored() -> None:
    other = owned.pod("a", workload_label="other")
    foreign = owned.pod("b", namespace="elsewhere")

    actions = decide(make.snapshot(owned.workload(), other, foreign, make.telemetry()))

    assert not actions.reserves
    assert not actions.releases


def test_workload_with_a_template_does_not_place_other_pods() -> None:
    pod = owned.pod("a")

    actions = decide(make.snapshot(make.workload(), pod, make.telemetry()))

    assert [c.replica for c in actions.creates] == [0]
    assert not actions.reserves
    (explained,) = actions.reports.pods
    assert explained.note == "GPUWorkload train has a template, so it places only the pods that it creates"


def test_pod_of_a_missing_workload_is_explained() -> None:
    actions = decide(make.snapshot(owned.pod("a", workload_label="tarin"), make.telemetry()))

    (explained,) = actions.reports.pods
    assert (explained.reason, explained.note) == (
        "WaitingForGPUWorkload",
        "GPUWorkload tarin does not exist in this namespace",
    )


def test_running_pod_is_allocated_and_ready() -> None:
    pod = owned.running("web-a", owned.replica_set())
    assignment = make.assignment(pod)
    telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment})

    actions = decide(make.snapshot(owned.workload(), pod, telemetry))

    assert results.states(actions) == ["Allocated"]
    assert results.condition(actions.statuses[0], "Ready") == ("True", "AllReplicasReady")
    assert results.status(actions).state == "Running"


def test_gang_waits_until_all_pods_exist() -> None:
    workload = owned.workload(replicas=3, placement=GANG)
    pods = [owned.pod(f"job-{i}", owned.job(), rank=(i,)) for i in range(3)]

    waiting = decide(make.snapshot(workload, *pods[:2], make.telemetry(devices=4)))
    complete = decide(make.snapshot(workload, *pods, make.telemetry(devices=4)))

    assert not waiting.reserves
    assert not waiting.releases
    assert results.condition(waiting.statuses[0], "Reconciling") == ("True", "WaitingForPods")
    assert results.message(waiting.statuses[0], "Reconciling") == "2 of 3 pods of the gang exist"
    assert {e.reason for e in waiting.reports.pods} == {"WaitingForPods"}
    assert len(complete.releases) == 3
    assert [(a.pod, a.replica, a.replicas) for a in complete.reserves[0].assignments] == [
        ("job-0", 0, 3),
        ("job-1", 1, 3),
        ("job-2", 2, 3),
    ]


def test_gang_of_an_ordered_stateful_set_names_the_cure() -> None:
    workload = owned.workload(replicas=2, placement=GANG)

    actions = decide(make.snapshot(workload, owned.pod("db-0", owned.stateful_set(), rank=(0,)), make.telemetry()))

    assert "OrderedReady, set it to Parallel" in results.message(actions.statuses[0], "Reconciling")


def test_surplus_pod_of_a_gang_waits_with_a_reason() -> None:
    workload = owned.workload(replicas=1, placement=GANG)
    old = owned.running("web-a", owned.replica_set("web-1"))
    new = owned.pod("web-b", owned.replica_set("web-2"))
    assignment = make.assignment(old)
    telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment})

    actions = decide(make.snapshot(workload, old, new, telemetry))

    assert not actions.releases
    (explained,) = actions.reports.pods
    assert explained.reason == "WaitingForGang"
    assert "maxSurge must be 0" in explained.note
    assert results.condition(actions.statuses[0], "Reconciling") == ("True", "SurplusPod")
    assert results.condition(actions.statuses[0], "Ready")[0] == "False"


def test_distribution_divides_items_among_pods_of_a_job() -> None:
    workload = owned.workload(replicas=2, placement=GANG, distribution={"items": 11})
    pods = [owned.pod(f"job-{i}", owned.job(), rank=(i,)) for i in range(2)]

    actions = decide(make.snapshot(workload, *pods, make.telemetry()))

    assert [(a.shard_start, a.shard_end) for a in actions.reserves[0].assignments] == [(0, 6), (6, 11)]


def test_surge_on_a_full_fleet_waits_and_names_the_cure() -> None:
    old = owned.running("web-a", owned.replica_set("web-1"))
    new = owned.pod("web-b", owned.replica_set("web-2"))
    assignment = make.assignment(old)
    telemetry = make.telemetry(devices=1, assignments=[assignment], held={"GPU-1-0": assignment})

    actions = decide(make.snapshot(owned.workload(), old, new, telemetry))

    (explained,) = actions.reports.pods
    assert explained.reason == "WaitingForDevices"
    assert "1 pod of an earlier ReplicaSet holds devices" in explained.note
    assert "maxSurge 0" in explained.note
    assert results.condition(actions.statuses[0], "Placed") == ("False", "NoDevicesAvailable")


def test_suspended_workload_keeps_pods_and_places_none() -> None:
    running, waiting = owned.running("web-a", owned.replica_set()), owned.pod("web-b", owned.replica_set())
    reserved = make.assignment(running)
    unused = make.assignment(waiting, "GPU-1-1")
    telemetry = make.telemetry(assignments=[reserved, unused], held={"GPU-1-0": reserved})

    actions = decide(make.snapshot(owned.workload(suspend=True), running, waiting, telemetry))

    assert not actions.deletes
    assert not actions.releases
    assert [a.pod for a in actions.reserves[0].assignments] == ["web-a"]
    assert [e.reason for e in actions.reports.pods] == ["WaitingForResume"]
    assert results.condition(actions.statuses[0], "Suspended") == ("True", "Suspended")


def test_pod_without_a_gate_is_reported_and_left_alone() -> None:
    pod = owned.pod("web-a", owned.replica_set(), gates=(), node="node-1", phase=PodPhase.RUNNING)

    actions = decide(make.snapshot(owned.workload(), pod, make.telemetry()))

    assert not actions.deletes
    assert results.condition(actions.statuses[0], "Degraded") == ("True", "UngatedPod")


def test_pod_with_another_request_is_invalid() -> None:
    pod = owned.pod("web-a", owned.replica_set(), count=2)

    actions = decide(make.snapshot(owned.workload(), pod, make.telemetry()))

    assert not actions.releases
    assert results.condition(actions.statuses[0], "Stalled") == ("True", "InvalidPod")
    (explained,) = actions.reports.pods
    assert explained.reason == "WaitingForValidPod"
    assert actions.gated == {"InvalidPod": 1}
    assert "spec.containers[0].resources.limits[gpufleet.dev/gpu]: Invalid value: 2: must be 1" in explained.note


def test_unlike_pods_are_placed_by_their_own_needs() -> None:
    heavy = PodNeeds(cpu_milli=12_000, memory_bytes=2**20, extended={RESOURCE: 1})
    head, worker = owned.pod("a"), owned.pod("b", needs=heavy)
    node = make.node(allocatable={"cpu": 4_000, "memory": 2**36, "pods": 10, RESOURCE: 2, SHARED_RESOURCE: 32})

    actions = decide(make.snapshot(owned.workload(), head, worker, make.telemetry(), node))

    assert [r.pod_uid for r in actions.releases] == [head.uid]


def test_new_pod_of_the_same_name_avoids_the_node_of_the_old_one() -> None:
    old = make.assignment(owned.running("db-0", owned.stateful_set(), uid="old"))
    new = owned.pod("db-0", owned.stateful_set(), rank=(0,), uid="new")
    telemetry = make.telemetry(assignments=[old], held={"GPU-1-0": old})

    alone = decide(make.snapshot(owned.workload(), new, telemetry))
    elsewhere = decide(make.snapshot(owned.workload(), new, telemetry, make.telemetry("node-2")))

    assert not alone.releases
    assert [r.node for r in elsewhere.releases] == ["node-2"]


def test_pods_of_an_earlier_run_do_not_complete_a_gang() -> None:
    workload = owned.workload(replicas=2, placement=GANG)
    ended = [
        owned.running(f"old-{i}", owned.job("run-1"), rank=(i,), phase=PodPhase.SUCCEEDED, ready=False)
        for i in range(2)
    ]
    new = owned.pod("new-0", owned.job("run-2"), rank=(0,))

    actions = decide(make.snapshot(workload, *ended, new, make.telemetry()))

    assert not actions.releases
    assert results.condition(actions.statuses[0], "Reconciling") == ("True", "WaitingForPods")


def test_completed_job_leaves_an_idle_workload() -> None:
    ended = [owned.running(f"job-{i}", owned.job(), rank=(i,), phase=PodPhase.SUCCEEDED, ready=False) for i in range(2)]

    actions = decide(make.snapshot(owned.workload(), *ended, make.telemetry()))

    assert results.states(actions) == ["Succeeded", "Succeeded"]
    assert results.status(actions).state == "Idle"
    assert results.condition(actions.statuses[0], "Ready")[0] == "True"
    assert results.condition(actions.statuses[0], "Complete")[0] == "False"


def test_lost_member_of_a_started_gang_is_placed_alone() -> None:
    workload = owned.workload(replicas=2, placement=GANG)
    running = owned.running("job-0", owned.job(), rank=(0,))
    again = owned.pod("job-1", owned.job(), rank=(1,))
    assignment = make.assignment(running)
    telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment})

    actions = decide(make.snapshot(workload, running, again, telemetry))

    assert [r.pod_uid for r in actions.releases] == [again.uid]


@pytest.mark.parametrize("gang", [False, True])
def test_index_in_the_status_survives_a_restart(gang: bool) -> None:
    stored = ReplicaPlacement(replica=1, state=PlacementState.PENDING, pod="web-a", pod_uid="uid-web-a")
    workload = owned.workload(WorkloadStatus(placements=[stored]), replicas=2 if gang else 1, placement={"gang": gang})

    actions = decide(make.snapshot(workload, owned.pod("web-a"), owned.pod("web-b"), make.telemetry()))

    assert sorted((a.pod, a.replica) for a in actions.reserves[0].assignments) == [("web-a", 1), ("web-b", 0)]


def test_settled_workload_of_other_owners_needs_no_writes() -> None:
    pod = owned.running("web-a", owned.replica_set())
    assignment = make.assignment(pod)
    telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment})
    first = decide(make.snapshot(owned.workload(), pod, telemetry))

    snapshot = make.snapshot(owned.workload(results.status(first)), pod, telemetry, state=first.state)
    again = decide(snapshot)

    assert not again.statuses
    assert not again.reserves
    assert not again.releases
    assert not again.deletes
