"""How replicas start again, and how workloads end."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Unpack

import pytest

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadStatus
from gpufleet_common import timestamps
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.objects import Pod, PodDeletion, PodPhase, Workload
from gpufleet_operator.model.pod_state.containers import Container, Termination, Waiting
from gpufleet_operator.model.replica import RemovalReason
from gpufleet_testing.operator import make, results
from gpufleet_testing.operator.fields import PodFields, WorkloadSpecFields

ENDED = make.NOW - timedelta(seconds=4)


def workload(
    policy: str = "Never", *, status: WorkloadStatus | None = None, **spec: Unpack[WorkloadSpecFields]
) -> Workload:
    template = {"spec": {"restartPolicy": policy, "containers": [{"name": "main", "image": "busybox"}]}}
    return make.workload(template=template, status=status, **spec)


def failed_pod(replica: int = 0, **fields: Unpack[PodFields]) -> Pod:
    main = Container("main", ran=True, terminated=Termination(3, "Error", finished_at=ENDED))
    failed: PodFields = {"node": "node-1", "phase": PodPhase.FAILED, "containers": (main,), **fields}
    return make.released_pod(replica=replica, **failed)


def waiting_pod(reason: str, init: Container | None = None) -> Pod:
    """A pod of replica 1 on node-2 whose app container has not started."""
    main = Container("main", waiting=Waiting(reason))
    inits = (init,) if init else ()
    return make.released_pod(replica=1, to="node-2", node="node-2", containers=(main,), init_containers=inits)


def stored(*placements: ReplicaPlacement, **fields: object) -> WorkloadStatus:
    return WorkloadStatus(placements=list(placements), **fields)


def placement(replica: int = 0, state: str = "Allocated", pod: Pod | None = None, **fields: object) -> ReplicaPlacement:
    named = {"pod": pod.name, "podUID": pod.uid} if pod else {}
    return ReplicaPlacement.model_validate({"replica": replica, "state": state, **named, **fields})


def attempts(actions: Actions) -> list[tuple[int, int]]:
    """Attempt and failures per replica in the written status."""
    return [(p.attempt or 0, p.failures or 0) for p in results.status(actions).placements]


def after(workload: Workload, actions: Actions, pods: Sequence[Pod], seconds: float = 0) -> Actions:
    """The next pass, once the status is stored."""
    spec = make.spec(workload)
    again = make.workload(status=results.status(actions), **spec.model_dump(by_alias=True, exclude_none=True))
    now = make.NOW + timedelta(seconds=seconds)
    return decide(make.snapshot(again, *pods, make.telemetry(), now=now, state=actions.state))


class TestRestartReplica:
    def test_failure_is_recorded_before_a_pod_is_created(self) -> None:
        train, pod = workload(), failed_pod()

        first = decide(make.snapshot(train, pod, make.telemetry()))

        assert not first.creates
        assert not first.deletes
        assert attempts(first) == [(1, 1)]
        assert results.status(first).failed == 1
        assert "container main: exit code 3" in results.message(first.statuses[0], "Ready")
        assert results.condition(first.statuses[0], "Ready") == ("False", "RestartBackOff")

    @pytest.mark.parametrize(("seconds", "created"), [(5.9, 0), (6, 1)])
    def test_next_attempt_starts_ten_seconds_after_the_end(self, seconds: float, created: int) -> None:
        train, pod = workload(), failed_pod()
        first = decide(make.snapshot(train, pod, make.telemetry()))

        second = after(train, first, [pod], seconds)

        assert len(second.creates) == created
        assert not second.deletes, "the failed pod is kept for its logs"
        assert [c.body["metadata"]["labels"]["gpufleet.dev/attempt"] for c in second.creates] == ["1"] * created
        if not created:
            assert second.due == ENDED + timedelta(seconds=10)

    def test_other_replicas_continue(self) -> None:
        runs = make.running_pod(replica=1)
        telemetry = make.telemetry(assignments=[make.assignment(runs)])

        actions = decide(make.snapshot(workload(replicas=2), failed_pod(), runs, telemetry))

        assert attempts(actions) == [(1, 1), (0, 0)]
        assert not actions.deletes

    def test_failure_of_an_earlier_attempt_does_not_count_again(self) -> None:
        status = stored(placement(state="Pending", attempt=1, failures=1))

        actions = decide(make.snapshot(workload(status=status), failed_pod(), make.telemetry()))

        assert attempts(actions) == [(1, 1)]

    @pytest.mark.parametrize(
        "pod",
        [
            failed_pod(disrupted=True, reason="Evicted"),
            make.released_pod(node="node-1", phase=PodPhase.FAILED, reason="OutOfcpu"),
            failed_pod(deleting=True),
        ],
        ids=["evicted", "rejected by the kubelet", "deleted"],
    )
    def test_what_the_cluster_ended_is_not_a_failure(self, pod: Pod) -> None:
        actions = decide(make.snapshot(workload(runPolicy={"backoffLimit": 0}), pod, make.telemetry()))

        assert attempts(actions) == [(0, 0)]
        assert results.condition(actions.statuses[0], "Failed")[0] == "False"


class TestRestartAll:
    def gang(self, status: WorkloadStatus | None = None, **policy: object) -> Workload:
        return workload(replicas=2, placement={"gang": True}, status=status, runPolicy=policy)

    def test_failure_starts_all_replicas_again_and_counts_once(self) -> None:
        train, pods = self.gang(), [failed_pod(0), failed_pod(1)]

        first = decide(make.snapshot(train, *pods, make.telemetry()))

        assert attempts(first) == [(1, 1), (1, 0)]
        assert results.status(first).failed == 1

    def test_other_pods_are_deleted_once_the_attempt_is_stored(self) -> None:
        train, failed, runs = self.gang(), failed_pod(0), make.running_pod(replica=1)
        first = decide(make.snapshot(train, failed, runs, make.telemetry(assignments=[make.assignment(runs)])))
        assert not first.deletes

        second = after(train, first, [failed, runs], 60)

        assert [(d.uid, d.reason) for d in second.deletes] == [(runs.uid, RemovalReason.RESTARTED)]
        assert {c.replica for c in second.creates} == {0, 1}

    @pytest.mark.parametrize(
        ("lost", "deleted"),
        [
            (make.running_pod(replica=1, deleting=True), {}),
            (failed_pod(1, disrupted=True, reason="Evicted"), {}),
            (None, {"uid-train-1-a": PodDeletion.FORCED}),
            (None, {}),
        ],
        ids=["deleted", "evicted", "force-deleted", "gone while the operator was down"],
    )
    def test_lost_pod_starts_all_replicas_again_and_is_no_failure(
        self, lost: Pod | None, deleted: dict[str, PodDeletion]
    ) -> None:
        runs, gone = make.running_pod(replica=0), make.running_pod(replica=1)
        status = stored(placement(0, pod=runs), placement(1, pod=gone))
        pods = [runs, lost] if lost else [runs]
        telemetry = make.telemetry(assignments=[make.assignment(runs)])

        actions = decide(make.snapshot(self.gang(status), *pods, telemetry, deleted_pods=deleted))

        assert attempts(actions) == [(1, 0), (1, 0)]
        assert not any(d.uid == runs.uid for d in actions.deletes)

    def test_pod_that_never_ran_is_replaced_alone(self) -> None:
        runs, gone = make.running_pod(replica=0), make.released_pod(replica=1)
        status = stored(placement(0, pod=runs), placement(1, "Reserved", pod=gone))
        deleted = {gone.uid: PodDeletion.NEVER_BOUND}
        telemetry = make.telemetry(assignments=[make.assignment(runs)])

        actions = decide(make.snapshot(self.gang(status), runs, telemetry, deleted_pods=deleted))

        assert attempts(actions) == [(0, 0), (0, 0)]
        assert [c.replica for c in actions.creates] == [1]

    def test_gang_with_policy_fail_fails_when_a_pod_is_lost(self) -> None:
        runs, gone = make.running_pod(replica=0), make.running_pod(replica=1, deleting=True)
        train = self.gang(stored(placement(0, pod=runs), placement(1, pod=gone)), onReplicaFailure="Fail")

        actions = decide(make.snapshot(train, runs, gone, make.telemetry(assignments=[make.assignment(runs)])))

        assert results.condition(actions.statuses[0], "Failed") == ("True", "ReplicaFailed")

    def test_second_loss_waits_as_after_a_failure(self) -> None:
        runs, gone = make.running_pod(replica=0), make.running_pod(replica=1, deleting=True)
        status = stored(placement(0, pod=runs), placement(1, pod=gone))
        telemetry = make.telemetry(assignments=[make.assignment(runs)])
        first = results.status(decide(make.snapshot(self.gang(status), runs, gone, telemetry)))
        before = {"restarts": first.restarts, "restart_time": first.restart_time}
        lost_again = self.gang(status.model_copy(update=before))

        again = results.status(decide(make.snapshot(lost_again, runs, gone, telemetry)))

        assert (first.restarts, first.restart_time) == (1, timestamps.seconds(make.NOW))
        assert (again.restarts, again.restart_time) == (2, timestamps.seconds(make.NOW + timedelta(seconds=10)))


class TestEnd:
    def test_failures_beyond_the_limit_fail_the_workload(self) -> None:
        status = stored(placement(state="Pending", attempt=1, failures=1))
        train = workload(status=status, runPolicy={"backoffLimit": 1})

        first = decide(make.snapshot(train, failed_pod(attempt=1), make.telemetry()))

        failed = next(c for c in results.status(first).conditions if c.type == "Failed")
        assert (str(failed.status), failed.reason) == ("True", "BackoffLimitExceeded")
        assert "replica 0: container main: exit code 3" in failed.message
        assert (results.status(first).failed, results.status(first).state) == (2, "Failed")
        assert results.condition(first.statuses[0], "Stalled") == ("True", "BackoffLimitExceeded")
        assert not after(train, first, [failed_pod(attempt=1)], 3600).creates

    def test_pods_are_deleted_once_the_end_is_stored(self) -> None:
        train = workload(replicas=2, runPolicy={"backoffLimit": 0})
        failed, runs = failed_pod(0), make.running_pod(replica=1)
        first = decide(make.snapshot(train, failed, runs, make.telemetry(assignments=[make.assignment(runs)])))
        assert not first.deletes

        second = after(train, first, [failed, runs])

        assert [(d.uid, d.reason) for d in second.deletes] == [(runs.uid, RemovalReason.FINISHED)]
        assert not second.creates

    @pytest.mark.parametrize(
        ("policy", "limit", "restarts", "ends"),
        [
            ("OnFailure", 2, 1, False),
            ("OnFailure", 2, 2, True),
            ("OnFailure", 0, 1, True),
            ("OnFailure", 0, 0, False),
            ("Always", 0, 9, False),
        ],
    )
    def test_container_restarts_count_as_for_a_job(self, policy: str, limit: int, restarts: int, ends: bool) -> None:
        main = Container(
            "main", running=True, ran=True, restarts=restarts, last_terminated=Termination(3, "Error"), ready=True
        )
        pod = make.running_pod(containers=(main,))
        train = workload(policy, runPolicy={"backoffLimit": limit})

        actions = decide(make.snapshot(train, pod, make.telemetry(assignments=[make.assignment(pod)])))

        assert results.condition(actions.statuses[0], "Failed")[0] == str(ends)
        if ends:
            assert "exit code 3" in results.message(actions.statuses[0], "Failed")

    @pytest.mark.parametrize(("seconds", "ends"), [(59, False), (60, True)])
    def test_active_deadline_counts_from_the_start(self, seconds: int, ends: bool) -> None:
        pod = make.running_pod()
        started = make.NOW - timedelta(seconds=seconds)
        status = stored(placement(pod=pod), startTime=timestamps.seconds(started))
        train = workload(status=status, runPolicy={"activeDeadlineSeconds": 60})

        actions = decide(make.snapshot(train, pod, make.telemetry(assignments=[make.assignment(pod)])))

        assert results.condition(actions.statuses[0], "Failed")[0] == str(ends)
        if not ends:
            assert actions.due == started + timedelta(seconds=60)

    @pytest.mark.parametrize(("seconds", "deleted"), [(29, 0), (30, 1)])
    def test_finished_workload_is_deleted_after_its_ttl(self, seconds: float, deleted: int) -> None:
        train = workload(runPolicy={"ttlSecondsAfterFinished": 30})
        pod = make.running_pod(phase=PodPhase.SUCCEEDED)
        first = decide(make.snapshot(train, pod, make.telemetry()))
        assert results.condition(first.statuses[0], "Complete") == ("True", "Succeeded")

        assert len(after(train, first, [pod], seconds).expired) == deleted

    def test_complete_or_suspended_workload_has_no_condition_ready(self) -> None:
        complete = decide(make.snapshot(workload(), make.running_pod(phase=PodPhase.SUCCEEDED), make.telemetry()))
        suspended = decide(make.snapshot(workload(suspend=True), make.telemetry()))

        for actions in (complete, suspended):
            assert "Ready" not in {c.type for c in results.status(actions).conditions}
            assert results.condition(actions.statuses[0], "Reconciling")[0] == "False"


@pytest.mark.parametrize(("policy", "state"), [("Always", "Pending"), ("OnFailure", "Succeeded")])
def test_service_whose_pod_went_with_exit_code_0_runs_again(policy: str, state: str) -> None:
    """An evicted pod went, as Succeeded, before a status said that it was being deleted."""
    gone = make.running_pod()
    train = workload(policy, status=stored(placement(pod=gone)))

    actions = decide(make.snapshot(train, make.telemetry(), deleted_pods={gone.uid: PodDeletion.SUCCEEDED}))

    assert results.states(actions) == [state]


class TestGangTimeout:
    def test_incomplete_gang_starts_again_after_its_timeout(self) -> None:
        runs = make.running_pod(replica=0)
        status = stored(placement(0, pod=runs), placement(1, "Pending"))
        train = workload(
            replicas=2,
            placement={"gang": True, "gangTimeoutSeconds": 600},
            status=status,
            runPolicy={"onReplicaFailure": "RestartReplica"},
        )
        pods = [runs, make.pod(replica=1)]
        first = decide(make.snapshot(train, *pods, make.telemetry(assignments=[make.assignment(runs)])))

        kept = after(train, first, pods, 599)
        restarted = after(train, first, pods, 600)

        assert first.due == make.NOW + timedelta(seconds=600)
        assert results.status(first).incomplete_since == timestamps.seconds(make.NOW)
        assert attempts(kept) == [(0, 0), (0, 0)]
        assert attempts(restarted) == [(1, 0), (1, 0)]
        assert results.status(restarted).incomplete_since is None

    @pytest.mark.parametrize(
        ("member", "incomplete"),
        [
            (waiting_pod("ContainerCreating"), True),
            (waiting_pod("ImagePullBackOff"), True),
            (waiting_pod("PodInitializing", init=Container("data", running=True)), False),
            (waiting_pod("PodInitializing", init=Container("data", running=True, restarts=3)), True),
            (make.running_pod(replica=1, on="node-2", devices=["GPU-2-0"]), False),
        ],
        ids=["creating", "no image", "init container runs", "init container crashes", "runs"],
    )
    def test_bound_member_that_does_not_start_makes_a_gang_incomplete(self, member: Pod, incomplete: bool) -> None:
        runs = make.running_pod(replica=0)
        train = workload(replicas=2, placement={"gang": True}, status=stored(placement(0, pod=runs)))
        nodes = [make.telemetry(assignments=[make.assignment(runs)])]
        nodes += [make.telemetry("node-2", assignments=[make.assignment(member, "GPU-2-0")])]

        status = results.status(decide(make.snapshot(train, runs, member, *nodes)))

        assert (status.incomplete_since is not None) == incomplete

    def test_message_names_the_member_that_does_not_start(self) -> None:
        runs, member = make.running_pod(replica=0), waiting_pod("ErrImagePull")
        since = timestamps.seconds(make.NOW - timedelta(seconds=600))
        status = stored(placement(0, pod=runs), placement(1, "Bound", pod=member), incompleteSince=since)
        nodes = [make.telemetry(assignments=[make.assignment(runs)])]
        nodes += [make.telemetry("node-2", assignments=[make.assignment(member, "GPU-2-0")])]
        train = workload(replicas=2, placement={"gang": True}, status=status, runPolicy={"onReplicaFailure": "Fail"})

        actions = decide(make.snapshot(train, runs, member, *nodes))

        assert attempts(actions) == [(1, 0), (1, 0)]
        assert "replica 1: container main: ImagePullBackOff" in (results.status(actions).placements[0].message or "")


def test_scaling_down_keeps_the_failures_of_removed_replicas() -> None:
    """Else `backoffLimit` would begin again."""
    status = stored(placement(0, failures=1, attempt=1), placement(1, failures=2, attempt=2), failed=4)
    runs = make.running_pod(replica=0, attempt=1)
    node = make.telemetry(assignments=[make.assignment(runs)])

    scaled = decide(make.snapshot(workload(status=status), runs, node))
    fails = decide(make.snapshot(workload(status=status, runPolicy={"backoffLimit": 4}), failed_pod(attempt=1), node))

    assert results.status(scaled).failed == 4, "one of an earlier replica, one of replica 0, two of replica 1"
    assert results.condition(fails.statuses[0], "Failed") == ("True", "BackoffLimitExceeded")


def test_restart_is_an_event_with_its_cause() -> None:
    again = workload(status=stored(placement(pod=failed_pod())))
    actions = decide(make.snapshot(again, failed_pod(), make.telemetry()))

    (event,) = [e for e in actions.statuses[0].events if e.reason == "Restarting"]
    assert (event.note, event.warning) == ("replica 0, attempt 1: container main: exit code 3", True)


def test_success_is_recorded_when_pods_are_deleted_later() -> None:
    status = stored(placement(state=PlacementState.SUCCEEDED), placement(1, "Pending"))

    actions = decide(make.snapshot(workload(replicas=2, status=status), make.telemetry()))

    assert [c.replica for c in actions.creates] == [1]
