"""Decisions on pods that fail, end, or are suspended."""

from dataclasses import replace
from datetime import timedelta
from typing import Unpack

import pytest

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadStatus
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions, WriteStatus
from gpufleet_operator.model.objects import Pod, PodPhase, Workload
from gpufleet_operator.model.pod_state.containers import Container
from gpufleet_operator.model.replica import RemovalReason
from gpufleet_operator.model.state_types import Backoff, PassState, Rejections
from gpufleet_testing.operator import make, results
from gpufleet_testing.operator.fields import DeviceFields

State = PlacementState


class TestScheduler:
    def rejected(self, *, nominated: bool = False) -> Pod:
        return make.released_pod(unschedulable="0/2 nodes are available: volume zone", nominated=nominated)

    def run(self, pod: Pod, seconds: float) -> Actions:
        first = make.telemetry(assignments=[make.assignment(pod)])
        snapshot = make.snapshot(make.workload(), pod, first)
        return decide(make.later(snapshot, decide(snapshot), seconds))

    def test_unschedulable_pod_is_kept_for_five_seconds(self) -> None:
        assert not self.run(self.rejected(), 4.9).deletes

    def test_unschedulable_pod_is_replaced_and_its_node_excluded(self) -> None:
        pod = self.rejected()

        actions = self.run(pod, 5)

        (delete,) = actions.deletes
        assert (delete.uid, delete.resource_version, delete.reason) == (pod.uid, "20", RemovalReason.UNSCHEDULABLE)
        assert not actions.reserves, "the devices are reserved until the pod is deleted"
        (rejection,) = results.explanation(actions).node_rejections
        assert (rejection.node, rejection.by) == ("node-1", "kube-scheduler")
        assert "volume zone" in results.explanation(actions).message

    def test_nominated_pod_is_kept(self) -> None:
        assert not self.run(self.rejected(nominated=True), 60).deletes

    @pytest.mark.parametrize(("seconds", "deleted"), [(29, 0), (30, 1)])
    def test_grace_is_longer_while_allocatable_is_outdated(self, seconds: float, deleted: int) -> None:
        pod = self.rejected()
        snapshot = make.snapshot(
            make.workload(),
            pod,
            make.telemetry(assignments=[make.assignment(pod)]),
            make.node(devices=0),
        )

        assert len(decide(make.later(snapshot, decide(snapshot), seconds)).deletes) == deleted

    @pytest.mark.parametrize(("seconds", "deleted"), [(4.9, 0), (5, 1)])
    def test_withheld_devices_do_not_extend_the_grace(self, seconds: float, deleted: int) -> None:
        pod = self.rejected()
        reported = make.telemetry(assignments=[make.assignment(pod)], withheld="no /dev/nvidia0")
        snapshot = make.snapshot(make.workload(), pod, reported, make.node(devices=0))

        assert len(decide(make.later(snapshot, decide(snapshot), seconds)).deletes) == deleted

    def test_rejection_excludes_the_node_until_the_backoff_ends(self) -> None:
        state = PassState(
            rejections=Rejections(
                {("uid-train", 0, "node-1"): Backoff(1, make.NOW, make.NOW + timedelta(seconds=2), "no", "x")}
            )
        )
        snapshot = make.snapshot(make.workload(), make.pod(), make.telemetry(), state=state)

        first = decide(snapshot)

        assert not first.reserves
        assert first.due == make.NOW + timedelta(seconds=2)
        assert decide(make.later(snapshot, first, 2)).reserves

    def test_rejections_are_read_back_from_status_after_a_restart(self) -> None:
        reported = self.run(self.rejected(), 5).statuses[0].status
        fresh = make.snapshot(
            make.workload(status=reported), make.pod(suffix="b"), make.telemetry(), now=make.NOW + timedelta(seconds=6)
        )

        assert not decide(fresh).reserves

    def test_pod_of_a_deleted_node_is_replaced_immediately(self) -> None:
        pod = make.released_pod()
        snapshot = make.snapshot(
            make.workload(), pod, make.telemetry(assignments=[make.assignment(pod)]), without_nodes=("node-1",)
        )

        assert [d.reason for d in decide(snapshot).deletes] == [RemovalReason.NODE_DELETED]


