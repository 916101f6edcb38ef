"""Devices out of service: nobody new gets them, and `drain` evicts who has them."""

from dataclasses import replace
from datetime import timedelta
from typing import TypedDict, Unpack

import pytest

from gpufleet_api.telemetry.spec import CordonedDevice
from gpufleet_common import timestamps
from gpufleet_operator.decide import drain
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.replicas import _ReplicaAssessor
from gpufleet_operator.decide.state import record_results
from gpufleet_operator.kube import patches
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.objects import BoundPod, Pod
from gpufleet_operator.model.pod_traits import PodTraits
from gpufleet_testing.operator import make, results
from gpufleet_testing.operator.fields import PodFields

BEFORE = timestamps.seconds(make.NOW - timedelta(seconds=1))
LATER = timestamps.seconds(make.NOW + timedelta(seconds=60))


def cordon(uuid: str = "GPU-1-0", **fields: object) -> CordonedDevice:
    return CordonedDevice(uuid=uuid, reason="fan", **fields)


def test_cordoned_device_is_not_picked() -> None:
    actions = decide(make.snapshot(make.workload(), make.pod(), make.telemetry(cordoned=[cordon()])))

    (reserve,) = actions.reserves
    assert [a.devices for a in reserve.assignments] == [["GPU-1-1"]]


def test_explanation_counts_cordoned_devices_with_reason() -> None:
    cordoned = [cordon("GPU-1-0", by="ann", until=LATER), cordon("GPU-1-1", by="ann", until=LATER)]

    actions = decide(make.snapshot(make.workload(), make.pod(), make.telemetry(cordoned=cordoned)))

    explanation = actions.statuses[0].status.explanation
    assert explanation is not None
    assert [(r.reason, r.devices) for r in explanation.ineligible_devices] == [("Cordoned", 2)]
    assert "0/2 GPUs are available: 2 cordoned." in explanation.message
    assert f"is cordoned by ann until {LATER}: fan" in explanation.message


def test_cordon_ends_by_itself() -> None:
    over = decide(
        make.snapshot(make.workload(), make.pod(), make.telemetry(devices=1, cordoned=[cordon(until=BEFORE)]))
    )
    active = decide(
        make.snapshot(make.workload(), make.pod(), make.telemetry(devices=1, cordoned=[cordon(until=LATER)]))
    )

    assert len(over.releases) == 1
    assert active.releases == ()
    assert active.due == make.NOW + timedelta(seconds=60)


def test_gated_pod_with_a_cordoned_device_is_placed_again() -> None:
    pod = make.pod()
    telemetry = make.telemetry(assignments=[make.assignment(pod)], cordoned=[cordon()])

    (reserve,) = decide(make.snapshot(make.workload(), pod, telemetry)).reserves

    assert [a.devices for a in reserve.assignments] == [["GPU-1-1"]]


@pytest.mark.parametrize("drain", [True, False])
def test_running_pod_is_evicted_by_drain_only(drain: bool) -> None:
    pod = make.running_pod()
    assignment = make.assignment(pod)
    telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment}, cordoned=[cordon(drain=drain)])

    actions = decide(make.snapshot(make.workload(), pod, telemetry))

    assert [(e.uid, e.message) for e in actions.evictions] == (
        [(pod.uid, "device GPU-1-0 is cordoned: fan")] if drain else []
    )
    assert actions.deletes == ()
    assert results.states(actions) == ["Allocated"]


def test_all_sharers_of_a_drained_device_are_evicted() -> None:
    pods = [make.released_pod(name) for name in ("one", "two")]
    assignments = [
        make.assignment(pod, workload=name, memory_mib=10) for name, pod in zip(("one", "two"), pods, strict=True)
    ]
    telemetry = make.telemetry(assignments=assignments, cordoned=[cordon(drain=True)])

    actions = decide(make.snapshot(make.workload("one"), make.workload("two"), *pods, telemetry))

    assert [e.workload for e in actions.evictions] == ["one", "two"]


def test_exception_about_one_sharer_of_a_drained_device_evicts_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("poison", "good")
    pods = [make.released_pod(name) for name in names]
    assignments = [make.assignment(pod, workload=name, memory_mib=10) for name, pod in zip(names, pods, strict=True)]
    telemetry = make.telemetry(assignments=assignments, cordoned=[cordon(drain=True)])
    may_run, new, gated = drain._may_run, make.workload("new"), make.pod("new")
    poison = make.workload("poison")

    def failing(pod: Pod) -> bool:
        if pod is pods[0]:
            raise KeyError("surprise")
        return may_run(pod)

    monkeypatch.setattr(drain, "_may_run", failing)
    actions = decide(
        make.snapshot(poison, make.workload("good"), new, *pods, gated, telemetry, make.telemetry("node-2"))
    )

    assert [e.workload for e in actions.evictions] == ["good"]
    assert [r.pod_uid for r in actions.releases] == [gated.uid], "placed in the same pass"
    assert list(actions.failed_decisions) == [poison.uid]
    (status,) = (write.status for write in actions.statuses if write.workload_uid == poison.uid)
    assert {c.type: c.reason for c in status.conditions}["Stalled"] == "InternalError"


