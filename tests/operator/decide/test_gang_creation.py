"""Which workloads get their missing pods in a pass, and which gangs give theirs back."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.gang_creation import due_creations, remove_incomplete_gangs, retry_when_freed
from gpufleet_operator.decide.replicas import assess
from gpufleet_operator.ledger.ledger import read_ledger
from gpufleet_operator.model.objects import Pod, ResourceQuota, Workload
from gpufleet_operator.model.replica import RemovalReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Backoff, Limits, PassState, QueuedCreation
from gpufleet_testing.operator import make

QUOTA = 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4'
OLD, YOUNG = make.NOW - timedelta(minutes=9), make.NOW - timedelta(minutes=1)


def gang(name: str, created: datetime = OLD) -> Workload:
    return make.workload(name, created=created, replicas=2, placement={"gang": True})


def backing_off(*workloads: Workload, message: str = QUOTA, seconds: float = 30) -> PassState:
    backoff = Backoff(6, make.NOW, make.NOW + timedelta(seconds=seconds), message, "apiserver")
    return PassState(write_backoffs={f"create/{w.uid}": backoff for w in workloads})


def assessed(snapshot: Snapshot) -> Sequence[WorkloadReplicas]:
    state = snapshot.previous_state
    return assess(snapshot, state, read_ledger(snapshot, state), WorkloadGuard())


def due(snapshot: Snapshot) -> tuple[str, ...]:
    return due_creations(snapshot, snapshot.previous_state, assessed(snapshot), guard=WorkloadGuard()).due


def test_gang_that_waits_for_quota_is_tried_before_a_younger_one() -> None:
    first, second = gang("first"), gang("second", YOUNG)
    assert due(make.snapshot(second, first, state=backing_off(first))) == ("uid-first", "uid-second")


def test_gang_that_waits_for_quota_is_not_tried_because_of_an_older_one() -> None:
    first, second = gang("first"), gang("second", YOUNG)
    assert due(make.snapshot(first, second, state=backing_off(second))) == ("uid-first",)


def test_gang_is_held_while_another_one_has_no_response() -> None:
    first, second = gang("first"), gang("second", YOUNG)
    single = make.workload("single", created=YOUNG)
    state = PassState(in_flight=frozenset({"create/uid-first", "create/uid-single", "status/uid-second"}))
    snapshot = make.snapshot(first, second, single, state=state)
    found = due_creations(snapshot, state, assessed(snapshot), guard=WorkloadGuard())
    assert not found.due
    assert found.held == {"uid-second"}


def test_pass_creates_the_first_pods_of_each_namespace_and_queues_the_others() -> None:
    """The last workload gets all of its pods."""
    names = ("old", "three", "young")
    old, three, young = (
        make.workload(name, created=OLD + timedelta(minutes=n), replicas=3 if name == "three" else 1)
        for n, name in enumerate(names)
    )
    other = replace(make.workload("other", created=YOUNG), namespace="research")
    later = gang("gang", YOUNG)
    snapshot = make.snapshot(young, three, old, other, later, limits=Limits(max_creates=2))

    found = due_creations(snapshot, snapshot.previous_state, assessed(snapshot), guard=WorkloadGuard())

    assert set(found.due) == {"uid-old", "uid-three", "uid-other", "uid-gang"}, "gangs have an order of their own"
    assert found.queued == {"uid-young": QueuedCreation("ml", (0, young.created, "ml/young"), 1)}


@pytest.mark.parametrize(("unsent", "expected"), [(0, 16), (10, 6), (16, 2), (99, 2)])
def test_fewer_pods_are_created_while_releases_of_the_namespace_wait(unsent: int, expected: int) -> None:
    """Each pass would decide on the devices of all of them again. An eighth goes on, as a release may hang."""
    workloads = [make.workload(f"w-{number:02d}") for number in range(20)]
    other = replace(make.workload("other"), namespace="research")
    state = PassState(unsent_releases={"ml": unsent})
    snapshot = make.snapshot(*workloads, other, limits=Limits(max_creates=16), state=state)

    found = due_creations(snapshot, state, assessed(snapshot), guard=WorkloadGuard())

    assert len(set(found.due) - {"uid-other"}) == expected
    assert "uid-other" in found.due
    assert len(found.queued) == 20 - expected


def test_no_pod_is_created_where_creations_would_not_be_sent() -> None:
    """Each pass would decide on the first 64 of them again."""
    workloads = [make.workload(f"w-{number:02d}") for number in range(20)]
    other = replace(make.workload("other"), namespace="research")
    state = PassState(full_creations=frozenset({"ml"}))
    snapshot = make.snapshot(*workloads, other, limits=Limits(max_creates=16), state=state)

    found = due_creations(snapshot, state, assessed(snapshot), guard=WorkloadGuard())

    assert set(found.due) == {"uid-other"}
    assert len(found.queued) == 20


def test_workload_that_is_not_looked_at_is_required_when_its_turn_comes() -> None:
    old, young = make.workload("old", created=OLD), make.workload("young", created=YOUNG)
    elsewhere = {"uid-between": QueuedCreation("ml", (0, OLD + timedelta(minutes=1), "ml/between"), 1)}
    snapshot = make.snapshot(old, young, limits=Limits(max_creates=2))

    found = due_creations(snapshot, snapshot.previous_state, assessed(snapshot), elsewhere, guard=WorkloadGuard())

    assert found.elsewhere == {"uid-between"}
    assert found.due == ("uid-old",)
    assert found.queued.keys() == {"uid-young"}


def test_single_replica_does_not_cause_an_attempt_of_a_gang() -> None:
    first, single = gang("first"), make.workload("single", created=YOUNG)
    assert due(make.snapshot(first, single, state=backing_off(first))) == ("uid-single",)


def test_gang_that_another_rule_rejects_keeps_its_backoff() -> None:
    first, second = gang("first"), gang("second", YOUNG)
    state = backing_off(first, message="maximum cpu usage per Container is 1")
    assert due(make.snapshot(first, second, state=state)) == ("uid-second",)


def quota(used: int, *, hard: int = 4, namespace: str = "ml") -> ResourceQuota:
    return ResourceQuota("uid-q", str(100 + used), namespace, {"pods": str(hard)}, {"pods": str(used)})


def after(state: PassState, *objects: Workload | Pod, quotas: Sequence[ResourceQuota], seconds: float = 0) -> PassState:
    """Returns the state of a pass that sees these quotas."""
    now = make.NOW + timedelta(seconds=seconds)
    found = {each.uid: each for each in quotas}
    return retry_when_freed(make.snapshot(*objects, state=state, quotas=found, now=now), state)


@pytest.mark.parametrize(
    ("later", "ends"),
    [
        pytest.param([quota(3)], True, id="used-falls"),
        pytest.param([quota(4, hard=5)], True, id="raised"),
        pytest.param([], True, id="deleted"),
        pytest.param([quota(4)], False, id="unchanged"),
        pytest.param([quota(5)], False, id="used-rises"),
    ],
)
def test_backoff_ends_when_the_quota_has_more_room(later: Sequence[ResourceQuota], ends: bool) -> None:
    waiting = gang("waiting")
    state = after(backing_off(waiting), waiting, quotas=[quota(4)])
    assert state.is_backing_off("create/uid-waiting", make.NOW)
    state = after(state, waiting, quotas=later)
    assert state.is_backing_off("create/uid-waiting", make.NOW) is not ends


def test_backoff_remains_when_the_quota_of_another_namespace_has_more_room() -> None:
    waiting = gang("waiting")
    state = after(backing_off(waiting), waiting, quotas=[quota(4, namespace="other")])
    state = after(state, waiting, quotas=[quota(3, namespace="other")])
    assert state.is_backing_off("create/uid-waiting", make.NOW)


def test_backoff_remains_when_the_gang_gave_the_room_back() -> None:
    """The quota is recalculated some time after the gated pod is gone."""
    waiting = gang("waiting")
    state = after(backing_off(waiting), waiting, make.pod(waiting), quotas=[quota(4)])
    state = after(state, waiting, quotas=[quota(4)], seconds=2)
    state = after(state, waiting, quotas=[quota(3)], seconds=5)
    assert state.is_backing_off("create/uid-waiting", make.NOW + timedelta(seconds=5))
    state = after(state, waiting, quotas=[quota(2)], seconds=11)
    assert not state.is_backing_off("create/uid-waiting", make.NOW + timedelta(seconds=11))


def test_pods_of_an_incomplete_gang_are_taken_back() -> None:
    waiting = gang("waiting")
    snapshot = make.snapshot(waiting, make.pod(waiting), make.telemetry(), state=backing_off(waiting))
    (found,) = remove_incomplete_gangs(
        snapshot.previous_state, assessed(snapshot), due(snapshot), guard=WorkloadGuard()
    )
    (removal,) = found.removals
    assert (removal.pod.name, removal.reason) == ("waiting-0-a", RemovalReason.INCOMPLETE_GANG)
    assert QUOTA in removal.message


def test_pods_are_not_taken_back_in_the_pass_that_tries_again() -> None:
    waiting = gang("waiting")
    snapshot = make.snapshot(waiting, make.pod(waiting), make.telemetry(), state=backing_off(waiting, seconds=0))
    (found,) = remove_incomplete_gangs(
        snapshot.previous_state, assessed(snapshot), due(snapshot), guard=WorkloadGuard()
    )
    assert not found.removals


def test_pods_of_a_gang_that_has_started_stay() -> None:
    started = gang("started")
    pod = make.running_pod(started)
    telemetry = make.telemetry(assignments=[make.assignment(pod, workload="started")])
    snapshot = make.snapshot(started, pod, telemetry, state=backing_off(started))
    (found,) = remove_incomplete_gangs(
        snapshot.previous_state, assessed(snapshot), due(snapshot), guard=WorkloadGuard()
    )
    assert not found.removals


def test_pods_of_a_gang_stay_when_a_response_was_lost() -> None:
    waiting = gang("waiting")
    lost = Backoff(1, make.NOW, make.NOW + timedelta(seconds=1), "no response", "network")
    state = PassState(write_backoffs={"create/uid-waiting": lost})
    snapshot = make.snapshot(waiting, make.pod(waiting), make.telemetry(), state=state)
    (found,) = remove_incomplete_gangs(state, assessed(snapshot), due(snapshot), guard=WorkloadGuard())
    assert not found.removals
