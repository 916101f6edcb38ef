"""Decisions on a workload, from its request to its devices."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gpufleet_api.names import SCHEDULING_GATE
from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadStatus
from gpufleet_common import timestamps
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.state_types import Backoff, PassState
from gpufleet_testing.operator import make, results
from gpufleet_testing.operator.fields import PodFields

State = PlacementState


def test_new_workload_gets_a_gated_pod_per_replica() -> None:
    actions = decide(make.snapshot(make.workload(replicas=2), make.telemetry()))

    assert [c.replica for c in actions.creates] == [0, 1]
    assert not actions.reserves
    assert actions.creates[0].body["spec"]["schedulingGates"] == [{"name": SCHEDULING_GATE}]
    assert results.condition(actions.statuses[0], "Reconciling") == ("True", "CreatingPods")


def test_gated_pod_is_reserved_and_released_in_one_pass() -> None:
    pod = make.pod()

    actions = decide(make.snapshot(make.workload(), pod, make.telemetry()))

    (reserve,) = actions.reserves
    assert (reserve.node, reserve.uid, reserve.generation) == ("node-1", "uid-node-1-telemetry", 5)
    assert [(a.pod_uid, len(a.devices)) for a in reserve.assignments] == [(pod.uid, 1)]
    (release,) = actions.releases
    assert (release.pod_uid, release.node, release.after) == (pod.uid, "node-1", frozenset({"node-1"}))
    assert results.states(actions) == ["Reserved"]
    assert actions.statuses[0].status.placements[0].score is not None


def test_reservation_from_before_a_crash_is_verified_and_released() -> None:
    pod = make.pod()
    telemetry = make.telemetry(assignments=[make.assignment(pod, "GPU-1-1")])

    actions = decide(make.snapshot(make.workload(), pod, telemetry))

    (proof,) = actions.reserves
    assert (proof.uid, proof.generation, proof.added, proof.removed) == (telemetry.uid, telemetry.generation, (), ())
    (proven,), (stored,) = proof.assignments, telemetry.assignments
    assert proven == stored.model_copy(update={"decided_at": timestamps.micros(make.NOW)}), "the generation rises"
    (release,) = actions.releases
    assert release.after == {"node-1"}
    assert "GPU-1-1" in str(release.patch)


def test_reservation_on_stale_telemetry_moves_to_another_node() -> None:
    pod = make.pod()
    stale = make.telemetry(assignments=[make.assignment(pod)], age=200)

    actions = decide(make.snapshot(make.workload(), pod, stale, make.telemetry("node-2")))

    assert {r.node: len(r.assignments) for r in actions.reserves} == {"node-1": 0, "node-2": 1}
    assert [r.node for r in actions.releases] == ["node-2"]


def test_settled_workload_needs_no_writes() -> None:
    workload, pod = make.workload(), make.running_pod()
    assignment = make.assignment(pod)
    telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment})
    first = decide(make.snapshot(workload, pod, telemetry))
    status = first.statuses[0].status

    telemetry = replace(telemetry, conditions={c.type: c for c in first.reports.telemetry[0].conditions})
    node = make.node(condition=first.reports.nodes[0].condition)

    again = decide(make.snapshot(make.workload(status=status), pod, telemetry, node, state=first.state))

    assert results.states(first) == ["Allocated"]
    assert results.condition(first.statuses[0], "Ready") == ("True", "AllReplicasReady")
    assert again.empty


@pytest.mark.parametrize("count", [0, 1])
def test_unplaced_workload_has_an_explanation(count: int) -> None:
    telemetry = make.telemetry(devices=count, utilizationPercent=97)
    workload = make.workload(requirements={"maxUtilizationPercent": 50})

    actions = decide(make.snapshot(workload, make.pod(), telemetry))

    assert not actions.reserves
    assert not actions.releases
    write = actions.statuses[0]
    assert results.condition(write, "Placed") == ("False", "NoDevicesAvailable")
    assert write.status.explanation is not None
    assert write.status.explanation.devices_considered == count
    if count:
        assert "97" in write.status.explanation.message
    assert [e.reason for e in write.events if e.warning] == ["NoDevicesAvailable"]


def test_status_that_differs_in_messages_is_written_after_an_interval() -> None:
    workload = make.workload(requirements={"maxUtilizationPercent": 50})
    first = decide(make.snapshot(workload, make.pod(), make.telemetry(utilizationPercent=97)))
    known = make.workload(status=first.statuses[0].status, requirements={"maxUtilizationPercent": 50})
    cooler = make.snapshot(known, make.pod(), make.telemetry(utilizationPercent=80), state=first.state)

    at_once, later = decide(cooler), decide(make.later(cooler, first, 11))

    assert not at_once.statuses
    assert "80" in results.explanation(later).message


def test_pod_with_other_scheduling_gates_waits() -> None:
    pod = make.pod(gates=("example.com/quota", SCHEDULING_GATE))

    actions = decide(make.snapshot(make.workload(), pod, make.telemetry()))

    assert not actions.reserves
    assert results.condition(actions.statuses[0], "Reconciling") == ("True", "OtherSchedulingGates")
    assert "example.com/quota" in str(actions.statuses[0].status.placements[0].message)
    assert actions.gated == {"OtherSchedulingGates": 1}


def test_node_whose_write_backs_off_is_skipped() -> None:
    pod = make.pod()
    state = PassState(
        write_backoffs={"reserve/node-1": Backoff(1, make.NOW, make.NOW + timedelta(seconds=4), "no", "apiserver")}
    )

    actions = decide(make.snapshot(make.workload(), pod, make.telemetry(), make.telemetry("node-2"), state=state))

    assert [(r.node, r.added) for r in actions.reserves] == [("node-2", (pod.uid,))]
    assert [r.pod_uid for r in actions.releases] == [pod.uid]


class TestForgery:
    """A pod in another namespace whose ownerReference has the workload's uid, with the workload label and the gate."""

    def test_forged_pod_gets_no_devices_and_is_not_deleted(self) -> None:
        forged = make.pod(namespace="other")

        actions = decide(make.snapshot(make.workload(), forged, make.telemetry()))

        assert not actions.reserves
        assert not actions.releases
        assert not actions.deletes
        assert actions.gated == {"GPUWorkload": 1}

    @pytest.mark.parametrize("fields", [{}, {"gates": (), "node": "node-1"}], ids=["gated", "running"])
    def test_forged_pod_does_not_replace_a_replica(self, fields: PodFields) -> None:
        """It is older than the real pod, so without a check of the namespace it would replace it."""
        pod = make.pod(suffix="f", **fields)
        forged = replace(pod, namespace="other", created=make.NOW - timedelta(hours=1))
        real = make.running_pod()
        assignment = make.assignment(real)
        telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment})

        actions = decide(make.snapshot(make.workload(), forged, real, telemetry))

        assert not actions.deletes
        assert not actions.reserves
        assert results.states(actions) == ["Allocated"]


