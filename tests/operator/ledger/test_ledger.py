"""Which reservations are active, terminating, or to be released."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from gpufleet_common import timestamps
from gpufleet_operator.decide.state import advance
from gpufleet_operator.ledger.ledger import Ledger, read_ledger
from gpufleet_operator.model.objects import PodDeletion, PodPhase
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_testing.operator import make

UID = "uid-train-0-a"


def read(snapshot: Snapshot) -> Ledger:
    return read_ledger(snapshot, advance(snapshot))


def uids(ledger: Ledger) -> tuple[set[str], set[str], set[str]]:
    """Pods of the active, terminating and released reservations."""
    return (
        set(ledger.active),
        {r.assignment.pod_uid for r in ledger.terminating},
        {r.assignment.pod_uid for r in ledger.to_release},
    )


def test_reservation_of_an_existing_pod_is_active() -> None:
    gated, released, running = make.pod("a"), make.released_pod("b"), make.running_pod("c")
    assignments = [make.assignment(p, f"GPU-1-{i}") for i, p in enumerate((gated, released, running))]

    telemetry = make.telemetry(devices=3, assignments=assignments)
    found = read(make.snapshot(make.workload("a"), gated, released, running, telemetry))

    assert uids(found) == ({gated.uid, released.uid, running.uid}, set(), set())


def without_pod(
    *,
    held: bool = False,
    age: float = 1.0,
    deleted_pods: Mapping[str, PodDeletion] | None = None,
    without_nodes: tuple[str, ...] = (),
    processes_observed: bool = True,
    grace_seconds: int | None = None,
) -> Snapshot:
    """A reservation whose pod object is gone; `held`: the agent still reports the pod as a holder."""
    assignment = make.assignment(make.running_pod(), termination_grace_period_seconds=grace_seconds)
    holder = {"GPU-1-0": assignment} if held else {}
    telemetry = make.telemetry(assignments=[assignment], held=holder, age=age, processes_observed=processes_observed)
    return make.snapshot(telemetry, deleted_pods=deleted_pods or {}, without_nodes=without_nodes)


def is_released(first: Snapshot, later: Snapshot | None = None, *, seconds: float = 0) -> bool:
    """Whether the reservation is released some seconds after `first`, when the cluster is as in `later`."""
    now = first.now + timedelta(seconds=seconds)
    then = replace(later or first, now=now, previous_state=advance(first))
    _, terminating, released = uids(read(then))
    assert terminating | released == {UID}
    return released == {UID}


class TestDeletedPod:
    def test_held_devices_are_not_released(self) -> None:
        assert uids(read(without_pod(held=True))) == (set(), {UID}, set())

    def test_stale_telemetry_releases_nothing(self) -> None:
        terminated = {UID: PodDeletion.TERMINATED}

        assert not is_released(without_pod(age=200, deleted_pods=terminated), seconds=60)

    def test_never_bound_pod_is_released_immediately(self) -> None:
        snapshot = without_pod(age=200, deleted_pods={UID: PodDeletion.NEVER_BOUND})

        assert uids(read(snapshot)) == (set(), set(), {UID})

    def test_deleted_node_has_no_containers(self) -> None:
        assert uids(read(without_pod(held=True, without_nodes=("node-1",)))) == (set(), set(), {UID})

    def test_holder_without_uid_is_identified_by_name(self) -> None:
        assignment = make.assignment(make.running_pod())
        by_name = {"GPU-1-0": assignment.model_copy(update={"pod_uid": None})}
        telemetry = make.telemetry(assignments=[assignment], held=by_name)

        found = read(make.snapshot(telemetry, state=PassState(seen_holding=frozenset({UID}))))

        assert uids(found) == (set(), {UID}, set())


class TestTerminatedPod:
    """The kubelet reported the end of its containers before the pod was deleted."""

    terminated: Mapping[str, PodDeletion] = {UID: PodDeletion.TERMINATED}

    def test_report_without_the_pod_releases(self) -> None:
        shown = without_pod(held=True, deleted_pods=self.terminated)
        dropped = without_pod(deleted_pods=self.terminated)

        assert not is_released(shown, shown, seconds=60)
        assert is_released(shown, dropped)

    def test_report_from_after_its_end_releases(self) -> None:
        before = without_pod(deleted_pods=self.terminated)
        after = without_pod(deleted_pods=self.terminated, age=0)

        assert not is_released(before), "the report may be older than its allocation"
        assert is_released(before, after)

    def test_delay_of_the_agent_releases(self) -> None:
        snapshot = without_pod(deleted_pods=self.terminated)

        assert not is_released(snapshot, seconds=4.9)
        assert is_released(snapshot, seconds=5)


@pytest.mark.parametrize("deleted_pods", [{}, {UID: PodDeletion.FORCED}], ids=["operator was down", "forced"])
class TestPodWithoutKnownEnd:
    """Its container may run: no kubelet has reported its end."""

    def test_silent_agent_releases_nothing(self, deleted_pods: Mapping[str, PodDeletion]) -> None:
        """The report is older than the allocation, and the container runs on a node without a connection."""
        assert not is_released(without_pod(deleted_pods=deleted_pods), seconds=60)

    def test_later_report_releases_after_the_exit_delay(self, deleted_pods: Mapping[str, PodDeletion]) -> None:
        before = without_pod(deleted_pods=deleted_pods)
        after = replace(without_pod(deleted_pods=deleted_pods, age=0), now=make.NOW + timedelta(seconds=20))
        reported = make.with_state(after, advance(make.with_state(after, advance(before))))

        assert not is_released(before, after, seconds=20), "reported just now"
        assert not is_released(reported, seconds=4.9)
        assert is_released(reported, seconds=5)

    def test_report_that_dropped_the_pod_starts_the_delay(self, deleted_pods: Mapping[str, PodDeletion]) -> None:
        shown = without_pod(held=True, deleted_pods=deleted_pods)
        dropped = without_pod(deleted_pods=deleted_pods, age=0)
        reported = make.with_state(dropped, advance(make.with_state(dropped, advance(shown))))

        assert not is_released(reported, seconds=4.9)
        assert is_released(reported, seconds=5)

    @pytest.mark.parametrize(("grace_seconds", "delay"), [(None, 35), (0, 5), (45, 50)])
    def test_grace_period_is_added_if_the_agent_sees_no_processes(
        self, deleted_pods: Mapping[str, PodDeletion], grace_seconds: int | None, delay: float
    ) -> None:
        shown, dropped = (
            without_pod(
                held=held, deleted_pods=deleted_pods, age=age, processes_observed=False, grace_seconds=grace_seconds
            )
            for held, age in ((True, 1), (False, 0))
        )
        reported = make.with_state(dropped, advance(make.with_state(dropped, advance(shown))))

        assert not is_released(reported, seconds=delay - 0.1)
        assert is_released(reported, seconds=delay)

    def test_report_that_missed_the_running_pod_is_ignored(self, deleted_pods: Mapping[str, PodDeletion]) -> None:
        """The agent had just started; only its next report counts."""
        pod = make.running_pod()
        existing = {pod.uid: pod}
        shown, missed = without_pod(held=True), without_pod(age=0.5)
        state = advance(replace(shown, pods=existing))
        state = advance(replace(missed, pods=existing, previous_state=state))
        gone = replace(missed, deleted_pods=deleted_pods, previous_state=state)

        assert not is_released(gone, seconds=60)
        later = without_pod(deleted_pods=deleted_pods, age=0)
        assert not is_released(gone, later, seconds=60), "reported just now"
        state = advance(make.with_state(later, advance(gone)))
        assert is_released(make.with_state(later, state), seconds=5)

    def test_report_with_the_pod_resets_the_delay(self, deleted_pods: Mapping[str, PodDeletion]) -> None:
        shown = without_pod(held=True, deleted_pods=deleted_pods)
        dropped = without_pod(deleted_pods=deleted_pods)
        state = advance(make.with_state(dropped, advance(shown)))

        assert not is_released(make.with_state(shown, state), dropped, seconds=5)


@pytest.mark.parametrize("phase", [PodPhase.SUCCEEDED, PodPhase.FAILED])
def test_terminal_pod_keeps_its_devices_until_a_report_drops_it(phase: PodPhase) -> None:
    pod = make.running_pod(phase=phase)
    assignment = make.assignment(pod)
    held = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment})
    free = make.telemetry(assignments=[assignment])

    first = make.snapshot(pod, held)

    assert uids(read(first)) == (set(), {pod.uid}, set())
    assert uids(read(make.snapshot(pod, free, state=advance(first)))) == (set(), set(), {pod.uid})


def test_rejected_pod_frees_its_devices_immediately() -> None:
    pod = make.released_pod(node="node-1", phase=PodPhase.FAILED, reason="UnexpectedAdmissionError")

    found = read(make.snapshot(pod, make.telemetry(assignments=[make.assignment(pod)])))

    assert uids(found) == (set(), set(), {pod.uid})


def test_reservation_on_a_node_that_the_pod_is_not_pinned_to_is_released() -> None:
    pod = make.released_pod(to="node-2")
    one, two = (make.telemetry(n, assignments=[make.assignment(pod, f"GPU-{n[-1]}-0")]) for n in ("node-1", "node-2"))

    found = read(make.snapshot(pod, one, two))

    assert found.active[pod.uid].node == "node-2"
    assert [r.node for r in found.to_release] == ["node-1"]


def test_older_of_two_reservations_of_a_gated_pod_is_kept() -> None:
    pod = make.pod()
    older = make.assignment(pod, "GPU-2-0", decided_at="2026-01-01T00:00:00.000000Z")
    found = read(
        make.snapshot(
            make.workload(),
            pod,
            make.telemetry("node-1", assignments=[make.assignment(pod)]),
            make.telemetry("node-2", assignments=[older]),
        )
    )

    assert found.active[pod.uid].node == "node-2"
    assert [r.node for r in found.to_release] == ["node-1"]


def test_younger_reservation_of_the_same_device_is_conflicting() -> None:
    old, young, gated = make.running_pod("old"), make.running_pod("young"), make.pod("gated")
    assignments = [
        make.assignment(old, decided_at="2026-01-01T00:00:00.000000Z"),
        make.assignment(young, decided_at="2026-01-01T00:00:01.000000Z"),
        make.assignment(gated, decided_at="2026-01-01T00:00:02.000000Z"),
    ]

    found = read(make.snapshot(old, young, gated, make.telemetry(assignments=assignments)))

    assert found.conflicting == {young.uid}
    assert uids(found) == ({old.uid, young.uid}, set(), {gated.uid})


@pytest.mark.parametrize("held", [True, False])
def test_devices_of_a_pod_rejected_while_it_ran_are_free_when_it_has_ended(held: bool) -> None:
    """A kubelet that was restarted may reject a running pod and report no containers, while these are being killed."""
    pod = make.released_pod(node="node-1", phase=PodPhase.FAILED, reason="UnexpectedAdmissionError")
    assignment = make.assignment(pod)
    telemetry = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment} if held else {})

    _, terminating, released = uids(read(make.snapshot(pod, telemetry)))

    assert (terminating, released) == (({pod.uid}, set()) if held else (set(), {pod.uid}))


@pytest.mark.parametrize("in_flight", [True, False])
def test_two_reservations_are_kept_until_the_response_to_the_release(in_flight: bool) -> None:
    """The write to the first node had no response, and the watch reports it after the pod got devices of another."""
    pod = make.pod()
    before = make.assignment(pod, "GPU-1-0", decided_at=timestamps.micros(make.NOW - timedelta(seconds=9)))
    after = make.assignment(pod, "GPU-2-0", decided_at=timestamps.micros(make.NOW - timedelta(seconds=1)))
    snapshot = make.snapshot(
        make.workload(), pod, make.telemetry(assignments=[before]), make.telemetry("node-2", assignments=[after])
    )
    state = PassState(pods_in_flight=frozenset({pod.uid} if in_flight else ()))

    ledger = read_ledger(snapshot, state)

    found = ledger.active[pod.uid].node, {r.node for r in ledger.occupying}, {r.node for r in ledger.to_release}
    if in_flight:
        assert found == ("node-2", {"node-1", "node-2"}, set())
    else:
        assert found == ("node-1", {"node-1"}, {"node-2"})


@pytest.mark.parametrize("in_flight", [True, False])
def test_other_devices_are_kept_until_the_annotation_names_them(in_flight: bool) -> None:
    """A released pod gets another claim. Its annotation names the first node until the patch is stored."""
    pod = replace(make.released_pod(), node=None, pinned="node-1")
    other = make.assignment(pod, "GPU-2-0", decided_at=timestamps.micros(make.NOW - timedelta(seconds=1)))
    snapshot = make.snapshot(make.workload(), pod, make.telemetry(), make.telemetry("node-2", assignments=[other]))
    state = PassState(pods_in_flight=frozenset({pod.uid} if in_flight else ()))

    ledger = read_ledger(snapshot, state)

    assert [r.node for r in ledger.occupying] == (["node-2"] if in_flight else [])
    assert [r.node for r in ledger.to_release] == ([] if in_flight else ["node-2"])
