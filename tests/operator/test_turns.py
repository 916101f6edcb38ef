"""State in, actions out: everything that can go wrong with a pod, or end well."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gpufleet_api.workload import PlacementState, ReplicaPlacement, WorkloadStatus
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.replicas import Fault
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.objects import Container, PodPhase
from gpufleet_operator.model.snapshot import Backoff, Memory

State = PlacementState


class TestScheduler:
    def refused(self, b: Any, **fields: Any) -> Any:
        return b.released(unschedulable="0/2 nodes are available: volume zone", **fields)

    def run(self, b: Any, pod: Any, seconds: float, **telemetry: Any) -> Actions:
        first = b.telemetry(assignments=[b.assignment(pod)], **telemetry)
        snapshot = b.snapshot(b.workload(), pod, first)
        return decide(b.later(snapshot, decide(snapshot), seconds))

    def test_has_five_seconds_to_change_its_mind(self, b: Any) -> None:
        assert not self.run(b, self.refused(b), 4.9).deletes

    def test_then_the_pod_is_replaced_and_the_node_set_aside(self, b: Any) -> None:
        pod = self.refused(b)

        actions = self.run(b, pod, 5)

        (delete,) = actions.deletes
        assert (delete.uid, delete.resource_version, delete.fault) == (pod.uid, "20", Fault.UNSCHEDULABLE)
        assert not actions.reserves, "the devices are freed only when the pod is gone"
        (refusal,) = b.explained(actions).refusals
        assert (refusal.node, refusal.by) == ("node-1", "kube-scheduler")
        assert "volume zone" in b.explained(actions).message

    def test_may_preempt(self, b: Any) -> None:
        assert not self.run(b, self.refused(b, nominated=True), 60).deletes

    @pytest.mark.parametrize(("seconds", "deleted"), [(29, 0), (30, 1)])
    def test_has_longer_while_allocatable_lags_behind_the_agent(self, b: Any, seconds: float, deleted: int) -> None:
        pod = self.refused(b)
        snapshot = b.snapshot(
            b.workload(), pod, b.telemetry(assignments=[b.assignment(pod)]), b.node(devices=0), without_nodes=()
        )

        assert len(decide(b.later(snapshot, decide(snapshot), seconds)).deletes) == deleted

    @pytest.mark.parametrize(("seconds", "deleted"), [(4.9, 0), (5, 1)])
    def test_what_the_agent_withholds_is_not_waited_for(self, b: Any, seconds: float, deleted: int) -> None:
        pod = self.refused(b)
        told = b.telemetry(assignments=[b.assignment(pod)], withheld="no /dev/nvidia0")
        snapshot = b.snapshot(b.workload(), pod, told, b.node(devices=0), without_nodes=())

        assert len(decide(b.later(snapshot, decide(snapshot), seconds)).deletes) == deleted

    def test_refusal_keeps_the_node_away_from_the_replica_until_the_backoff_ends(self, b: Any) -> None:
        memory = Memory(
            refusals={("uid-train", 0, "node-1"): Backoff(1, b.now, b.now + timedelta(seconds=2), "no", "x")}
        )
        snapshot = b.snapshot(b.workload(), b.pod(), b.telemetry(), memory=memory)

        first = decide(snapshot)

        assert not first.reserves
        assert first.due == b.now + timedelta(seconds=2)
        assert decide(b.later(snapshot, first, 2)).reserves

    def test_refusals_are_read_back_from_status_after_a_restart(self, b: Any) -> None:
        told = self.run(b, self.refused(b), 5).statuses[0].status
        fresh = b.snapshot(b.workload(status=told), b.pod(suffix="b"), b.telemetry(), now=b.now + timedelta(seconds=6))

        assert not decide(fresh).reserves

    def test_a_pod_whose_node_is_gone_is_replaced_at_once(self, b: Any) -> None:
        pod = b.released()
        snapshot = b.snapshot(
            b.workload(), pod, b.telemetry(assignments=[b.assignment(pod)]), without_nodes=("node-1",)
        )

        assert [d.fault for d in decide(snapshot).deletes] == [Fault.NODE_GONE]


class TestKubelet:
    def test_refusal_replaces_the_pod_and_sets_the_node_aside(self, b: Any) -> None:
        pod = b.released(
            node="node-1", phase=PodPhase.FAILED, reason="UnexpectedAdmissionError", message="Allocate failed"
        )
        telemetry = b.telemetry(assignments=[b.assignment(pod)])

        actions = decide(b.snapshot(b.workload(), pod, telemetry))

        assert [d.fault for d in actions.deletes] == [Fault.REJECTED]
        assert [r.removed for r in actions.reserves] == [(pod.uid,)], "it never ran: the devices are free"
        assert b.states(actions) == ["Rejected"]
        assert actions.memory.refusals["uid-train", 0, "node-1"].by == "kubelet"

    def test_mismatch_replaces_the_pod_but_keeps_the_reservation_until_it_is_gone(self, b: Any) -> None:
        pod = b.running(devices=("GPU-1-1",))
        telemetry = b.telemetry(assignments=[b.assignment(pod, "GPU-1-0")])

        actions = decide(b.snapshot(b.workload(), pod, telemetry))

        assert [d.fault for d in actions.deletes] == [Fault.MISMATCH]
        assert not actions.reserves
        assert b.states(actions) == ["Mismatch"]

    def test_a_refused_pod_counts_once_however_often_its_deletion_is_tried(self, b: Any) -> None:
        pod = b.released(node="node-1", phase=PodPhase.FAILED, reason="OutOfcpu")
        snapshot = b.snapshot(b.workload(), pod, b.telemetry(assignments=[b.assignment(pod)]))
        first = decide(snapshot)

        second = decide(b.later(snapshot, first, 1))

        assert second.memory.refusals["uid-train", 0, "node-1"].count == 1


class TestEnd:
    def test_success_frees_the_devices_and_stays_on_record(self, b: Any) -> None:
        pod = b.running(phase=PodPhase.SUCCEEDED)
        assignment = b.assignment(pod)
        record = ReplicaPlacement(
            replica=0, state=State.CONFIRMED, pod=pod.name, pod_uid=pod.uid, node="node-1", devices=["GPU-1-0"]
        )
        workload = b.workload(status=WorkloadStatus(placements=[record]))
        snapshot = b.snapshot(
            workload, pod, b.telemetry(assignments=[assignment]), memory=Memory(held=frozenset({pod.uid}))
        )

        actions = decide(snapshot)

        assert [r.removed for r in actions.reserves] == [(pod.uid,)]
        assert b.states(actions) == ["Succeeded"]
        assert actions.statuses[0].status.placements[0].devices == ["GPU-1-0"]
        assert b.condition(actions.statuses[0], "Ready") == ("True", "Succeeded")
        gone = b.snapshot(b.workload(status=actions.statuses[0].status), b.telemetry())
        assert not decide(gone).creates, "a replica that has succeeded is not made again"

    def test_failure_of_the_application_is_the_users(self, b: Any) -> None:
        ran = (Container("main", ran=True),)
        pod = b.released(node="node-1", phase=PodPhase.FAILED, message="exit 1", containers=ran)

        actions = decide(b.snapshot(b.workload(), pod, b.telemetry()))

        assert not actions.deletes
        assert not actions.creates
        assert b.condition(actions.statuses[0], "Stalled") == ("True", "ReplicaFailed")
        assert b.condition(actions.statuses[0], "Degraded") == ("True", "ReplicaFailed")

    def test_a_pod_that_the_cluster_ended_is_replaced(self, b: Any) -> None:
        ran = (Container("main", ran=True),)
        pod = b.released(node="node-1", phase=PodPhase.FAILED, reason="Evicted", disrupted=True, containers=ran)

        assert [d.fault for d in decide(b.snapshot(b.workload(), pod, b.telemetry())).deletes] == [Fault.DISRUPTED]

    def test_suspension_deletes_the_pods(self, b: Any) -> None:
        pod = b.running()
        telemetry = b.telemetry(assignments=[b.assignment(pod)])

        actions = decide(b.snapshot(b.workload(suspend=True), pod, telemetry))

        assert [d.fault for d in actions.deletes] == [Fault.SUSPENDED]
        assert b.condition(actions.statuses[0], "Placed") == ("False", "Suspended")

    def test_a_pod_that_is_being_deleted_is_replaced_and_keeps_its_devices_meanwhile(self, b: Any) -> None:
        old, new = b.running(deleting=True), b.pod(suffix="b")
        telemetry = b.telemetry(devices=1, assignments=[b.assignment(old)])

        actions = decide(b.snapshot(b.workload(), old, new, telemetry))

        assert not actions.creates
        assert not actions.reserves
        assert b.states(actions) == ["Pending"]

    def test_of_two_pods_for_one_replica_the_younger_one_goes(self, b: Any) -> None:
        one, two = b.pod(suffix="a"), b.pod(suffix="b", created=b.now)

        actions = decide(b.snapshot(b.workload(), one, two, b.telemetry()))

        assert [(d.uid, d.fault) for d in actions.deletes] == [(two.uid, Fault.SURPLUS)]


class TestWithoutReservation:
    def record(self, b: Any, pod: Any) -> Any:
        placement = ReplicaPlacement(
            replica=0, state=State.CONFIRMED, pod=pod.name, pod_uid=pod.uid, node="node-1", devices=["GPU-1-0"]
        )
        return b.workload(status=WorkloadStatus(placements=[placement]))

    def test_a_pod_whose_gate_somebody_else_took_off_is_replaced(self, b: Any) -> None:
        assert [d.fault for d in decide(b.snapshot(b.workload(), b.released(), b.telemetry())).deletes] == [
            Fault.MISMATCH
        ]

    def test_a_running_pod_gets_its_reservation_back_when_the_nodes_object_was_made_anew(self, b: Any) -> None:
        pod = b.running()

        actions = decide(b.snapshot(self.record(b, pod), pod, b.telemetry(generation=1)))

        assert not actions.deletes
        assert [(a.pod_uid, a.devices) for a in actions.reserves[0].assignments] == [(pod.uid, ["GPU-1-0"])]

    def test_a_running_pod_is_left_alone_while_the_nodes_object_is_missing(self, b: Any) -> None:
        pod = b.running()

        actions = decide(b.snapshot(self.record(b, pod), pod, b.node()))

        assert not actions.deletes
        assert b.condition(actions.statuses[0], "Degraded")[0] == "False"
        assert "GPUTelemetry of node-1 is gone" in str(actions.statuses[0].status.placements[0].message)


class TestBadInput:
    def test_an_invalid_template_is_a_condition_and_no_pod(self, b: Any) -> None:
        workload = b.workload(template={"spec": {"nodeName": "node-1", "containers": [{"name": "a"}]}})

        actions = decide(b.snapshot(workload, b.telemetry()))

        assert not actions.creates
        assert b.condition(actions.statuses[0], "Stalled") == ("True", "InvalidTemplate")
        assert b.condition(actions.statuses[0], "Ready") == ("False", "InvalidTemplate")
        assert "spec.template.spec.nodeName: is 'node-1'" in actions.statuses[0].status.conditions[0].message

    def test_an_object_that_does_not_parse_is_a_condition_and_not_a_crash(self, b: Any) -> None:
        workload = replace(b.workload(), model=None, invalid="spec.replicas: must be a number (got 'x')")

        actions = decide(b.snapshot(workload, b.telemetry()))

        assert b.condition(actions.statuses[0], "Stalled") == ("True", "InvalidObject")

    def test_what_is_on_record_outlives_an_object_that_does_not_parse(self, b: Any) -> None:
        record = ReplicaPlacement(replica=0, state=State.SUCCEEDED, shard_start=0, shard_end=9)
        workload = b.workload(status=WorkloadStatus(placements=[record]))

        actions = decide(b.snapshot(replace(workload, model=None, invalid="x"), b.telemetry()))

        assert actions.statuses[0].status.placements == [record]

    def test_pods_that_the_apiserver_refuses_are_told_and_tried_again_later(self, b: Any) -> None:
        setback = Backoff(3, b.now, b.now + timedelta(seconds=4), "exceeded quota: gpu", "apiserver")
        memory = Memory(setbacks={"create/uid-train": setback})
        snapshot = b.snapshot(b.workload(), b.telemetry(), memory=memory)

        actions = decide(snapshot)

        assert not actions.creates
        assert b.condition(actions.statuses[0], "Stalled") == ("True", "PodCreateFailed")
        assert "exceeded quota" in actions.statuses[0].status.conditions[0].message
        assert decide(b.later(snapshot, actions, 4)).creates

    def test_a_uuid_on_two_nodes_takes_the_second_node_out_and_is_reported(self, b: Any) -> None:
        one, two = b.telemetry("node-1"), b.telemetry("node-2")
        twin = two.model.model_copy(update={"status": one.status})

        actions = decide(b.snapshot(b.workload(), b.pod(), one, replace(two, model=twin)))

        assert [r.node for r in actions.reserves] == ["node-1"]
        assert "stands twice" in actions.troubles[0]


class TestDegraded:
    def confirmed(self, b: Any, **telemetry: Any) -> Any:
        pod = b.running()
        assignment = b.assignment(pod)
        found = b.telemetry(assignments=[assignment], held={"GPU-1-0": assignment}, **telemetry)
        return decide(b.snapshot(b.workload(), pod, found)).statuses[0]

    def test_a_faulty_device_is_told_and_the_pod_left_running(self, b: Any) -> None:
        write = self.confirmed(b, health={"state": "Unhealthy"})

        assert b.condition(write, "Degraded") == ("True", "DeviceUnhealthy")
        assert b.condition(write, "Ready") == ("True", "Confirmed")

    def replacing(self, b: Any, seconds: float, *, policy: str = "Replace", age: float = 1, **later: Any) -> Actions:
        """A confirmed pod whose first device of two was faulty at first, so many seconds later."""
        workload = b.workload(placement={"onDegraded": policy})
        pod = b.running()
        assignment = b.assignment(pod)
        fields = {"assignments": [assignment], "held": {"GPU-1-0": assignment}}
        first = b.snapshot(workload, pod, b.telemetry(health={"state": "Unhealthy"}, age=age, **fields))
        now = {"health": {"state": "Unhealthy"}, **later}
        then = b.snapshot(workload, pod, b.telemetry("node-2"), b.telemetry(age=age - seconds, **fields, **now))
        return decide(b.later(then, decide(first), seconds))

    def test_replace_waits_ten_seconds_and_deletes_exactly_that_pod(self, b: Any) -> None:
        assert not self.replacing(b, 9.9).deletes
        actions = self.replacing(b, 10)

        (delete,) = actions.deletes
        assert (delete.uid, delete.resource_version, delete.fault) == ("uid-train-0-a", "20", Fault.DEGRADED)
        assert "GPU-1-0" in delete.message
        assert not actions.reserves, "the devices stay reserved until the pod is gone"
        assert b.condition(actions.statuses[0], "Degraded") == ("True", "DeviceUnhealthy")

    def test_what_is_not_asked_for_or_not_known_replaces_nothing(self, b: Any) -> None:
        assert not self.replacing(b, 60, policy="Ignore").deletes
        assert not self.replacing(b, 60, health={"state": "Healthy"}).deletes, "it came back"
        assert not self.replacing(b, 60, age=200).deletes, "stale telemetry"
        assert not self.replacing(b, 60, devices=0).deletes, "an agent that starts before the driver knows no device"

    def test_the_new_pod_goes_to_devices_that_are_healthy(self, b: Any) -> None:
        workload = b.workload(placement={"onDegraded": "Replace"})
        old, new = b.running(deleting=True), b.pod(suffix="b")
        sick = b.telemetry(assignments=[b.assignment(old)], health={"state": "Unhealthy"})

        actions = decide(b.snapshot(workload, old, new, sick, b.telemetry("node-2")))

        assert [(r.pod_uid, r.node) for r in actions.releases] == [(new.uid, "node-2")]

    def test_a_decision_is_due_when_the_time_is_over(self, b: Any) -> None:
        workload, pod = b.workload(placement={"onDegraded": "Replace"}), b.running()
        sick = b.telemetry(assignments=[b.assignment(pod)], health={"state": "Unhealthy"})

        assert decide(b.snapshot(workload, pod, sick)).due == b.now + timedelta(seconds=10)

    def test_stale_telemetry_is_told(self, b: Any) -> None:
        assert b.condition(self.confirmed(b, age=200), "Degraded") == ("True", "TelemetryStale")
