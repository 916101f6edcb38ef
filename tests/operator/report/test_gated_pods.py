"""Why a pod is gated: one annotation per reason, one event per change of words."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Unpack

from gpufleet_api.names import SCHEDULING_GATE, WAITING_FOR_ANNOTATION
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions, create_key, release_key
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.report_actions import ExplainPod
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Backoff, PassState
from gpufleet_testing.operator import make
from gpufleet_testing.operator.fields import SnapshotFields

BUSY = make.telemetry(held={f"GPU-1-{i}": make.pod("other") for i in range(2)})


def explained(actions: Actions) -> ExplainPod:
    (only,) = actions.reports.pods
    return only


def annotation(action: ExplainPod) -> Any:
    """The value that the patch sets."""
    value = action.patch[-1]["value"]
    return value[WAITING_FOR_ANNOTATION] if isinstance(value, Mapping) else value


def waiting(pod: Pod | None = None, workload: Workload | None = None, **options: Unpack[SnapshotFields]) -> Snapshot:
    return make.snapshot(workload or make.workload(), pod or make.pod(), BUSY, **options)


def test_pod_without_devices_gets_event_and_annotation() -> None:
    action = explained(decide(waiting()))

    assert (action.reason, annotation(action), action.warning) == ("WaitingForDevices", "Devices", True)
    assert action.note.startswith("0/2 GPUs are available: 2 in use.")


def test_existing_annotations_are_kept() -> None:
    action = explained(decide(waiting(make.pod(has_annotations=True))))

    assert action.patch[-1] == {
        "op": "add",
        "path": "/metadata/annotations/gpufleet.dev~1waiting-for",
        "value": "Devices",
    }


def test_young_pod_is_explained_after_two_seconds() -> None:
    pod = make.pod(created=make.NOW - timedelta(seconds=1))

    actions = decide(waiting(pod))

    assert actions.reports.pods == ()
    assert actions.due == make.NOW + timedelta(seconds=1)
    assert len(decide(make.later(waiting(pod), actions, 1)).reports.pods) == 1


def test_pod_of_a_deleted_workload_is_no_warning() -> None:
    action = explained(decide(make.snapshot(make.pod(waiting_for="Devices", has_annotations=True), BUSY)))

    assert (action.reason, action.warning) == ("WaitingForGPUWorkload", False)
    assert action.note == "its GPUWorkload was deleted, so the garbage collector deletes the pod"


def test_pod_that_is_released_is_not_explained() -> None:
    actions = decide(make.snapshot(make.workload(), make.pod(), make.telemetry()))

    assert len(actions.releases) == 1
    assert actions.reports.pods == ()


def test_release_removes_the_annotation() -> None:
    pod = make.pod(waiting_for="Devices", has_annotations=True)

    (release,) = decide(make.snapshot(make.workload(), pod, make.telemetry())).releases

    assert {"op": "remove", "path": "/metadata/annotations/gpufleet.dev~1waiting-for"} in release.patch


def test_other_gates_are_named() -> None:
    action = explained(decide(waiting(make.pod(gates=(SCHEDULING_GATE, "example.com/quota")))))

    assert (action.reason, action.warning) == ("WaitingForOtherSchedulingGates", False)
    assert "example.com/quota" in action.note


def test_pod_without_a_workload_waits_for_it() -> None:
    action = explained(decide(make.snapshot(make.pod(), BUSY)))

    assert annotation(action) == "GPUWorkload"


def test_pod_of_an_invalid_template_names_the_field() -> None:
    broken = make.workload(
        template={"spec": {"restartPolicy": "Never", "nodeName": "n", "containers": [{"name": "a"}]}}
    )

    action = explained(decide(waiting(workload=broken)))

    assert annotation(action) == "ValidTemplate"
    assert "spec.template.spec.nodeName" in action.note


def test_incomplete_gang_waits_for_its_other_pods() -> None:
    gang = make.workload(replicas=2, placement={"gang": True})

    action = explained(decide(waiting(workload=gang)))

    words = "1 of 2 pods of the gang are missing or cannot be placed yet: replica 1: creating pod"
    assert (annotation(action), action.note) == ("Gang", words)


def test_gang_whose_other_pods_are_being_created_is_not_explained() -> None:
    """The annotation would conflict with the release that the next pass decides on."""
    gang = make.workload(replicas=2, placement={"gang": True})
    state = PassState(in_flight=frozenset({create_key(gang.uid)}))

    snapshot = make.with_state(waiting(workload=gang), state)

    assert decide(snapshot).reports.pods == ()


def test_successor_waits_for_its_predecessor_without_a_warning() -> None:
    gone = make.running_pod(uid="uid-old", name="train-0-old", deleting=True)
    kept = make.assignment(gone, keep_for_successor=True)
    telemetry = make.telemetry(assignments=[kept], held={"GPU-1-0": kept})

    action = explained(decide(make.snapshot(make.workload(), gone, make.pod(), telemetry)))

    assert (action.reason, annotation(action), action.warning) == ("WaitingForPredecessor", "Predecessor", False)
    assert action.note == "devices on node-1 are kept until pod train-0-old has ended"


def test_pod_is_explained_while_others_without_gang_are_created() -> None:
    """Their creations may hang."""
    workload = make.workload(replicas=2)
    state = PassState(in_flight=frozenset({create_key(workload.uid)}))

    assert explained(decide(make.with_state(waiting(workload=workload), state))).reason == "WaitingForDevices"


def test_gang_member_with_devices_waits_for_the_predecessor_of_another() -> None:
    gang = make.workload(replicas=2, placement={"gang": True})
    gone = make.running_pod(replica=1, uid="uid-old", name="train-1-old", deleting=True)
    first, second = make.pod(replica=0, suffix="new"), make.pod(replica=1, suffix="new")
    kept = make.assignment(gone, "GPU-1-1", keep_for_successor=True)
    telemetry = make.telemetry(assignments=[make.assignment(first), kept], held={"GPU-1-1": kept})

    reports = decide(make.snapshot(gang, gone, first, second, telemetry)).reports.pods

    notes = {action.name: (action.reason, action.note) for action in reports}
    waits = "replica 1: devices on node-1 are kept until pod train-1-old has ended"
    words = f"1 of 2 pods of the gang are missing or cannot be placed yet: {waits}"
    assert notes[first.name] == ("WaitingForGang", words)
    assert notes[second.name][0] == "WaitingForPredecessor"


def test_rejected_release_is_explained() -> None:
    pod = make.pod()
    rejected = Backoff(1, make.NOW, make.NOW + timedelta(seconds=9), "denied by policy", "apiserver")
    state = PassState(write_backoffs={release_key(pod.uid): rejected})
    telemetry = make.telemetry(assignments=[make.assignment(pod)])

    action = explained(decide(make.snapshot(make.workload(), pod, telemetry, state=state)))

    assert (annotation(action), action.note) == ("Release", "apiserver: denied by policy")


def after(snapshot: Snapshot, actions: Actions, seconds: float, *, other: bool = False) -> Actions:
    """The next pass, with the annotation written, and with other words in the message."""
    later = make.later(snapshot, actions, seconds)
    pods = {uid: replace(p, waiting_for="Devices", has_annotations=True) for uid, p in later.pods.items()}
    telemetry = replace(make.telemetry(health={"state": "Unhealthy"}) if other else BUSY, confirmed_at=later.now)
    return decide(replace(later, pods=pods, telemetry={"node-1": telemetry}))


def test_same_reason_and_note_are_not_recorded_again() -> None:
    snapshot = waiting()
    first = decide(snapshot)

    assert after(snapshot, first, 300).reports.pods == ()


def test_changed_note_is_recorded_every_two_minutes_without_a_patch() -> None:
    snapshot = waiting()
    first = decide(snapshot)

    assert after(snapshot, first, 60, other=True).reports.pods == ()
    action = explained(after(snapshot, first, 121, other=True))
    assert action.patch == ()
    assert "2 unhealthy" in action.note


def test_event_is_repeated_before_the_apiserver_deletes_it() -> None:
    snapshot = waiting()

    assert explained(after(snapshot, decide(snapshot), 1801)).patch == ()


def test_restart_does_not_repeat_the_event_of_an_annotated_pod() -> None:
    annotated = waiting(make.pod(waiting_for="Devices", has_annotations=True))

    first = decide(annotated)

    assert first.reports.pods == ()
    assert explained(after(annotated, first, 1801)).reason == "WaitingForDevices"


def test_changed_reason_is_written_at_once() -> None:
    action = explained(decide(waiting(make.pod(waiting_for="Gang", has_annotations=True))))

    assert annotation(action) == "Devices"


def test_suspended_pod_is_deleted_without_an_explanation() -> None:
    assert decide(waiting(workload=make.workload(suspend=True))).reports.pods == ()