class TestKubelet:
    def test_rejection_replaces_the_pod_and_excludes_the_node(self) -> None:
        pod = make.released_pod(
            node="node-1", phase=PodPhase.FAILED, reason="UnexpectedAdmissionError", message="Allocate failed"
        )
        telemetry = make.telemetry(assignments=[make.assignment(pod)])

        actions = decide(make.snapshot(make.workload(), pod, telemetry))

        assert [d.reason for d in actions.deletes] == [RemovalReason.REJECTED]
        assert [r.removed for r in actions.reserves] == [(pod.uid,)], "the pod never ran, so its devices are free"
        assert results.states(actions) == ["Rejected"]
        assert actions.state.rejections.backoffs["uid-train", 0, "node-1"].by == "kubelet"

    def test_mismatch_replaces_the_pod_and_keeps_the_reservation(self) -> None:
        pod = make.running_pod(devices=("GPU-1-1",))
        telemetry = make.telemetry(assignments=[make.assignment(pod, "GPU-1-0")])

        actions = decide(make.snapshot(make.workload(), pod, telemetry))

        assert [d.reason for d in actions.deletes] == [RemovalReason.MISMATCH]
        assert not actions.reserves
        assert results.states(actions) == ["Mismatch"]

    def test_rejected_pod_counts_once_as_a_rejection(self) -> None:
        pod = make.released_pod(node="node-1", phase=PodPhase.FAILED, reason="OutOfcpu")
        snapshot = make.snapshot(make.workload(), pod, make.telemetry(assignments=[make.assignment(pod)]))
        first = decide(snapshot)

        second = decide(make.later(snapshot, first, 1))

        assert second.state.rejections.backoffs["uid-train", 0, "node-1"].count == 1


class TestEnd:
    def test_succeeded_pod_frees_its_devices_and_stays_in_status(self) -> None:
        pod = make.running_pod(phase=PodPhase.SUCCEEDED)
        assignment = make.assignment(pod)
        record = ReplicaPlacement(
            replica=0, state=State.ALLOCATED, pod=pod.name, pod_uid=pod.uid, node="node-1", devices=["GPU-1-0"]
        )
        workload = make.workload(status=WorkloadStatus(placements=[record]))
        snapshot = make.snapshot(
            workload, pod, make.telemetry(assignments=[assignment]), state=PassState(seen_holding=frozenset({pod.uid}))
        )

        actions = decide(snapshot)

        assert [r.removed for r in actions.reserves] == [(pod.uid,)]
        assert results.states(actions) == ["Succeeded"]
        assert actions.statuses[0].status.placements[0].devices == ["GPU-1-0"]
        assert results.condition(actions.statuses[0], "Complete") == ("True", "Succeeded")
        gone = make.snapshot(make.workload(status=actions.statuses[0].status), make.telemetry())
        assert not decide(gone).creates, "no pod is created for a succeeded replica"

    def test_disrupted_pod_is_replaced(self) -> None:
        ran = (Container("main", ran=True),)
        pod = make.released_pod(node="node-1", phase=PodPhase.FAILED, reason="Evicted", disrupted=True, containers=ran)

        assert [d.reason for d in decide(make.snapshot(make.workload(), pod, make.telemetry())).deletes] == [
            RemovalReason.DISRUPTED
        ]

    def test_suspension_deletes_the_pods(self) -> None:
        pod = make.running_pod()
        telemetry = make.telemetry(assignments=[make.assignment(pod)])

        actions = decide(make.snapshot(make.workload(suspend=True), pod, telemetry))

        assert [d.reason for d in actions.deletes] == [RemovalReason.SUSPENDED]
        assert results.condition(actions.statuses[0], "Placed") == ("False", "Suspended")

    def test_terminating_pod_is_replaced_and_keeps_its_devices(self) -> None:
        old, new = make.running_pod(deleting=True), make.pod(suffix="b")
        telemetry = make.telemetry(devices=1, assignments=[make.assignment(old)])

        actions = decide(make.snapshot(make.workload(), old, new, telemetry))

        assert not actions.creates
        assert not actions.reserves
        assert results.states(actions) == ["Pending"]

    def test_younger_pod_of_a_replica_is_surplus(self) -> None:
        one, two = make.pod(suffix="a"), make.pod(suffix="b", created=make.NOW)

        actions = decide(make.snapshot(make.workload(), one, two, make.telemetry()))

        assert [(d.uid, d.reason) for d in actions.deletes] == [(two.uid, RemovalReason.SURPLUS)]