class TestGang:
    def test_gang_is_reserved_and_released_together(self) -> None:
        workload = make.workload(replicas=2, devices={"count": 2}, placement={"gang": True, "strategy": "Spread"})
        pods = [make.pod(workload, 0), make.pod(workload, 1)]

        actions = decide(make.snapshot(workload, *pods, make.telemetry(), make.telemetry("node-2")))

        assert {r.node for r in actions.reserves} == {"node-1", "node-2"}
        assert [r.after for r in actions.releases] == [frozenset({"node-1", "node-2"})] * 2

    def test_gang_waits_for_all_of_its_pods(self) -> None:
        workload = make.workload(replicas=2, placement={"gang": True})

        actions = decide(make.snapshot(workload, make.pod(workload, 0), make.telemetry()))

        assert [c.replica for c in actions.creates] == [1]
        assert not actions.reserves

    def test_gang_that_does_not_fit_gets_no_devices(self) -> None:
        workload = make.workload(replicas=3, placement={"gang": True})
        pods = [make.pod(workload, i) for i in range(3)]

        actions = decide(make.snapshot(workload, *pods, make.telemetry(devices=2)))

        assert not actions.reserves
        assert results.states(actions) == ["Pending"] * 3

    def test_incomplete_gang_releases_its_reservations(self) -> None:
        workload = make.workload(replicas=2, devices={"count": 2}, placement={"gang": True})
        pods = [make.pod(workload, 0), make.pod(workload, 1)]
        half = make.telemetry(assignments=[make.assignment(pods[0], "GPU-1-0", "GPU-1-1")])

        actions = decide(make.snapshot(workload, *pods, half))

        assert [r.removed for r in actions.reserves] == [(pods[0].uid,)]
        assert not actions.releases

    def test_incomplete_gang_releases_its_reservations_during_a_backoff(self) -> None:
        workload = make.workload(replicas=2, devices={"count": 2}, placement={"gang": True})
        pods = [make.pod(workload, 0), make.pod(workload, 1)]
        half = make.telemetry(assignments=[make.assignment(pods[0], "GPU-1-0", "GPU-1-1")])
        state = PassState(
            write_backoffs={"reserve/node-2": Backoff(1, make.NOW, make.NOW + timedelta(seconds=4), "no", "apiserver")}
        )
        snapshot = make.snapshot(workload, *pods, half, make.telemetry("node-2"), state=state)

        actions = decide(snapshot)

        assert [(r.node, r.added, r.removed) for r in actions.reserves] == [("node-1", (), (pods[0].uid,))]
        assert not actions.releases
        again = decide(make.later(snapshot, actions, 4))
        assert "node-2" in {r.node for r in again.reserves}, "it is retried"

    def test_gang_is_released_completely_after_a_crash(self) -> None:
        workload = make.workload(replicas=2, placement={"gang": True})
        running, gated = make.running_pod(workload, 0), make.pod(workload, 1)
        assignments = [make.assignment(running, "GPU-1-0"), make.assignment(gated, "GPU-1-1")]

        actions = decide(make.snapshot(workload, running, gated, make.telemetry(assignments=assignments)))

        assert [r.pod_uid for r in actions.releases] == [gated.uid]

    def test_lost_replica_of_a_gang_is_placed_again(self) -> None:
        workload = make.workload(replicas=2, placement={"gang": True})
        running, fresh = make.running_pod(workload, 0), make.pod(workload, 1)
        telemetry = make.telemetry(assignments=[make.assignment(running, "GPU-1-0")])

        actions = decide(make.snapshot(workload, running, fresh, telemetry))

        assert [r.added for r in actions.reserves] == [(fresh.uid,)]
        assert [r.pod_uid for r in actions.releases] == [fresh.uid]