def test_pod_of_a_workload_that_cannot_be_assessed_is_not_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its eviction may need a record in the status, which is not written."""
    pod = make.running_pod()
    telemetry = make.telemetry(assignments=[make.assignment(pod)], cordoned=[cordon(drain=True)])

    def failing(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(_ReplicaAssessor, "assess_all", failing)
    actions = decide(make.snapshot(make.workload(), pod, telemetry))

    assert list(actions.failed_decisions) == [pod.workload_uid]
    assert not actions.evictions


class BareFields(TypedDict, total=False):
    node: str
    deleting: bool
    movable: bool


def bare(name: str = "notebook-0", **fields: Unpack[BareFields]) -> BoundPod:
    """A pod without a workload that has GPU-1-0."""
    usual = BoundPod(
        "uid-bare", "node-1", "1", {"gpufleet.dev/gpu": 1}, PodTraits(namespace="ml"), name=name, movable=True
    )
    return replace(usual, **fields)


def drained_of(pod: BoundPod, *, age: float = 1.0) -> Actions:
    holder = make.pod(uid="", name="notebook-0", namespace="ml")
    telemetry = make.telemetry(held={"GPU-1-0": holder}, cordoned=[cordon(drain=True)], age=age)
    return decide(make.snapshot(telemetry, other_pods={pod.uid: pod}))


def test_pod_without_a_workload_is_evicted_if_it_is_created_again() -> None:
    (eviction,) = drained_of(bare()).evictions

    assert (eviction.namespace, eviction.name, eviction.uid) == ("ml", "notebook-0", "uid-bare")
    assert (eviction.workload_uid, eviction.message) == ("", "device GPU-1-0 is cordoned: fan")


@pytest.mark.parametrize(
    ("fields", "age"),
    [
        ({"movable": False}, 1.0),
        ({"deleting": True}, 1.0),
        ({"name": "other"}, 1.0),
        ({"node": "node-2"}, 1.0),
        ({}, 500.0),
    ],
    ids=["no controller", "deleting", "another pod", "another node", "an old report"],
)
def test_other_pods_without_a_workload_stay(fields: BareFields, age: float) -> None:
    assert drained_of(bare(**fields), age=age).evictions == ()


def test_condition_names_who_has_a_drained_device() -> None:
    (write,) = drained_of(bare(movable=False)).reports.telemetry

    found = {c.type: (c.status, c.reason, c.message) for c in write.conditions}
    assert found["Drained"] == ("False", "InUse", "GPU-1-0: ml/notebook-0")


def test_condition_follows_the_pods_that_leave_immediately() -> None:
    """The messages of other conditions are written at most once a minute."""
    holders = [make.pod(uid="", name=name, namespace="ml") for name in ("a", "b")]
    cordoned = [cordon("GPU-1-0", drain=True), cordon("GPU-1-1", drain=True)]
    both = make.telemetry(held=dict(zip(("GPU-1-0", "GPU-1-1"), holders, strict=True)), cordoned=cordoned)
    first = decide(make.snapshot(both))
    (write,) = first.reports.telemetry
    one = make.telemetry(held={"GPU-1-1": holders[1]}, cordoned=cordoned, conditions=write.conditions)

    (second,) = decide(make.snapshot(one, state=first.state)).reports.telemetry

    assert [c.message for c in second.conditions if c.type == "Drained"] == ["GPU-1-1: ml/b"]


def test_empty_device_is_drained_and_the_condition_ends_with_the_entry() -> None:
    telemetry = make.telemetry(cordoned=[cordon(drain=True, until=LATER)])
    first = decide(make.snapshot(telemetry))

    (write,) = first.reports.telemetry
    found = {c.type: (c.status, c.reason, c.message) for c in write.conditions}
    assert found["Drained"] == ("True", "Drained", "no container has GPU-1-0")

    written = replace(telemetry, conditions={c.type: c for c in write.conditions})
    settled = decide(make.snapshot(written, state=first.state))
    assert settled.reports.telemetry == ()
    over = make.later(make.snapshot(written), settled, 61)
    (ended,) = decide(over).reports.telemetry
    assert [c.type for c in ended.conditions] == ["Fresh", "Healthy"]


@pytest.mark.parametrize("fields", [{"deleting": True}, {"gates": ("g",)}], ids=["deleting", "gated"])
def test_pod_that_leaves_or_never_started_is_not_evicted(fields: PodFields) -> None:
    pod = make.running_pod(**fields)
    telemetry = make.telemetry(assignments=[make.assignment(pod)], cordoned=[cordon(drain=True)])

    assert decide(make.snapshot(make.workload(), pod, telemetry)).evictions == ()


def test_drain_that_has_ended_evicts_nothing() -> None:
    pod = make.running_pod()
    telemetry = make.telemetry(assignments=[make.assignment(pod)], cordoned=[cordon(drain=True, until=BEFORE)])

    assert decide(make.snapshot(make.workload(), pod, telemetry)).evictions == ()


def test_rejected_eviction_is_retried_with_backoff() -> None:
    pod = make.running_pod()
    telemetry = make.telemetry(assignments=[make.assignment(pod)], cordoned=[cordon(drain=True)])
    snapshot = make.snapshot(make.workload(), pod, telemetry)
    first = decide(snapshot)
    rejected = record_results(first.state, [(first.evictions[0].key, "violates the budget", "apiserver")], snapshot.now)

    at_once = decide(make.with_state(snapshot, rejected))

    assert at_once.evictions == ()
    assert at_once.due is not None
    assert len(decide(make.later(snapshot, at_once, 1)).evictions) == 1


def test_reservation_leaves_the_cordons_as_they_are() -> None:
    (reserve,) = decide(
        make.snapshot(make.workload(), make.pod(), make.telemetry(cordoned=[cordon("GPU-1-1")]))
    ).reserves

    assert [op["path"] for op in patches.reserve(reserve)] == [
        "/metadata/uid",
        "/metadata/generation",
        "/spec/assignments",
    ]