class TestWithoutReservation:
    def record(self, pod: Pod) -> Workload:
        placement = ReplicaPlacement(
            replica=0, state=State.ALLOCATED, pod=pod.name, pod_uid=pod.uid, node="node-1", devices=["GPU-1-0"]
        )
        return make.workload(status=WorkloadStatus(placements=[placement]))

    def test_pod_released_by_another_client_is_replaced(self) -> None:
        assert [
            d.reason for d in decide(make.snapshot(make.workload(), make.released_pod(), make.telemetry())).deletes
        ] == [RemovalReason.MISMATCH]

    def test_running_pod_recovers_its_reservation_after_node_recreation(self) -> None:
        pod = make.running_pod()

        actions = decide(make.snapshot(self.record(pod), pod, make.telemetry(generation=1)))

        assert not actions.deletes
        assert [(a.pod_uid, a.devices) for a in actions.reserves[0].assignments] == [(pod.uid, ["GPU-1-0"])]

    def test_running_pod_is_kept_while_its_telemetry_is_missing(self) -> None:
        pod = make.running_pod()

        actions = decide(make.snapshot(self.record(pod), pod, make.node()))

        assert not actions.deletes
        assert results.condition(actions.statuses[0], "Degraded")[0] == "False"
        assert "GPUTelemetry node-1 not found" in str(actions.statuses[0].status.placements[0].message)


class TestBadInput:
    def test_invalid_template_is_a_condition(self) -> None:
        workload = make.workload(template={"spec": {"nodeName": "node-1", "containers": [{"name": "a"}]}})

        actions = decide(make.snapshot(workload, make.telemetry()))

        assert not actions.creates
        assert results.condition(actions.statuses[0], "Stalled") == ("True", "InvalidTemplate")
        assert results.condition(actions.statuses[0], "Ready") == ("False", "InvalidTemplate")
        assert "spec.template.spec.nodeName: Forbidden: " in actions.statuses[0].status.conditions[0].message

    def test_object_that_does_not_parse_is_a_condition(self) -> None:
        workload = replace(make.workload(), model=None, invalid="spec.replicas: must be a number (got 'x')")

        actions = decide(make.snapshot(workload, make.telemetry()))

        assert results.condition(actions.statuses[0], "Stalled") == ("True", "InvalidObject")

    def test_placements_are_kept_for_an_object_that_does_not_parse(self) -> None:
        record = ReplicaPlacement(replica=0, state=State.SUCCEEDED, shard_start=0, shard_end=9)
        workload = make.workload(status=WorkloadStatus(placements=[record]))

        actions = decide(make.snapshot(replace(workload, model=None, invalid="x"), make.telemetry()))

        assert actions.statuses[0].status.placements == [record]

    def test_exceeded_quota_is_not_stalled(self) -> None:
        """It ends when other pods end."""
        backoff = Backoff(3, make.NOW, make.NOW + timedelta(seconds=4), "exceeded quota: gpu", "apiserver")
        state = PassState(write_backoffs={"create/uid-train": backoff})
        actions = decide(make.snapshot(make.workload(), make.telemetry(), state=state))
        assert results.condition(actions.statuses[0], "Stalled") == ("False", "AsExpected")
        assert results.condition(actions.statuses[0], "Reconciling") == ("True", "QuotaExceeded")

    def test_rejected_pod_creation_is_reported_and_retried(self) -> None:
        backoff = Backoff(3, make.NOW, make.NOW + timedelta(seconds=4), "invalid container name", "apiserver")
        state = PassState(write_backoffs={"create/uid-train": backoff})
        snapshot = make.snapshot(make.workload(), make.telemetry(), state=state)

        actions = decide(snapshot)

        assert not actions.creates
        assert results.condition(actions.statuses[0], "Stalled") == ("True", "PodCreateFailed")
        assert "invalid container name" in actions.statuses[0].status.conditions[0].message
        assert decide(make.later(snapshot, actions, 4)).creates

    def test_uuid_on_two_nodes_excludes_the_second_node(self) -> None:
        one, two = make.telemetry("node-1"), make.telemetry("node-2")
        twin = two.model.model_copy(update={"status": one.status})

        actions = decide(make.snapshot(make.workload(), make.pod(), one, replace(two, model=twin)))

        assert [r.node for r in actions.reserves] == ["node-1"]
        assert "is duplicated" in actions.inconsistencies[0]