class TestDistribution:
    def workload(self, status: WorkloadStatus | None = None) -> Workload:
        return make.workload(
            replicas=2,
            placement={"gang": True},
            distribution={"items": 1000, "mode": "Proportional", "by": "TotalMemory"},
            status=status,
        )

    def test_ranges_are_contiguous_and_part_of_the_reservation(self) -> None:
        workload = self.workload()

        actions = decide(make.snapshot(workload, make.pod(workload, 0), make.pod(workload, 1), make.telemetry()))

        ranges = [(a.replica, a.shard_start, a.shard_end) for a in actions.reserves[0].assignments]
        assert sorted(ranges) == [(0, 0, 500), (1, 500, 1000)]
        assert actions.statuses[0].status.unassigned_items == 0

    def test_weights_do_not_depend_on_devices(self) -> None:
        shares = {"items": 1000, "mode": "Proportional", "by": "Weights", "weights": [1, 3]}
        workload = make.workload(replicas=2, placement={"gang": True}, distribution=shares)
        one, two = make.telemetry(devices=1), make.telemetry("node-2", devices=1, memoryUsedMiB=50_000)

        actions = decide(make.snapshot(workload, make.pod(workload, 0), make.pod(workload, 1), one, two))

        ranges = [(a.replica, a.shard_start, a.shard_end) for r in actions.reserves for a in r.assignments]
        assert sorted(ranges) == [(0, 0, 250), (1, 250, 1000)]

    def test_replaced_replica_keeps_its_range(self) -> None:
        running = make.running_pod("train", 1, devices=("GPU-1-1",))
        reported = make.assignment(running, "GPU-1-1", shard_start=300, shard_end=1000, replicas=2)
        old = ReplicaPlacement(replica=0, state=State.ALLOCATED, shard_start=0, shard_end=300)
        workload = self.workload(status=WorkloadStatus(placements=[old], unassigned_items=0))

        actions = decide(
            make.snapshot(workload, running, make.pod(workload, 0), make.telemetry(assignments=[reported]))
        )

        added = next(a for a in actions.reserves[0].assignments if a.replica == 0)
        assert (added.shard_start, added.shard_end) == (0, 300)

    def test_lost_range_is_the_gap_between_the_others(self) -> None:
        running = make.running_pod("train", 0)
        reported = make.assignment(running, "GPU-1-0", shard_start=0, shard_end=300, replicas=2)
        workload = self.workload()

        actions = decide(
            make.snapshot(workload, running, make.pod(workload, 1), make.telemetry(assignments=[reported]))
        )

        added = next(a for a in actions.reserves[0].assignments if a.replica == 1)
        assert (added.shard_start, added.shard_end) == (300, 1000)


class TestOrder:
    def test_priority_comes_before_age(self) -> None:
        old, young = make.workload("old"), make.workload("young", created=make.NOW)
        pods = [make.pod(old), make.pod(young, priority=1000)]

        actions = decide(make.snapshot(old, young, *pods, make.telemetry(devices=1)))

        assert [r.pod_uid for r in actions.releases] == [pods[1].uid]

    def test_workloads_of_one_pass_get_different_devices(self) -> None:
        workloads = [make.workload(f"w{i}") for i in range(4)]
        pods = [make.pod(w) for w in workloads]

        actions = decide(make.snapshot(*workloads, *pods, make.telemetry(devices=3)))

        devices = [uuid for a in actions.reserves[0].assignments for uuid in a.devices]
        assert len(devices) == len(set(devices)) == 3
        assert len(actions.releases) == 3
        assert len(actions.unplaced) == 1

    def test_node_capacity_is_deducted_within_a_pass(self) -> None:
        workloads = [make.workload(f"w{i}") for i in range(2)]
        pods = [make.pod(w, needs=replace(make.pod(w).needs, cpu_milli=10_000)) for w in workloads]

        actions = decide(make.snapshot(*workloads, *pods, make.telemetry()))

        assert len(actions.releases) == 1
        (why,) = actions.unplaced.values()
        assert "InsufficientCPU" in {r.reason for r in why.rejected}