class TestDegraded:
    def confirmed(self, *, age: float = 1, **device: Unpack[DeviceFields]) -> WriteStatus:
        pod = make.running_pod()
        assignment = make.assignment(pod)
        found = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment}, age=age, **device)
        return decide(make.snapshot(make.workload(), pod, found)).statuses[0]

    def test_unhealthy_device_is_a_condition(self) -> None:
        write = self.confirmed(health={"state": "Unhealthy"})

        assert results.condition(write, "Degraded") == ("True", "DeviceUnhealthy")
        assert results.condition(write, "Ready") == ("True", "AllReplicasReady")

    def replacing(
        self,
        seconds: float,
        *,
        policy: str = "Replace",
        age: float = 1,
        devices: int = 2,
        state: str = "Unhealthy",
    ) -> Actions:
        """The decision some seconds after the device of a confirmed pod became unhealthy."""
        workload = make.workload(placement={"onDegraded": policy})
        pod = make.running_pod()
        assignment = make.assignment(pod)
        reserved, held = [assignment], {"GPU-1-0": assignment}
        faulty = make.telemetry(assignments=reserved, held=held, health={"state": "Unhealthy"}, age=age)
        first = make.snapshot(workload, pod, faulty)
        now = make.telemetry(
            devices=devices, assignments=reserved, held=held, health={"state": state}, age=age - seconds
        )
        then = make.snapshot(workload, pod, make.telemetry("node-2"), now)
        return decide(make.later(then, decide(first), seconds))

    def test_unhealthy_pod_is_replaced_after_ten_seconds(self) -> None:
        assert not self.replacing(9.9).deletes
        actions = self.replacing(10)

        (delete,) = actions.deletes
        assert (delete.uid, delete.resource_version, delete.reason) == ("uid-train-0-a", "20", RemovalReason.UNHEALTHY)
        assert "GPU-1-0" in delete.message
        assert not actions.reserves, "the devices are reserved until the pod is deleted"
        assert results.condition(actions.statuses[0], "Degraded") == ("True", "DeviceUnhealthy")

    def test_unhealthy_pod_is_kept_if_ignored_or_unknown(self) -> None:
        assert not self.replacing(60, policy="Ignore").deletes
        assert not self.replacing(60, state="Healthy").deletes, "it recovered"
        assert not self.replacing(60, age=200).deletes, "stale telemetry"
        assert not self.replacing(60, devices=0).deletes, "an agent that starts before the driver reports no device"

    def test_replacement_gets_healthy_devices(self) -> None:
        workload = make.workload(placement={"onDegraded": "Replace"})
        old, new = make.running_pod(deleting=True), make.pod(suffix="b")
        sick = make.telemetry(assignments=[make.assignment(old)], health={"state": "Unhealthy"})

        actions = decide(make.snapshot(workload, old, new, sick, make.telemetry("node-2")))

        assert [(r.pod_uid, r.node) for r in actions.releases] == [(new.uid, "node-2")]

    def test_decision_is_due_at_the_end_of_the_grace(self) -> None:
        workload, pod = make.workload(placement={"onDegraded": "Replace"}), make.running_pod()
        sick = make.telemetry(assignments=[make.assignment(pod)], health={"state": "Unhealthy"})

        assert decide(make.snapshot(workload, pod, sick)).due == make.NOW + timedelta(seconds=10)

    def test_stale_telemetry_is_a_condition(self) -> None:
        assert results.condition(self.confirmed(age=200), "Degraded") == ("True", "TelemetryStale")
